"""A benchmark's number: the published scores give the published averages, and a part of them gives none."""

from __future__ import annotations

import pytest

from bort.errors import BortError
from bort.tasks.benchmark_scores import BENCHMARKS, benchmark_score, counted_tasks
from bort.tasks.registry import TASKS

# Test scores that the authors of Bort published (de Wynter and Perry 2020), in percent.
GLUE = {
    "CoLA": {"test": {"matthews": 63.9}},
    "SST-2": {"test": {"accuracy": 96.2}},
    "MRPC": {"test": {"f1": 94.1, "accuracy": 92.3}},
    "STS-B": {"test": {"pearson": 89.2, "spearman": 88.3}},
    "QQP": {"test": {"f1": 66.0, "accuracy": 85.9}},
    "MNLI": {"test_matched": {"accuracy": 88.1}, "test_mismatched": {"accuracy": 87.8}},
    "QNLI": {"test": {"accuracy": 92.3}},
    "RTE": {"test": {"accuracy": 82.7}},
    "WNLI": {"test": {"accuracy": 71.2}},
    "AX": {"test": {"matthews": 51.9}},
}
SUPERGLUE = {
    "BoolQ": {"test": {"accuracy": 83.7}},
    "CB": {"test": {"accuracy": 81.9, "macro_f1": 86.5}},
    "COPA": {"test": {"accuracy": 89.6}},
    "MultiRC": {"test": {"f1a": 83.7, "question_exact_match": 54.1}},
    "ReCoRD": {"test": {"token_f1": 49.8, "answer_exact_match": 49.0}},
    "SuperGLUE-RTE": {"test": {"accuracy": 81.2}},
    "WiC": {"test": {"accuracy": 70.1}},
    "WSC": {"test": {"accuracy": 65.8}},
    "AX-b": {"test": {"matthews": 48.0}},
    "AX-g": {"test": {"accuracy": 96.1, "gender_parity": 61.5}},
}


@pytest.mark.parametrize(("benchmark", "published", "average", "tasks"), [("GLUE", GLUE, 83.6, 9), ("SuperGLUE", SUPERGLUE, 74.1, 8)])
def test_published_scores_give_the_published_average(benchmark, published, average, tasks):
    assert len(counted_tasks(benchmark)) == tasks
    assert round(benchmark_score(benchmark, published, "test"), 1) == average


@pytest.mark.parametrize(("benchmark", "published"), [("GLUE", GLUE), ("SuperGLUE", SUPERGLUE)])
def test_every_task_weighs_the_same_and_a_diagnostic_set_nothing(benchmark, published):
    names = {task.name for task in counted_tasks(benchmark)}
    for name, sets in published.items():
        better = published | {
            name: {segment: {metric: value + 9 for metric, value in metrics.items()} for segment, metrics in sets.items()}
        }
        gain = benchmark_score(benchmark, better, "test") - benchmark_score(benchmark, published, "test")
        assert gain == pytest.approx(9 / len(names) if name in names else 0.0)


def test_the_sets_of_mnli_and_the_metrics_of_a_task_are_averaged_first():
    better = GLUE | {"MNLI": {"test_matched": {"accuracy": 97.1}, "test_mismatched": {"accuracy": 87.8}}}
    assert benchmark_score("GLUE", better, "test") - benchmark_score("GLUE", GLUE, "test") == pytest.approx(9 / 2 / 9)
    better = GLUE | {"QQP": {"test": {"f1": 75.0, "accuracy": 85.9}}}
    assert benchmark_score("GLUE", better, "test") - benchmark_score("GLUE", GLUE, "test") == pytest.approx(9 / 2 / 9)


def test_race_is_the_accuracy_over_both_levels():
    results = {"RACE": {"dev": {"accuracy": 0.6, "accuracy_high": 0.5, "accuracy_middle": 0.9}}, "RACE-H": {"dev": {"accuracy": 0.1}}}
    assert benchmark_score("RACE", results) == 0.6
    with pytest.raises(BortError, match=r"no average of RACE without RACE$"):
        benchmark_score("RACE", {"RACE-H": {"dev": {"accuracy": 0.5}}, "RACE-M": {"dev": {"accuracy": 0.6}}})


def test_what_is_missing_is_named_and_there_is_no_average():
    without = {name: sets for name, sets in GLUE.items() if name not in ("WNLI", "AX")}
    without |= {"MRPC": {"test": {"accuracy": 92.3}}, "MNLI": {"test_matched": {"accuracy": 88.1}}}
    with pytest.raises(BortError) as error:
        benchmark_score("GLUE", without, "test")
    assert str(error.value) == "no average of GLUE without MRPC test f1, MNLI test_mismatched accuracy, WNLI"
    with pytest.raises(BortError, match="without CoLA dev matthews, SST-2 dev accuracy"):
        benchmark_score("GLUE", GLUE, "dev")


def test_an_unknown_benchmark_is_an_error():
    with pytest.raises(BortError, match="there are GLUE, SuperGLUE, RACE"):
        benchmark_score("SQuAD", {})


def test_every_task_with_training_rows_belongs_to_a_benchmark_that_has_a_number():
    assert {task.benchmark for task in TASKS} <= set(BENCHMARKS)
    assert {task.name for benchmark in BENCHMARKS for task in counted_tasks(benchmark)} == {
        task.name for task in TASKS if task.segment_names("train") and task.name not in ("RACE-H", "RACE-M")
    }
