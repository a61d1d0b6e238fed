"""Prediction files, byte for byte."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bort.errors import BortError
from bort.tasks.leaderboard import write_predictions
from bort.tasks.registry import TASKS, get_task
from bort.tasks.task import Example


def examples(*ids):
    return [Example(id, ("a", "b"), None, line) for line, id in enumerate(ids, start=2)]


@pytest.mark.parametrize(
    ("name", "file", "text"),
    [
        ("RTE", "RTE.tsv", "index\tprediction\n0\tentailment\n1\tnot_entailment\n"),
        ("SST-2", "SST-2.tsv", "index\tprediction\n0\t1\n1\t0\n"),
        ("QNLI", "QNLI.tsv", "index\tprediction\n0\tentailment\n1\tnot_entailment\n"),
        ("AX", "AX.tsv", "index\tprediction\n0\tentailment\n1\tneutral\n"),
        ("BoolQ", "BoolQ.jsonl", '{"idx": 7, "label": "true"}\n{"idx": 3, "label": "false"}\n'),
        ("WiC", "WiC.jsonl", '{"idx": 7, "label": "true"}\n{"idx": 3, "label": "false"}\n'),
        ("CB", "CB.jsonl", '{"idx": 7, "label": "entailment"}\n{"idx": 3, "label": "neutral"}\n'),
        ("SuperGLUE-RTE", "RTE.jsonl", '{"idx": 7, "label": "entailment"}\n{"idx": 3, "label": "not_entailment"}\n'),
    ],
)
def test_files_are_named_and_written_as_the_leaderboards_ask(name, file, text, tmp_path):
    paths = write_predictions(get_task(name), {"test": examples(7, 3)}, {"test": np.array([1, 0])}, tmp_path / "out")
    assert paths == [tmp_path / "out" / file]
    assert paths[0].read_bytes() == text.encode()


def test_scores_have_three_decimals_within_their_range(tmp_path):
    predictions = np.array([3.14159, -0.2, 5.7, -0.0, 2.0], np.float32)
    (path,) = write_predictions(get_task("STS-B"), {"test": examples(*range(5))}, {"test": predictions}, tmp_path)
    assert path.read_text() == "index\tprediction\n0\t3.142\n1\t0.000\n2\t5.000\n3\t0.000\n4\t2.000\n"


def test_mnli_writes_both_of_its_test_files(tmp_path):
    rows = {"test_matched": examples(0, 1), "test_mismatched": examples(0)}
    answers = {"test_matched": np.array([0, 2]), "test_mismatched": np.array([1])}
    paths = write_predictions(get_task("MNLI"), rows, answers, tmp_path)
    assert [path.name for path in paths] == ["MNLI-m.tsv", "MNLI-mm.tsv"]
    assert paths[0].read_text() == "index\tprediction\n0\tneutral\n1\tcontradiction\n"
    assert paths[1].read_text() == "index\tprediction\n0\tentailment\n"


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.name)
def test_every_task_can_be_handed_in_from_its_test_rows(task, repository, tmp_path):
    task = get_task(task.name, repository / "test_data")
    rows = {name: task.examples(name) for name in task.segment_names("test")}
    paths = write_predictions(task, rows, {name: np.zeros(len(rows[name])) for name in rows}, tmp_path)
    assert len(paths) == len(rows)
    for path, test_rows in zip(paths, rows.values(), strict=True):
        lines = path.read_text().splitlines()
        if path.suffix == ".tsv":
            assert [int(line.split("\t")[0]) for line in lines[1:]] == list(range(len(test_rows)))
        else:
            assert [json.loads(line)["idx"] for line in lines] == [row.id for row in test_rows]


def test_a_number_that_is_no_score_or_class_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(BortError, match="STS-B: the prediction for test row 1 is nan"):
        write_predictions(get_task("STS-B"), {"test": examples(0, 1)}, {"test": np.array([1.0, np.nan])}, tmp_path)
    for bad in (2, -1, 0.5):
        with pytest.raises(ValueError, match="not a class number below 2"):
            write_predictions(get_task("RTE"), {"test": examples(0)}, {"test": np.array([bad])}, tmp_path)
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        write_predictions(get_task("RTE"), {"test": examples(0, 1)}, {"test": np.array([1])}, tmp_path)
    assert list(tmp_path.iterdir()) == []
