"""Turns logits into predictions: the highest logit for most tasks, one answer per query for ReCoRD."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bort.tasks.task import Example, Task


def most_probable(examples: Sequence[Example], logits: np.ndarray) -> np.ndarray:
    """The class with the highest logit, (N,); the first if several have it.

    Args:
        examples: not used: each row is answered on its own.
        logits: (N, C).
    """
    classes: np.ndarray = logits.argmax(axis=1)
    return classes


def only_output(examples: Sequence[Example], logits: np.ndarray) -> np.ndarray:
    """The score of a regression, (N,).

    Args:
        examples: not used: each row is answered on its own.
        logits: (N, 1).
    """
    return logits[:, 0]


def best_candidate(examples: Sequence[Example], logits: np.ndarray) -> np.ndarray:
    """ReCoRD's answers, (N,): 1 for each query's candidate with the highest probability of label 1, the first if several have it; else 0.

    NaN counts as the lowest probability, so that every query has an answer.

    Args:
        examples: candidates; those of one query share an ``id``.
        logits: (N, 2).
    """
    # The probability grows with the difference of the two logits, which, unlike it, does not round to 1.
    margins = logits[:, 1].astype(np.float64) - logits[:, 0]
    margins = np.where(np.isnan(margins), -np.inf, margins)
    best: dict[object, int] = {}
    for row, example in enumerate(examples):
        if margins[row] > margins[best.setdefault(example.id, row)]:
            best[example.id] = row
    answers = np.zeros(len(examples), np.int64)
    answers[list(best.values())] = 1
    return answers


def majority_logits(task: Task, labels: np.ndarray) -> np.ndarray:
    """Logits (C,) that answer every row alike: the number of rows of each class or, in a regression, the mean score.

    Args:
        task: says how many classes there are.
        labels: (N,) class numbers or scores, N at least 1.
    """
    return np.array([labels.mean()]) if task.is_regression else np.bincount(labels.astype(np.int64), minlength=task.num_classes)
