"""A prediction file without a model: what always answering the commonest class of the training file would hand in."""

from __future__ import annotations

import numpy as np

from bort.tasks.leaderboard import record_answers
from bort.tasks.registry import get_task
from bort.tasks.task import Example, Task


def majority_file(task: Task, examples: list[Example]) -> tuple[bytes, str]:
    """A prediction file of one answer, and which answer that is.

    Args:
        task: whose file it is; a diagnostic set takes the commonest class of the task whose model labels it.
        examples: rows of its test segment.

    Raises:
        BortError: if the training file cannot be read; says how to get it.
    """
    logits: np.ndarray
    if task.prediction_format is record_answers:
        # Training rows are balanced, and no class is an answer: an answer is an entity.
        logits, answer = np.zeros(task.num_classes), "the first entity of each query in the order of their characters"
    else:
        source = task if task.predicted_by is None else get_task(task.predicted_by, task.data_root)
        labels = np.array([row.label for row in source.examples("train")])
        rows = f"the {len(labels)} training rows of {source.name}"
        if source.is_regression:
            logits = np.array([labels.mean()])
            answer = f"{logits[0]:.3f}, the mean of {rows}"
        else:
            logits = np.bincount(labels.astype(np.int64), minlength=source.num_classes)
            answer = f"{task.leaderboard_labels[logits.argmax()]}, the label of {logits.max()} of {rows}"
    predictions = task.decide(examples, np.tile(logits, (len(examples), 1)))
    return task.prediction_format(task, examples, predictions).encode(), answer
