"""Metrics of the tasks, and the one number a task is judged by.

Notable: nothing here is ever NaN. Where a metric has no value the result is 0, the value of a model that knows nothing: no rows at all,
a correlation with a constant, F1 of a class that is neither present nor predicted, predictions that are not finite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

import numpy as np
import scipy.stats
import sklearn.metrics

from bort.tasks.decisions import majority_logits
from bort.tasks.group_metrics import accuracy_high, accuracy_middle, answer_exact_match, gender_parity, question_exact_match, token_f1
from bort.tasks.task import Example, Task


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


Metric = Callable[[Sequence[Example], np.ndarray], float]
"""Takes labelled examples and their predictions, (N,) with N at least 1."""


def _of_rows(metric: Callable[[np.ndarray, np.ndarray], float]) -> Metric:
    """A metric that needs only the labels of the rows."""
    return lambda examples, predictions: metric(predictions, np.array([example.label for example in examples]))


METRICS: dict[str, Metric] = {
    "accuracy": _of_rows(accuracy),
    "f1": _of_rows(f1),
    "macro_f1": _of_rows(macro_f1),
    "matthews": _of_rows(matthews),
    "pearson": _of_rows(pearson),
    "spearman": _of_rows(spearman),
    # MultiRC's F1 over all answers of all questions is that of class 1; the "a" sets it apart from the mean over questions.
    "f1a": _of_rows(f1),
    "question_exact_match": question_exact_match,
    "token_f1": token_f1,
    "answer_exact_match": answer_exact_match,
    "gender_parity": gender_parity,
    "accuracy_high": accuracy_high,
    "accuracy_middle": accuracy_middle,
}
"""Every metric by the name that a task's entry gives it."""


def score(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> dict[str, float]:
    """Every metric of ``task`` over one segment.

    Args:
        task: names the metrics.
        examples: the segment's rows, N of them, each with its label.
        predictions: (N,) class numbers, or scores where the task is a regression.

    Raises:
        ValueError: if examples and predictions differ in number.
    """
    predictions = np.asarray(predictions)
    if predictions.shape != (len(examples),):
        raise ValueError(f"{task.name}: predictions of shape {predictions.shape} for {len(examples)} rows")
    if not len(examples):
        return dict.fromkeys(task.metrics, 0.0)
    return {name: METRICS[name](examples, predictions) for name in task.metrics}


def task_score(task: Task, scores: Mapping[str, Mapping[str, float]]) -> float:
    """The number a task is judged by: the mean over its metrics, then over its segments (MNLI has two).

    A ``breakdown`` does not count: RACE's score is its accuracy, in which the levels weigh as much as they have questions.

    Args:
        task: says which metrics are a breakdown.
        scores: by segment name, what ``score`` gives.
    """
    return fmean(fmean(value for name, value in metrics.items() if name not in task.breakdown) for metrics in scores.values())


def majority_score(task: Task, examples: Sequence[Example]) -> dict[str, float]:
    """What ``score`` gives a model that answers every row with the majority class (or mean score) of these same rows.

    It is the floor of a table of results.

    Args:
        task: names the metrics, and decides.
        examples: the segment's rows, each with its label.
    """
    labels = np.array([example.label for example in examples], dtype=np.float64)
    if not len(labels):
        return score(task, examples, labels)
    return score(task, examples, task.decide(examples, np.tile(majority_logits(task, labels), (len(labels), 1))))
