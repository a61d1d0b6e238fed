"""Logits to predictions: the commonest way, and those of tasks whose rows are answered together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from bort.tasks.task import Example


def most_probable(examples: Sequence[Example], logits: np.ndarray) -> np.ndarray:
    """The class with the highest logit, (N,); the first of several.

    Args:
        examples: not looked at: each row is answered for itself.
        logits: (N, C).
    """
    classes: np.ndarray = logits.argmax(axis=1)
    return classes


def only_output(examples: Sequence[Example], logits: np.ndarray) -> np.ndarray:
    """The score of a regression, (N,).

    Args:
        examples: not looked at: each row is answered for itself.
        logits: (N, 1).
    """
    return logits[:, 0]


def best_candidate(examples: Sequence[Example], logits: np.ndarray) -> np.ndarray:
    """ReCoRD's answers, (N,): 1 for the candidate of each query with the highest probability of label 1, the first of several, and else 0.

    A probability that is not a number is the lowest, so that every query has its answer.

    Args:
        examples: candidates; those of one query share their ``id``.
        logits: (N, 2).
    """
    # The softmax of two logits grows with their difference, which does not round to 1 as the probability does.
    margins = np.nan_to_num(logits[:, 1].astype(np.float64) - logits[:, 0], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    best: dict[object, int] = {}
    for row, example in enumerate(examples):
        if margins[row] > margins[best.setdefault(example.id, row)]:
            best[example.id] = row
    answers = np.zeros(len(examples), np.int64)
    answers[list(best.values())] = 1
    return answers
