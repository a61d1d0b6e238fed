"""A model as a folder: ``config.json``, ``bort.params``, its vocabulary, and what else belongs to it.

``config.json`` holds the fields of a Hugging Face ``BertConfig``; a fine-tuned classifier adds ``task`` (name, labels, longest input), so
that predicting needs nothing but the folder. The folder appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bort.config import BortConfig
from bort.errors import BortError
from bort.files import whole_directory
from bort.parameters import write_parameters
from bort.tokenizer import Tokenizer

CONFIG_FILE, PARAMETERS_FILE = "config.json", "bort.params"


@dataclass(frozen=True)
class ModelDirectory:
    """What a model folder says of itself.

    Attributes:
        path: the folder.
        config: sizes.
        task: the fields stored by fine-tuning; empty for a pre-trained model.
    """

    path: Path
    config: BortConfig
    task: Mapping[str, Any]

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
    task = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8")).get("task", {})
    if not isinstance(task, dict):
        raise BortError(f"{path / CONFIG_FILE}: task must be a JSON object")
    return ModelDirectory(path, config, task)


def write_model_directory(
    path: Path | str,
    config: BortConfig,
    parameters: Mapping[str, np.ndarray],
    tokenizer: Tokenizer,
    task: Mapping[str, Any] | None = None,
    write_more: Callable[[Path], None] | None = None,
) -> None:
    """Write a model folder, whole or not at all.

    Args:
        parameters: under published names.
        task: fields of a fine-tuned classifier.
        write_more: called with the folder while it is still being made, to add files of its own.
    """
    fields = config.to_dict() | ({"task": dict(task)} if task else {})
    with whole_directory(path) as partial:
        (partial / CONFIG_FILE).write_text(json.dumps(fields, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        write_parameters(partial / PARAMETERS_FILE, parameters)
        tokenizer.save(partial)
        if write_more is not None:
            write_more(partial)
