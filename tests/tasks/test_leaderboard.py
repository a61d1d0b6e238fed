"""Prediction files, byte for byte."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bort.errors import BortError
from bort.tasks.leaderboard import write_predictions
from bort.tasks.registry import get_task
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
        ("COPA", "COPA.jsonl", '{"idx": 7, "label": 1}\n{"idx": 3, "label": 0}\n'),
        ("WSC", "WSC.jsonl", '{"idx": 7, "label": "True"}\n{"idx": 3, "label": "False"}\n'),
        ("AX-b", "AX-b.jsonl", '{"idx": 7, "label": "entailment"}\n{"idx": 3, "label": "not_entailment"}\n'),
        ("AX-g", "AX-g.jsonl", '{"idx": 7, "label": "entailment"}\n{"idx": 3, "label": "not_entailment"}\n'),
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


def test_multirc_is_nested_as_its_input(tmp_path):
    rows = examples((4, 9, 30), (4, 9, 31), (4, 10, 32), (2, 0, 0))
    (path,) = write_predictions(get_task("MultiRC"), {"test": rows}, {"test": np.array([1, 0, 1, 1])}, tmp_path)
    assert path.name == "MultiRC.jsonl"
    assert path.read_text() == (
        '{"idx": 4, "passage": {"questions": [{"idx": 9, "answers": [{"idx": 30, "label": 1}, {"idx": 31, "label": 0}]}, '
        '{"idx": 10, "answers": [{"idx": 32, "label": 1}]}]}}\n'
        '{"idx": 2, "passage": {"questions": [{"idx": 0, "answers": [{"idx": 0, "label": 1}]}]}}\n'
    )


def candidates(*pairs):
    return [Example(query, ("a", "b"), None, 1, candidate=entity) for query, entity in pairs]


def test_record_names_the_entity_of_each_query(tmp_path):
    rows = candidates((5, "Ann"), (5, 'Zoë "Z" Lind'), (3, "Ann"))
    (path,) = write_predictions(get_task("ReCoRD"), {"test": rows}, {"test": np.array([0, 1, 1])}, tmp_path)
    assert path.name == "ReCoRD.jsonl"
    lines = [json.loads(line) for line in path.read_text(encoding="ascii").splitlines()]
    assert lines == [{"idx": 5, "label": 'Zoë "Z" Lind'}, {"idx": 3, "label": "Ann"}]


@pytest.mark.parametrize("predictions", [[0, 0, 1], [1, 1, 1]])
def test_a_query_with_no_answer_or_two_leaves_no_file(predictions, tmp_path):
    rows = candidates((5, "Ann"), (5, "Ben"), (3, "Ann"))
    with pytest.raises(ValueError, match=f"ReCoRD: {sum(predictions[:2])} answers to query 5"):
        write_predictions(get_task("ReCoRD"), {"test": rows}, {"test": np.array(predictions)}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_race_gives_an_article_its_letters_in_order(tmp_path):
    rows = examples(("high4.txt", 0), ("high4.txt", 1), ("high4.txt", 2), ("high100.txt", 0))
    (path,) = write_predictions(get_task("RACE-H"), {"test": rows}, {"test": np.array([0, 3, 1, 2])}, tmp_path)
    assert path.name == "RACE-H.jsonl"
    assert path.read_text() == '{"id": "high4.txt", "answers": ["A", "D", "B"]}\n{"id": "high100.txt", "answers": ["C"]}\n'


def test_ids_without_their_parts_are_refused(tmp_path):
    for name in ("MultiRC", "RACE"):
        with pytest.raises(ValueError, match="values to unpack"):
            write_predictions(get_task(name), {"test": examples(7)}, {"test": np.array([0])}, tmp_path)


def test_ids_that_are_read_as_text_are_written_as_numbers(repository, tmp_path):
    (tmp_path / "superglue/WiC").mkdir(parents=True)
    for name in ("train", "val", "test"):
        rows = [json.loads(line) for line in (repository / f"test_data/superglue/WiC/{name}.jsonl").read_text().splitlines()]
        text = "".join(json.dumps(row | {"idx": str(row["idx"])}) + "\n" for row in rows)
        (tmp_path / f"superglue/WiC/{name}.jsonl").write_text(text)
    task = get_task("WiC", tmp_path)
    (path,) = write_predictions(task, {"test": task.examples("test")}, {"test": np.zeros(len(rows))}, tmp_path)
    assert [json.loads(line)["idx"] for line in path.read_text().splitlines()] == [int(row["idx"]) for row in rows]
    assert '"idx": 0,' in path.read_text()


def test_if_one_of_two_files_cannot_be_made_neither_is(tmp_path):
    rows = {"test_matched": examples(0), "test_mismatched": examples(0)}
    with pytest.raises(ValueError, match="not a class number"):
        write_predictions(get_task("MNLI"), rows, {"test_matched": np.array([0]), "test_mismatched": np.array([3])}, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_number_that_is_no_score_or_class_is_refused_and_leaves_no_file(tmp_path):
    with pytest.raises(BortError, match="STS-B: the prediction for test row 1 is nan"):
        write_predictions(get_task("STS-B"), {"test": examples(0, 1)}, {"test": np.array([1.0, np.nan])}, tmp_path)
    for bad in (2, -1, 0.5):
        with pytest.raises(ValueError, match="not a class number below 2"):
            write_predictions(get_task("RTE"), {"test": examples(0)}, {"test": np.array([bad])}, tmp_path)
    with pytest.raises(ValueError, match="1 predictions for 2 rows"):
        write_predictions(get_task("RTE"), {"test": examples(0, 1)}, {"test": np.array([1])}, tmp_path)
    assert list(tmp_path.iterdir()) == []
