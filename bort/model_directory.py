"""A model as a folder: ``config.json``, ``bort.params``, its vocabulary, and what else belongs to it.

``config.json`` holds the fields of a Hugging Face ``BertConfig``; a fine-tuned classifier adds ``task`` (name, labels, longest input), so
that predicting needs nothing but the folder. The folder appears whole or not at all.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bort.config import BortConfig, resolve_config
from bort.errors import BortError
from bort.files import whole_directory
from bort.parameters import write_parameters
from bort.tokenizer import Tokenizer

CONFIG_FILE, PARAMETERS_FILE = "config.json", "bort.params"


@dataclass(frozen=True)
class TrainedTask:
    """What a classifier was fine-tuned for.

    Attributes:
        name: of the task.
        labels: its classes in the order of the outputs; None for a regression.
        max_len: longest input, special tokens included.
    """

    name: str
    labels: tuple[str | int, ...] | None
    max_len: int


@dataclass(frozen=True)
class ModelDirectory:
    """What a model folder says of itself.

    Attributes:
        path: the folder.
        config: sizes.
        task: what it was fine-tuned for; None for a pre-trained model.
    """

    path: Path
    config: BortConfig
    task: TrainedTask | None

    @property
    def parameters(self) -> Path:
        """The parameter file."""
        return self.path / PARAMETERS_FILE

    def tokenizer(self) -> Tokenizer:
        """The model's own tokenizer.

        Raises:
            BortError: if the folder holds none, or one of another size than the model.
        """
        tokenizer = Tokenizer.from_directory(self.path)
        if len(tokenizer.vocab) != self.config.vocab_size:
            raise BortError(f"{self.path}: the vocabulary has {len(tokenizer.vocab)} tokens, config.json says {self.config.vocab_size}")
        return tokenizer


def read_model_directory(path: Path | str) -> ModelDirectory:
    """Describe a model folder.

    Raises:
        BortError: if the folder, its configuration or its parameters are missing, or the configuration is damaged.
    """
    path = Path(path)
    config = BortConfig.from_json(path / CONFIG_FILE)
    if not (path / PARAMETERS_FILE).is_file():
        raise BortError(f"{path}: no {PARAMETERS_FILE}; a model folder holds {CONFIG_FILE}, {PARAMETERS_FILE} and a vocabulary")
    stored = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")).get("task")
    return ModelDirectory(path, config, None if stored is None else _read_task(path / CONFIG_FILE, stored, config))


def _read_task(path: Path, stored: Any, config: BortConfig) -> TrainedTask:
    """Check the fields that fine-tuning stored."""
    match stored:
        case {"name": str(name), "labels": None | list() as labels, "max_len": int(max_len)} if (
            5 <= max_len <= config.max_position_embeddings
        ):
            return TrainedTask(name, None if labels is None else tuple(labels), max_len)
    raise BortError(f"{path}: task must hold name, labels and max_len as fine-tuning writes them; copy the folder again")


def write_model_directory(
    path: Path | str,
    config: BortConfig,
    parameters: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    task: TrainedTask | None = None,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        parameters: under published names.
        task: what a classifier was fine-tuned for.
    """
    fields = config.to_dict() | ({"task": asdict(task)} if task else {})
    with whole_directory(path) as partial:
        (partial / CONFIG_FILE).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_parameters(partial / PARAMETERS_FILE, parameters)
        tokenizer.save(partial)


@dataclass(frozen=True)
class ModelSource:
    """A model to build.

    Attributes:
        name: what the user called it, for messages.
        config: its sizes.
        parameters: its file; None draws them at random.
    """

    name: str
    config: BortConfig
    parameters: Path | None

    def fingerprint(self) -> str | None:
        """SHA-256 of the parameter file, None without one; what a run depends on, whatever the file is called.

        Raises:
            BortError: if the file cannot be read.
        """
        if self.parameters is None:
            return None
        try:
            digest = hashlib.sha256()
            with self.parameters.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
            return digest.hexdigest()
        except OSError as error:
            raise BortError(f"{self.parameters}: cannot read: {error.strerror}") from None


def find_model(name: str, parameters: str | None) -> ModelSource:
    """The model that a user names: a model folder, with its own parameters unless others are given, or an architecture.

    Args:
        name: a model folder, an architecture, or a ``config.json``.
        parameters: file that overrides the folder's.

    Raises:
        BortError: if the name is none of these, or the folder is incomplete.
    """
    path = Path(name)
    if parameters is not None or not path.is_dir():
        return ModelSource(name, resolve_config(name), None if parameters is None else Path(parameters))
    model = read_model_directory(path)
    return ModelSource(name, model.config, model.parameters)
