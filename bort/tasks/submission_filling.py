"""A prediction file without a model: every row answered with the majority class of the training file."""

from __future__ import annotations

import numpy as np

from bort.tasks.decisions import best_candidate, majority_logits
from bort.tasks.registry import get_task
from bort.tasks.task import Example, Task


def majority_file(task: Task, examples: list[Example]) -> tuple[bytes, str]:
    """The contents of a prediction file that answers every row alike, and what that answer is, in words.

    Args:
        task: whose file it is; a diagnostic set takes the majority class of the task whose model labels it.
        examples: rows of its test segment.

    Raises:
        BortError: if the training file cannot be read; says how to get it.
    """
    if task.decide is best_candidate:
        # It picks an entity and not a class; of equal logits it takes the first.
        logits, answer = np.zeros(task.num_classes), "the first entity of each query in the order of their characters"
    else:
        source = task if task.predicted_by is None else get_task(task.predicted_by, task.data_root)
        labels = np.array([row.label for row in source.examples("train")])
        logits = majority_logits(source, labels)
        rows = f"the {len(labels)} training rows of {source.name}"
        if source.is_regression:
            answer = f"{logits[0]:.3f}, the mean of {rows}"
        else:
            answer = f"{task.leaderboard_labels[logits.argmax()]}, the label of {logits.max()} of {rows}"
    predictions = task.decide(examples, np.tile(logits, (len(examples), 1)))
    return task.prediction_format(task, examples, predictions).encode(), answer
