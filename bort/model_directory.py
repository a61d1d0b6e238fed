"""A model as a folder: ``config.json``, ``bort.params``, its vocabulary, and what else belongs to it.

``config.json`` holds the fields of a Hugging Face ``BertConfig``; a fine-tuned classifier adds ``task`` (name, labels, longest input), so
that predicting needs nothing but the folder. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bort.config import BortConfig, resolve_config
from bort.encoder_files import INDEX_FILE, WHOLE_FILE, find_hugging_face, fingerprint, first_difference, read_encoder, read_tokens
from bort.errors import BortError
from bort.files import whole_directory
from bort.parameters import write_parameters
from bort.tokenizer import Tokenizer
from bort.vocabulary import Vocab

CONFIG_FILE, PARAMETERS_FILE, CARD_FILE = "config.json", "bort.params", "README.md"


@dataclass(frozen=True)
class TrainedTask:
    """What a classifier was fine-tuned for.

    Attributes:
        name: of the task.
        labels: its classes in the order of the outputs; None for a regression.
        max_len: longest input, special tokens included.
        keep_question: whether a long input of RACE lost the end of its article, and never of its question.
    """

    name: str
    labels: tuple[str | int, ...] | None
    max_len: int
    keep_question: bool = False


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
    return ModelDirectory(path, config, None if stored is None else read_task(path / CONFIG_FILE, stored, config))


def read_task(path: Path, stored: Any, config: BortConfig) -> TrainedTask:
    """What a classifier was fine-tuned for, from the ``task`` that its ``config.json`` holds.

    Args:
        path: the file, for the message.

    Raises:
        BortError: if fields are missing, or are not such as fine-tuning writes.
    """
    match stored:
        case {"name": str(name), "labels": None | list() as labels, "max_len": int(max_len), "keep_question": bool(keep_question)} if (
            5 <= max_len <= config.max_position_embeddings
        ):
            return TrainedTask(name, None if labels is None else tuple(labels), max_len, keep_question)
    raise BortError(f"{path}: task must hold name, labels, max_len and keep_question as fine-tuning writes them; copy the folder again")


def write_model_directory(
    path: Path | str,
    config: BortConfig,
    parameters: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    task: TrainedTask | None = None,
    texts: Mapping[str, str] | None = None,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        parameters: under published names.
        task: what a classifier was fine-tuned for.
        texts: further files by name, such as the card.
    """
    fields = config.to_dict() | ({"task": asdict(task)} if task else {})
    with whole_directory(path) as partial:
        (partial / CONFIG_FILE).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_parameters(partial / PARAMETERS_FILE, parameters)
        tokenizer.save(partial)
        for name, text in (texts or {}).items():
            (partial / name).write_text(text, encoding="utf-8")


@dataclass(frozen=True)
class ModelSource:
    """A model to build.

    Attributes:
        name: what the user called it, for messages.
        config: its sizes.
        parameters: the file that holds them, or the index of several; None draws them at random.
        folder: the model folder, ours or Hugging Face's, that the user named; None if it was something else.
    """

    name: str
    config: BortConfig
    parameters: Path | None
    folder: Path | None = None

    def read_parameters(self) -> dict[str, np.ndarray]:
        """The parameters under published names, whatever form they are kept in: one copy in memory.

        Raises:
            BortError: if there are none, or a file is missing, damaged, a pickle, or of another kind of model.
        """
        if self.parameters is None:
            raise BortError(f"{self.name} names an architecture without parameters; give a parameter file too, or a model folder")
        return read_encoder(self.parameters)

    def fingerprint(self) -> str | None:
        """SHA-256 of the parameter files, None without one; what a run depends on, whatever the files are called.

        Raises:
            BortError: if a file cannot be read.
        """
        return None if self.parameters is None else fingerprint(self.parameters)

    def check_vocabulary(self, role: str, vocab: Vocab, remedy: str | None = None) -> None:
        """Refuse a model whose own vocabulary is not the data's; where its folder holds none, only sizes can be compared.

        Args:
            role: what the model is to be, for the message: student, teacher or encoder.
            vocab: the data's.
            remedy: what to do about it, for the message; None speaks of data that can be made anew.

        Raises:
            BortError: naming the first id that means two things, or if the model's vocabulary is damaged.
        """
        theirs = None if self.folder is None else read_tokens(self.folder)
        difference = None if theirs is None else first_difference(theirs, vocab)
        if difference is not None:
            remedy = remedy or f"make the data with its own, or take another {role}"
            raise BortError(f"the {role} {self.name} has another vocabulary: {difference}; {remedy}")


def find_model(name: str | os.PathLike[str] | BortConfig, parameters: str | os.PathLike[str] | None = None) -> ModelSource:
    """The model that a user names: a folder, with its own parameters unless others are given, or an architecture.

    Args:
        name: a model folder, a folder that Transformers wrote for a BERT or RoBERTa, an architecture, or a ``config.json``.
        parameters: file that overrides the folder's, with published names, GluonNLP's BERT's, or Transformers'.

    Raises:
        BortError: if the name is none of these, or the folder is incomplete, or its parameters are a pickle.
    """
    if parameters is not None and Path(parameters).is_dir():
        raise BortError(f"{parameters} is a folder, so it says itself what model it is; give it as the model, without separate parameters")
    file = None if parameters is None else Path(parameters)
    if isinstance(name, BortConfig):
        return ModelSource("given by a configuration", name, file)
    folder = Path(name)
    if not folder.is_dir():
        return ModelSource(str(name), resolve_config(str(name)), file)
    file = file or _own_or_foreign(folder)
    return ModelSource(str(name), BortConfig.from_json(folder / CONFIG_FILE), file, folder)


def _own_or_foreign(folder: Path) -> Path:
    own = folder / PARAMETERS_FILE
    found = own if own.is_file() else find_hugging_face(folder)
    if found is None:
        raise BortError(f"{folder}: no {PARAMETERS_FILE} of ours, no {WHOLE_FILE} and no {INDEX_FILE}; give a model folder that is whole")
    return found
