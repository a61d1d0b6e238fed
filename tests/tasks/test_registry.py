"""Names of tasks."""

from __future__ import annotations

import pytest

from bort.errors import BortError
from bort.tasks.metrics import METRICS
from bort.tasks.registry import TASKS, can_label, diagnostic_tasks, get_task


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("RTE", "RTE"),
        ("rte", "RTE"),
        ("superglue_rte", "SuperGLUE-RTE"),
        ("SuperGLUE-RTE", "SuperGLUE-RTE"),
        ("glue_rte", "RTE"),
        ("SST", "SST-2"),
        ("sst2", "SST-2"),
        ("STS", "STS-B"),
        ("stsb", "STS-B"),
        ("glue_stsb", "STS-B"),
        ("boolq", "BoolQ"),
        ("superglue_cb", "CB"),
        ("SuperGLUERTE", "SuperGLUE-RTE"),
        ("SuperGLUE-WSC", "WSC"),
        ("superglue_multirc", "MultiRC"),
        ("record", "ReCoRD"),
        ("AXb", "AX-b"),
        ("superglue_ax_g", "AX-g"),
        ("ax", "AX"),
        ("race", "RACE"),
        ("RACEH", "RACE-H"),
        ("race_middle", "RACE-M"),
    ],
)
def test_names_and_aliases(name, found):
    assert get_task(name).name == found


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_found_by_its_name_and_folders_and_names_known_metrics(task):
    # The folder of RACE is all its levels'.
    for name in (task.name, task.name.lower(), *(folder for folder in task.folders if folder != "race")):
        assert get_task(name) == task
    assert set(task.metrics) <= set(METRICS)


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(BortError) as caught:
        get_task("SNLI")
    assert str(caught.value).startswith('no task "SNLI"; there are CoLA, SST-2, ')
    assert "SuperGLUE-RTE" in str(caught.value)


def test_a_diagnostic_set_follows_its_task_and_its_data_root(tmp_path):
    (diagnostic,) = diagnostic_tasks(get_task("MNLI", tmp_path))
    assert (diagnostic.name, diagnostic.data_root, diagnostic.labels) == ("AX", tmp_path, get_task("MNLI").labels)
    assert [task.name for task in diagnostic_tasks(get_task("SuperGLUE-RTE", tmp_path))] == ["AX-b", "AX-g"]
    # They are submitted with SuperGLUE, although a model of GLUE's RTE can label them.
    assert diagnostic_tasks(get_task("RTE")) == []


def test_there_are_the_tasks_of_three_benchmarks():
    assert len(TASKS) == len({task.name for task in TASKS}) == 23
    assert [sum(task.benchmark == name for task in TASKS) for name in ("GLUE", "SuperGLUE", "RACE")] == [10, 10, 3]
    files = [segment.leaderboard_file for task in TASKS for segment in task.segments if segment.leaderboard_file]
    assert len(set(files)) == len(files) == 24
    assert all((task.predicted_by is None) == bool(task.segment_names("train")) for task in TASKS)


OTHERS = {
    "MNLI": {"AX"},
    "RTE": {"SuperGLUE-RTE", "AX-b", "AX-g"},
    "SuperGLUE-RTE": {"RTE", "AX-b", "AX-g"},
    "RACE": {"RACE-H", "RACE-M"},
    "RACE-H": {"RACE", "RACE-M"},
    "RACE-M": {"RACE", "RACE-H"},
}
"""What a model of each task can label beside its own task."""


@pytest.mark.parametrize("trained", TASKS, ids=lambda task: task.name)
def test_who_can_label_what(trained):
    able = [task for task in TASKS if can_label(trained, task)]
    assert {task.name for task in able} == {trained.name} | OTHERS.get(trained.name, set())
    assert {(task.labels, task.is_pair) for task in able} == {(trained.labels, trained.is_pair)}
