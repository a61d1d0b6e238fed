"""Metrics against hand computation and on input where they have no value."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.tasks.benchmark_scores import benchmark_score
from bort.tasks.metrics import METRICS, accuracy, f1, macro_f1, majority_score, matthews, pearson, score, spearman, task_score
from bort.tasks.registry import get_task
from bort.tasks.task import Example

# Predictions and truth with 3 true positives, 1 false positive, 2 false negatives, 4 true negatives.
PREDICTED = np.array([1, 1, 1, 1, 0, 0, 0, 0, 0, 0])
TRUTH = np.array([1, 1, 1, 0, 1, 1, 0, 0, 0, 0])


def rows(labels):
    """Examples of which only the label matters."""
    return [Example(number, ("text",), label, number + 1) for number, label in enumerate(labels)]


def test_classification_metrics_by_hand():
    assert accuracy(PREDICTED, TRUTH) == pytest.approx(7 / 10)
    assert f1(PREDICTED, TRUTH) == pytest.approx(2 * 3 / (2 * 3 + 1 + 2))
    assert macro_f1(PREDICTED, TRUTH) == pytest.approx((6 / 9 + 8 / 11) / 2)
    assert matthews(PREDICTED, TRUTH) == pytest.approx((3 * 4 - 1 * 2) / math.sqrt(4 * 5 * 5 * 6))


def test_macro_f1_weighs_classes_equally():
    predicted, truth = np.array([0, 0, 0, 1, 2]), np.array([0, 0, 0, 2, 2])
    assert macro_f1(predicted, truth) == pytest.approx((1 + 0 + 2 / 3) / 3)


def test_correlations_by_hand():
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([1.0, 3.0, 2.0, 4.0])
    assert pearson(x, y) == pytest.approx(0.8)
    assert pearson(3 * x - 7, y) == pytest.approx(0.8)
    assert spearman(np.exp(x), y) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1.0, 2.0]), np.array([1.0, 2.0, 3.0])) == pytest.approx(math.sqrt(3) / 2)


@pytest.mark.parametrize("name", ["RTE", "MRPC", "CoLA", "CB", "STS-B", "AX"])
@pytest.mark.parametrize(
    ("predictions", "labels"),
    [
        ([], []),
        ([0], [0]),
        ([0, 0, 0], [0, 0, 0]),
        ([1, 1, 1], [1, 1, 1]),
        ([0, 0, 0], [1, 1, 1]),
        ([1, 1, 1], [0, 1, 0]),
        ([0, 1, 0], [1, 1, 1]),
    ],
)
def test_degenerate_input_has_a_defined_score_and_no_warning(name, predictions, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        scores = score(get_task(name), rows(labels), np.array(predictions, np.int64))
    assert tuple(scores) == get_task(name).metrics
    assert all(math.isfinite(value) for value in scores.values())
    if not labels or "matthews" in scores or "pearson" in scores:
        assert set(scores.values()) == {0.0}


@pytest.mark.parametrize("bad", [[np.nan, 1.0, 2.0], [np.inf, 1.0, 2.0], [1.0, 1.0, 1.0]])
def test_predictions_of_a_diverged_model_correlate_with_nothing(bad):
    assert score(get_task("STS-B"), rows([1.0, 2.0, 3.0]), np.array(bad, np.float32)) == {"pearson": 0.0, "spearman": 0.0}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=8))
def test_no_metric_is_ever_nan_or_outside_its_range(pairs):
    predictions, labels = np.array(pairs, np.int64).reshape(-1, 2).T
    if len(pairs):
        for name in ("accuracy", "f1", "macro_f1", "matthews", "pearson", "spearman"):
            assert -1.0 - 1e-9 <= METRICS[name](rows(labels.tolist()), predictions) <= 1.0 + 1e-9


@pytest.mark.parametrize("name", ["CB", "MRPC", "CoLA"])
def test_class_numbers_may_come_as_float32(name):
    examples = rows(TRUTH.tolist())
    assert score(get_task(name), examples, PREDICTED.astype(np.float32)) == score(get_task(name), examples, PREDICTED)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match="shape"):
        score(get_task("RTE"), rows([0, 0, 0]), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="shape"):
        score(get_task("RTE"), rows([0, 0, 0]), np.zeros(2))


def test_the_score_of_a_task_is_the_mean_over_metrics_and_segments():
    assert task_score(get_task("MRPC"), {"dev": {"f1": 0.9, "accuracy": 0.8}}) == pytest.approx(0.85)
    assert task_score(get_task("MNLI"), {"dev_matched": {"accuracy": 0.8}, "dev_mismatched": {"accuracy": 0.7}}) == pytest.approx(0.75)


def test_the_score_of_race_is_its_accuracy_and_not_the_mean_over_levels():
    scores = {"dev": {"accuracy": 0.6, "accuracy_high": 0.5, "accuracy_middle": 0.9}}
    assert task_score(get_task("RACE"), scores) == 0.6 == benchmark_score("RACE", {"RACE": scores})
    assert set(scores["dev"]) == set(get_task("RACE").metrics)
    assert task_score(get_task("RACE-H"), {"dev": {"accuracy": 0.7}}) == 0.7


def test_majority_score_is_the_share_of_the_majority_class():
    assert majority_score(get_task("RTE"), rows([0, 1, 1, 0, 1])) == {"accuracy": 0.6}
    assert majority_score(get_task("MRPC"), rows([1, 1, 0])) == {"f1": pytest.approx(0.8), "accuracy": pytest.approx(2 / 3)}
    assert majority_score(get_task("STS-B"), rows([1.0, 2.5])) == {"pearson": 0.0, "spearman": 0.0}
    assert majority_score(get_task("RTE"), []) == {"accuracy": 0.0}
