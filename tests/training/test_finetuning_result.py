"""Results of runs: they go round, and a damaged one is refused with the field that is wrong."""

from __future__ import annotations

import json
import re

import pytest

from bort.errors import BortError
from bort.training.finetuning_result import read_result

from .results import metrics, write_result


def test_a_result_goes_round(tmp_path):
    write_result(tmp_path / "run", 0.25, 3, "MNLI", majority=0.125, lr=1e-4)
    result = read_result(tmp_path / "run")
    assert (result.task, result.score, result.files, result.settings) == ("MNLI", 0.25, (), {"seed": 3, "epochs": 3, "lr": 1e-4})
    assert result.dev == metrics("MNLI", 0.25)
    assert result.majority == {"dev_matched": {"accuracy": 0.125}, "dev_mismatched": {"accuracy": 0.125}}
    result.write(tmp_path)
    assert (tmp_path / "result.json").read_bytes() == (tmp_path / "run" / "result.json").read_bytes()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("task", 3), ("score", "x"), ("score", float("nan")), ("score", True), ("score", 10**400), ("score", None), ("best_epoch", 1.5),
        ("epochs", -1), ("steps", True), ("dev", []), ("dev", {"dev": 0.5}), ("dev", {"dev": {"accuracy": "0.5"}}),
        ("majority", {"dev": {"accuracy": float("inf")}}), ("settings", []), ("parameters", None), ("train_rows", "1"), ("seconds", None),
        ("files", None), ("files", [3]), ("files", "RTE.tsv"), ("test_rows", []), ("test_rows", {"RTE.tsv": 3}), ("test_rows", None),
    ],
)  # fmt: skip
def test_a_field_that_is_not_what_it_should_be_is_named(tmp_path, name, value):
    write_result(tmp_path / "run", 0.5, 0)
    path = tmp_path / "run" / "result.json"
    values = json.loads(path.read_text())
    for damaged in (values | {name: value}, {other: value for other, value in values.items() if other != name}):
        path.write_text(json.dumps(damaged))
        with pytest.raises(
            BortError, match=re.escape(f"{path}: not the result of a fine-tuning run: {name} is missing or damaged; move it")
        ):
            read_result(tmp_path / "run")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ({"task": "XY"}, 'no task "XY"; there are CoLA'),
        ({"dev": {"dev_matched": {"accuracy": 0.5}}}, "no dev_mismatched accuracy of MNLI; repeat the run in a new folder"),
        ({"dev": {"dev_matched": {}, "dev_mismatched": {"accuracy": 0.5}}}, "no dev_matched accuracy of MNLI"),
        ({"majority": {}}, "no majority dev_matched accuracy of MNLI"),
    ],
)
def test_a_result_has_every_metric_of_its_task(tmp_path, damage, message):
    write_result(tmp_path / "run", 0.5, 0, "MNLI")
    path = tmp_path / "run" / "result.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | damage))
    with pytest.raises(BortError, match=re.escape(f"{path}: {message}")):
        read_result(tmp_path / "run")


def test_a_folder_without_one_is_no_complete_run(tmp_path):
    with pytest.raises(BortError, match=r"result\.json: cannot read: No such file or directory; give the folder of a complete run"):
        read_result(tmp_path)
