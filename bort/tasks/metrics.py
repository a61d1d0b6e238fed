"""Metrics of the tasks, and the one number a task is judged by.

Notable: nothing here is ever NaN. Where a metric has no value the result is 0, the value of a model that knows nothing: no rows at all,
a correlation with a constant, F1 of a class that is neither present nor predicted, predictions that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean

import numpy as np
import scipy.stats
import sklearn.metrics

from bort.tasks.task import Task


def accuracy(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Share of rows whose class is right."""
    return float(sklearn.metrics.accuracy_score(labels, predictions))


def f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Harmonic mean of precision and recall of class 1."""
    return float(sklearn.metrics.f1_score(labels, predictions, labels=[1], average="micro", zero_division=0))


def macro_f1(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Mean F1 over the classes that occur in labels or predictions."""
    return float(sklearn.metrics.f1_score(labels, predictions, average="macro", zero_division=0))


def matthews(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Matthews correlation coefficient, for any number of classes; in [-1, 1]."""
    if _constant(predictions) or _constant(labels):
        return 0.0
    return float(sklearn.metrics.matthews_corrcoef(labels, predictions))


def pearson(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Linear correlation; in [-1, 1]."""
    return _correlation(scipy.stats.pearsonr, predictions, labels)


def spearman(predictions: np.ndarray, labels: np.ndarray) -> float:
    """Correlation of ranks, ties sharing their mean rank; in [-1, 1]."""
    return _correlation(scipy.stats.spearmanr, predictions, labels)


def _correlation(of: Callable, predictions: np.ndarray, labels: np.ndarray) -> float:
    x, y = np.asarray(predictions, np.float64), np.asarray(labels, np.float64)
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or _constant(x) or _constant(y):
        return 0.0
    value = float(of(x, y).statistic)
    return value if math.isfinite(value) else 0.0


def _constant(values: np.ndarray) -> bool:
    return len(np.unique(values)) < 2


METRICS: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    metric.__name__: metric for metric in (accuracy, f1, macro_f1, matthews, pearson, spearman)
}
"""Every metric by the name that a task's entry gives it; each takes predictions and labels, (N,) with N at least 1."""


def score(task: Task, predictions: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Every metric of ``task`` over one segment.

    Args:
        task: names the metrics.
        predictions: (N,) class numbers, or scores where the task is a regression.
        labels: (N,) the same for the truth.

    Raises:
        ValueError: if the two differ in shape.
    """
    predictions, labels = np.asarray(predictions), np.asarray(labels)
    if predictions.shape != labels.shape:
        raise ValueError(f"{task.name}: predictions of shape {predictions.shape} for labels of shape {labels.shape}")
    if not len(labels):
        return dict.fromkeys(task.metrics, 0.0)
    return {name: METRICS[name](predictions, labels) for name in task.metrics}


def task_score(scores: Mapping[str, Mapping[str, float]]) -> float:
    """The number a task is judged by: the mean over its metrics, then over its segments (MNLI has two).

    Args:
        scores: by segment name, what ``score`` gives.
    """
    return fmean(fmean(metrics.values()) for metrics in scores.values())


def majority_score(task: Task, labels: np.ndarray) -> dict[str, float]:
    """What ``score`` gives a model that answers every row with the commonest class, or the mean score; the floor of a table of results.

    Args:
        task: names the metrics.
        labels: (N,) class numbers or scores of the segment.
    """
    labels = np.asarray(labels)
    if not len(labels):
        return score(task, labels, labels)
    answer = labels.mean() if task.is_regression else np.bincount(labels.astype(np.int64)).argmax()
    return score(task, np.full(len(labels), answer), labels)
