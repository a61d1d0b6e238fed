"""What an INT8 model answers, next to the float32 model it came from: its score on a task, and how often both decide alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError
from bort.export.exported_model import ExportedModel, ExportedPredictor
from bort.export.int8_rows import Inputs
from bort.model_directory import TrainedTask
from bort.tasks import Example, Task, get_task
from bort.tasks.metrics import pearson, score, task_score
from bort.tasks.registry import can_label
from bort.training.prediction import predict_task, trained_task

_BATCH_SIZE = 32


@dataclass(frozen=True)
class Check:
    """Labelled rows that a classifier is judged by.

    Attributes:
        task: whose they are.
        trained: what the classifier was fine-tuned for.
        examples: dev rows by segment.
    """

    task: Task
    trained: TrainedTask
    examples: Mapping[str, list[Example]]

    @classmethod
    def read(cls, model: Path | str, trained: TrainedTask, name: str, data_root: Path | str | None) -> Check:
        """The dev rows of the task called ``name``.

        Args:
            model: what the user called the classifier, for messages.

        Raises:
            BortError: if there is no such task, the classifier cannot label it, it has no dev rows, or their files are missing or damaged.
        """
        own, task = trained_task(model, trained, data_root), get_task(name, data_root)
        if not can_label(own, task):
            raise BortError(f"{model} was fine-tuned on {own.name}; it cannot label {task.name}; check it on {own.name}")
        segments = task.segment_names("dev")
        if not segments:
            raise BortError(f"{task.name} has no dev rows to check on; it has {', '.join(segment.name for segment in task.segments)}")
        return cls(task, trained, {segment: task.examples(segment) for segment in segments})

    def judge(self, model: ExportedModel) -> tuple[float, NDArray[np.generic]]:
        """The task's own score in points, 100 times the mean over its metrics and segments, and what was decided of every row, (N,).

        Raises:
            BortError: if the outputs are not finite.
        """
        decided = predict_task(ExportedPredictor(model), model.tokenizer, self.trained, self.task, self.examples, _BATCH_SIZE)
        scores = {segment: score(self.task, rows, decided[segment]) for segment, rows in self.examples.items()}
        return 100.0 * task_score(self.task, scores), np.concatenate([decided[segment] for segment in self.examples])


def decide(model: ExportedModel, rows: Sequence[Inputs]) -> NDArray[np.generic]:
    """What a model says of rows without labels: class numbers, scores of a regression, tokens for masks, or all hidden states in a line."""
    outputs = [model.session.run(row) for row in rows]
    if model.folder.kind == "encoder":
        return np.concatenate([each["last_hidden_state"].ravel() for each in outputs])
    logits = np.concatenate([each["logits"].reshape(-1, each["logits"].shape[-1]) for each in outputs])
    is_regression = model.task is not None and model.task.is_regression
    decided: NDArray[np.generic] = logits[:, 0] if is_regression else logits.argmax(axis=1)
    return decided


def agreement(decided: NDArray[np.generic], expected: NDArray[np.generic]) -> float:
    """Share of equal decisions, from 0 to 1; of numbers that are not class numbers, their linear correlation."""
    if np.issubdtype(expected.dtype, np.integer):
        return float((decided == expected).mean())
    return pearson(decided, expected)
