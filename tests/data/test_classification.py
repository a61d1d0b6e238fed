"""The published import path."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bort.errors import BortError
from bort.tasks import TASKS
from data import classification
from data.classification import AXTask, BoolQTask, CBTask, MNLITask, RTETask, SSTTask, STSBTask, SuperGLUERTETask, WiCTask


@pytest.fixture
def mxnet_home(tmp_path, monkeypatch, repository):
    (tmp_path / "datasets").symlink_to(repository / "test_data", target_is_directory=True)
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    return tmp_path


def test_the_published_usage_prints_rows_in_a_fresh_process(mxnet_home, repository):
    code = (
        "from data.classification import BoolQTask; task = BoolQTask(); import sys;"
        "task.dataset_train()[1]; task.dataset_val()[1]; task.dataset_test()[1];"
        "print(task.dataset_train()[1][0]); print('mxnet' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=repository, capture_output=True, text=True, check=True, timeout=60)
    row, framework = done.stdout.splitlines()
    assert row.startswith("['Village market -- ")
    assert row.endswith(", True]")
    assert framework == "False"


def test_segments_and_rows(mxnet_home):
    assert SSTTask().dataset_train()[0] == "train"
    name, rows = BoolQTask().dataset_dev()
    assert (name, len(rows)) == ("dev", 8)
    assert BoolQTask().dataset_val() == BoolQTask().dataset_dev()
    assert all(len(row) == 3 for row in RTETask().dataset_train()[1])
    assert {row[2] for row in RTETask().dataset_train()[1]} == {"not_entailment", "entailment"}
    assert all(len(row) == 2 for row in RTETask().dataset_test()[1])
    assert all(isinstance(row[2], float) for row in STSBTask().dataset_dev()[1])


def test_mnli_has_two_development_and_two_test_sets(mxnet_home):
    assert [name for name, _ in MNLITask().dataset_dev()] == ["dev_matched", "dev_mismatched"]
    assert [name for name, _ in MNLITask().dataset_test()] == ["test_matched", "test_mismatched"]


def test_a_diagnostic_set_has_no_training_rows(mxnet_home):
    assert len(AXTask().dataset_test()[1]) == 8
    with pytest.raises(BortError, match='AX has no segment "train"; it has test'):
        AXTask().dataset_train()


def test_attributes():
    assert BoolQTask().class_labels == ["false", "true"]
    assert SuperGLUERTETask().class_labels == ["not_entailment", "entailment"]
    assert (STSBTask().class_labels, STSBTask().num_classes) == (None, 1)
    assert CBTask().metrics == ["accuracy", "macro_f1"]
    assert (CBTask().num_classes, CBTask().is_pair, SSTTask().is_pair) == (3, True, False)


def test_every_task_has_its_class():
    doors = {door.name for door in vars(classification).values() if isinstance(door, type) and hasattr(door, "name")}
    assert doors == {task.name for task in TASKS}


@pytest.mark.parametrize(("door", "name"), [(BoolQTask, "BoolQ"), (CBTask, "CB"), (SuperGLUERTETask, "RTE"), (WiCTask, "WiC")])
def test_rows_are_the_published_fields(door, name, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    golden = json.loads((shared / "golden/published_task_inputs.json").read_text(encoding="utf-8"))
    folder = tmp_path / "datasets" / f"superglue_{name.lower()}"
    folder.mkdir(parents=True)
    for segment, file in (("train", "train"), ("dev", "val"), ("test", "test")):
        (folder / f"{file}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in golden[f"{name}/{segment}"]["raw"]))
    task = door()
    for segment, (published_name, rows) in (("train", task.dataset_train()), ("dev", task.dataset_dev()), ("test", task.dataset_test())):
        assert published_name == segment
        assert rows == [item["fields"] for item in golden[f"{name}/{segment}"]["examples"]]
