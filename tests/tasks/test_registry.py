"""Names of tasks."""

from __future__ import annotations

import pytest

from bort.errors import BortError
from bort.tasks.metrics import METRICS
from bort.tasks.registry import TASKS, diagnostic_tasks, get_task


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
    ],
)
def test_names_and_aliases(name, found):
    assert get_task(name).name == found


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_a_task_is_found_by_its_name_and_folders_and_names_known_metrics(task):
    for name in (task.name, task.name.lower(), *task.folders):
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
    assert diagnostic_tasks(get_task("RTE")) == []
