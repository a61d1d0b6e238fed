"""The best model of a run so far by one measure of its evaluations, as the model folder ``best/`` with its ``evaluation.json``.

Notable: a run that resumes from a checkpoint must know the best model of that moment, not a later one, or it would end with another model
than a run that was never interrupted. So when a better model comes, the one that the newest checkpoint would need steps aside until the
next checkpoint is written. Each folder is whole or absent, and a kill may come between any two of the renames below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bort.config import BortConfig
from bort.errors import BortError
from bort.model_directory import CARD_FILE, TrainedTask, write_model_directory
from bort.tokenizer import Tokenizer
from bort.training.checkpoint import explained_writing, remove_whole

BEST_FOLDER, EVALUATION_FILE = "best", "evaluation.json"
_ASIDE_FOLDER = ".best_of_checkpoint"


@dataclass(frozen=True)
class TrainedModel:
    """A model with all that belongs into its folder.

    Attributes:
        config: sizes.
        parameters: under published names.
        tokenizer: whose ids it knows.
        card: Markdown that says what it is.
        task: what a classifier was fine-tuned for.
    """

    config: BortConfig
    parameters: Mapping[str, np.ndarray]
    tokenizer: Tokenizer
    card: str
    task: TrainedTask | None = None

    def write(self, path: Path, texts: Mapping[str, str] | None = None) -> None:
        """Write a model folder with the card and further ``texts`` by file name, whole or not at all."""
        files = {CARD_FILE: self.card, **(texts or {})}
        write_model_directory(path, self.config, self.parameters, self.tokenizer, self.task, files)


class BestModel:
    """What ``best/`` of one run holds.

    Before one is made, checkpoints beyond ``first_step`` must be gone: a run that resumed from them would miss what is forgotten here.

    Args:
        folder: of the run.
        first_step: updates done; a best model of a later step belongs to an abandoned run and is forgotten.
        measure: name of the quantity in an evaluation that decides.
        higher_is_better: whether a high value is the good one.

    Raises:
        BortError: if ``best/`` is there but is not what this class writes.
    """

    def __init__(self, folder: Path, first_step: int, measure: str, higher_is_better: bool = False) -> None:
        self._best, self._aside, self._next = folder / BEST_FOLDER, folder / _ASIDE_FOLDER, folder / ".best.next.partial"
        self._checkpoint, self._measure, self._sign = first_step, measure, 1.0 if higher_is_better else -1.0
        for model in (self._best, self._aside):
            if model.exists() and read_evaluation(model, measure)["step"] > first_step:
                remove_whole(model)
        if self._aside.exists():
            if self._best.exists():
                remove_whole(self._aside)
            else:
                self._aside.rename(self._best)
        self._step, self._value = 0, -self._sign * math.inf
        if self._best.exists():
            evaluation = read_evaluation(self._best, measure)
            self._step, self._value = evaluation["step"], evaluation[measure]

    @property
    def step(self) -> int:
        """Updates after which the best model was met; 0 before there is one."""
        return self._step

    def is_beaten_by(self, evaluation: Mapping[str, Any]) -> bool:
        """Whether ``evaluation`` has a better value; one that is not finite is never better, and of two alike the first stays."""
        value = evaluation[self._measure]
        return math.isfinite(value) and self._sign * value > self._sign * self._value

    def replace(self, step: int, evaluation: Mapping[str, Any], model: TrainedModel) -> None:
        """Make the model after ``step`` updates the best one.

        Raises:
            BortError: if it cannot be written; the one before stays.
        """
        with explained_writing(self._best.parent, self._best):
            model.write(self._next, {EVALUATION_FILE: json.dumps({"step": step} | dict(evaluation), indent=2) + "\n"})
        if self._best.exists():
            if self._step <= self._checkpoint:
                self._best.rename(self._aside)
            else:
                remove_whole(self._best)
        self._next.rename(self._best)
        self._step, self._value = step, evaluation[self._measure]

    def keep_from(self, checkpoint: int) -> None:
        """Note that a checkpoint of step ``checkpoint`` is written, so that no run will resume from an earlier one."""
        self._checkpoint = checkpoint
        if self._aside.exists():
            remove_whole(self._aside)


def known_best(folder: Path, first_step: int, measure: str) -> int:
    """Updates after which the best model was met, as known to a run that resumes from ``first_step``; 0 without one. Changes nothing.

    Raises:
        BortError: if ``best/`` is there but is not what :class:`BestModel` writes.
    """
    steps = [read_evaluation(model, measure)["step"] for model in (folder / BEST_FOLDER, folder / _ASIDE_FOLDER) if model.exists()]
    return max((step for step in steps if step <= first_step), default=0)


def read_evaluation(folder: Path, measure: str) -> dict[str, Any]:
    """What the run said of its best model: at least ``step`` and ``measure``.

    Raises:
        BortError: if the folder holds no such thing.
    """
    path = folder / EVALUATION_FILE
    try:
        evaluation = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        evaluation = None
    if isinstance(evaluation, dict) and type(evaluation.get("step")) is int and type(evaluation.get(measure)) is float:
        return evaluation
    raise BortError(f"{path}: not the evaluation of a run's best model; move the folder away, or give another --output_dir")
