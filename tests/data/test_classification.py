"""The published import path."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bort.errors import BortError
from bort.tasks import TASKS
from data import classification
from data.classification import (
    AXbTask,
    AXTask,
    BoolQTask,
    CBTask,
    COPATask,
    MNLITask,
    MultiRCTask,
    RACEHTask,
    RACEMTask,
    RACETask,
    ReCoRDTask,
    RTETask,
    SSTTask,
    STSBTask,
    SuperGLUERTETask,
    WiCTask,
    WSCTask,
)

DOORS = [
    "MRPCTask",
    "QQPTask",
    "QNLITask",
    "RTETask",
    "STSBTask",
    "CoLATask",
    "MNLITask",
    "WNLITask",
    "SSTTask",
    "AXTask",
    "BoolQTask",
    "CBTask",
    "COPATask",
    "MultiRCTask",
    "ReCoRDTask",
    "SuperGLUERTETask",
    "WiCTask",
    "WSCTask",
    "AXbTask",
    "AXgTask",
    "RACEHTask",
    "RACEMTask",
    "RACETask",
]


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
    assert len(AXbTask().dataset_test()[1]) == 16
    for missing in (AXbTask().dataset_train, AXbTask().dataset_dev, AXbTask().dataset_val):
        with pytest.raises(BortError, match=r'AX-b has no segment "(train|dev)"; it has test'):
            missing()


@pytest.mark.parametrize("name", DOORS)
def test_every_class_reads_its_segments(name, mxnet_home):
    door = getattr(classification, name)()
    roles = ("test",) if name.startswith("AX") else ("train", "dev", "test")
    for role in roles:
        datasets = getattr(door, f"dataset_{role}")()
        for segment, rows in datasets if isinstance(datasets, list) else [datasets]:
            assert segment.startswith(role)
            assert {len(row) for row in rows} == {1 + door.is_pair + (role != "test")}


def test_options_of_race_are_numbers_written_as_text(mxnet_home):
    assert {row[2] for row in RACETask().dataset_train()[1]} == {"0", "1", "2", "3"} == set(RACETask().class_labels)
    assert RACETask().dataset_dev()[1] == RACEHTask().dataset_dev()[1] + RACEMTask().dataset_dev()[1]
    assert {row[2] for row in MultiRCTask().dataset_train()[1]} == {0, 1}


def test_attributes():
    for task in (BoolQTask(), WSCTask(), WiCTask()):
        assert task.class_labels == ["false", "true"]
    assert COPATask().class_labels == ["0", "1"]
    assert SuperGLUERTETask().class_labels == ["not_entailment", "entailment"]
    assert (STSBTask().class_labels, STSBTask().num_classes) == (None, 1)
    assert CBTask().metrics == ["accuracy", "macro_f1"]
    assert (CBTask().num_classes, CBTask().is_pair, SSTTask().is_pair) == (3, True, False)


def test_every_task_has_its_class():
    doors = {door.name for door in vars(classification).values() if isinstance(door, type) and hasattr(door, "name")}
    assert doors == {task.name for task in TASKS}
    assert len(DOORS) == len(doors) == 23


GOLDEN = [
    *(
        (door, segment)
        for door in (BoolQTask, CBTask, COPATask, SuperGLUERTETask, WiCTask, WSCTask)
        for segment in ("train", "dev", "test")
    ),
    *((door, segment) for door in (RACEHTask, RACEMTask) for segment in ("train", "dev")),
    (ReCoRDTask, "train"),
]


@pytest.mark.parametrize(("door", "segment"), GOLDEN)
def test_rows_are_the_published_fields(door, segment, shared, tmp_path, monkeypatch):
    monkeypatch.setenv("MXNET_HOME", str(tmp_path))
    golden = json.loads((shared / "golden/published_task_inputs.json").read_text(encoding="utf-8"))
    name = door.name.removeprefix("SuperGLUE-")
    case = golden[f"{name}/{segment}"]
    if name.startswith("RACE"):
        level = {"RACE-H": "high", "RACE-M": "middle"}[name]
        folder = tmp_path / "datasets/race" / segment / level
        folder.mkdir(parents=True)
        for article in case["raw"]:
            (folder / article["id"].removeprefix(level)).write_text(json.dumps(article))
    else:
        folder = tmp_path / f"datasets/superglue_{name.lower()}"
        folder.mkdir(parents=True)
        (folder / f"{'val' if segment == 'dev' else segment}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in case["raw"]))
    published_name, rows = getattr(door(), f"dataset_{segment}")()
    assert published_name == segment
    assert rows == [item["fields"] for item in case["examples"]]
