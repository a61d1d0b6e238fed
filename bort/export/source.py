"""The model that is exported, whatever it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from bort.config import BortConfig
from bort.model_directory import TrainedTask
from bort.tokenizer import Tokenizer


@dataclass(frozen=True)
class Source:
    """A model of ours in memory.

    Attributes:
        config: sizes.
        parameters: under published names; of an encoder, with its head or without, or of a classifier, ``bort.*`` and ``classifier.*``.
        tokenizer: the model's own.
        task: what a classifier was fine-tuned for; None for another model.
        labels: a classifier's classes as people write them.
    """

    config: BortConfig
    parameters: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    task: TrainedTask | None = None
    labels: tuple[str | int, ...] = ()
