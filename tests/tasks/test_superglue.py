"""SuperGLUE's entries against the published code's rows and the official files."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.tasks.registry import get_task
from bort.tasks.superglue import SUPERGLUE, last_sentences

SEGMENTS = [(task.name, segment.name) for task in SUPERGLUE for segment in task.segments]


@pytest.mark.parametrize(("name", "segment"), SEGMENTS)
def test_texts_and_labels_are_the_published_ones(name, segment, shared, tmp_path):
    golden = json.loads((shared / "golden/published_task_inputs.json").read_text(encoding="utf-8"))
    case = golden[f"{name.removeprefix('SuperGLUE-')}/{segment}"]
    task = get_task(name, tmp_path)
    file = tmp_path / task.folders[0] / task.segment(segment).file
    file.parent.mkdir(parents=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in case["raw"]), encoding="utf-8")
    examples = task.examples(segment)
    assert len(examples) == len(case["examples"])
    for example, row, expected in zip(examples, case["raw"], case["examples"], strict=True):
        assert list(example.texts) == expected["fields"][:2]
        assert example.label == expected["label"]
        assert example.id == row["idx"]


@pytest.mark.parametrize(("name", "segment"), SEGMENTS)
def test_official_files_load_in_full(name, segment, shared):
    task = get_task(name, shared / "data")
    examples = task.examples(segment)
    lines = (shared / "data" / task.folders[0] / task.segment(segment).file).read_text(encoding="utf-8").strip().split("\n")
    assert [example.id for example in examples] == [int(json.loads(line)["idx"]) for line in lines]
    if name != "BoolQ":
        assert len(examples) == task.official_sizes[segment]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(blacklist_characters="."), max_size=8), min_size=1, max_size=8))
def test_commitment_bank_keeps_the_last_four_pieces_without_their_first_character(pieces):
    text = ".".join(pieces)
    expected = text if len(pieces) < 4 else " ".join(pieces[-4:])[1:]
    assert last_sentences(text, "h") == (expected, "h")
    assert last_sentences("p", text) == ("p", expected)
