"""GLUE's entries against the official files and the contract of their columns."""

from __future__ import annotations

import warnings

import pytest

from bort.tasks.glue import GLUE
from bort.tasks.registry import get_task

SEGMENTS = [(task.name, segment.name) for task in GLUE for segment in task.segments]

# Columns (texts, label) of the official files, counted from 0.
COLUMNS = {
    ("CoLA", "train"): ([3], 1),
    ("CoLA", "dev"): ([3], 1),
    ("CoLA", "test"): ([1], None),
    ("SST-2", "train"): ([0], 1),
    ("SST-2", "dev"): ([0], 1),
    ("SST-2", "test"): ([1], None),
    ("MRPC", "train"): ([3, 4], 0),
    ("MRPC", "dev"): ([3, 4], 0),
    ("MRPC", "test"): ([3, 4], None),
    ("STS-B", "train"): ([7, 8], 9),
    ("STS-B", "dev"): ([7, 8], 9),
    ("STS-B", "test"): ([7, 8], None),
    ("QQP", "train"): ([3, 4], 5),
    ("QQP", "dev"): ([3, 4], 5),
    ("QQP", "test"): ([1, 2], None),
    ("MNLI", "train"): ([8, 9], 11),
    ("MNLI", "dev_matched"): ([8, 9], 15),
    ("MNLI", "dev_mismatched"): ([8, 9], 15),
    ("MNLI", "test_matched"): ([8, 9], None),
    ("MNLI", "test_mismatched"): ([8, 9], None),
    **{(name, segment): ([1, 2], 3) for name in ("QNLI", "RTE", "WNLI") for segment in ("train", "dev")},
    **{(name, "test"): ([1, 2], None) for name in ("QNLI", "RTE", "WNLI", "AX")},
}


def test_every_segment_has_its_columns_listed_here():
    assert set(COLUMNS) == set(SEGMENTS)


@pytest.mark.parametrize("where", ["official", "own"])
@pytest.mark.parametrize(("name", "segment_name"), SEGMENTS)
def test_rows_are_the_columns_of_the_file(name, segment_name, where, request, repository):
    root = repository / "test_data" if where == "own" else request.getfixturevalue("shared") / "data"
    task = get_task(name, root)
    segment = task.segment(segment_name)
    file = root / task.folders[0] / segment.file
    if where == "official" and not file.is_file():
        pytest.skip(f"{file} is not here")
    texts, label = COLUMNS[name, segment_name]
    lines = file.read_text(encoding="utf-8-sig").rstrip("\n").split("\n")
    has_header = name != "CoLA" or segment_name == "test"
    expected = [line.split("\t") for line in lines[has_header:]]
    if name == "QQP" and segment_name == "train":
        expected = [cells for cells in expected if len(cells) > 5]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*left out")
        examples = task.examples(segment_name)
    assert [list(example.texts) for example in examples] == [[cells[column] for column in texts] for cells in expected]
    assert [example.id for example in examples] == list(range(len(expected)))
    if label is None:
        assert {example.label for example in examples} == {None}
    elif task.is_regression:
        assert [example.label for example in examples] == [float(cells[label]) for cells in expected]
    else:
        assert [task.labels[example.label] for example in examples] == [cells[label] for cells in expected]


@pytest.mark.parametrize("name", ["CoLA", "MRPC", "STS-B", "RTE", "WNLI"])
def test_whole_official_files_have_the_official_sizes(name, shared):
    task = get_task(name, shared / "data")
    assert [len(task.examples(segment.name)) for segment in task.segments] == [segment.official_size for segment in task.segments]


def test_label_orders_are_the_published_ones():
    orders = {task.name: task.labels for task in GLUE}
    assert orders["MNLI"] == orders["AX"] == ("neutral", "entailment", "contradiction")
    assert orders["QNLI"] == orders["RTE"] == ("not_entailment", "entailment")
    assert {orders[name] for name in ("CoLA", "SST-2", "MRPC", "QQP", "WNLI")} == {("0", "1")}
    assert orders["STS-B"] is None
