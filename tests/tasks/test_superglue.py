"""SuperGLUE's entries: texts made of fields, labels, and who answers the diagnostic sets."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks.registry import get_task
from bort.tasks.superglue import SUPERGLUE, last_sentences


def read(folder, name, row, segment="train"):
    task = get_task(name, folder)
    file = folder / task.folders[0] / task.segment(segment).file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(row), encoding="utf-8")
    (example,) = task.examples(segment)
    return example


COPA = {"premise": "It rained.", "choice1": "We got wet.", "choice2": "Clouds came.", "question": "cause", "label": 1, "idx": "3"}
WSC = {
    "text": "Ann saw Bo and she waved.",
    "target": {"span1_text": "Ann", "span2_text": "she", "span1_index": 0, "span2_index": 4},
    "label": True,
    "idx": 0,
}


@pytest.mark.parametrize(("question", "joint"), [("cause", "because"), ("effect", "so")])
def test_copa_joins_the_premise_to_each_choice(question, joint, tmp_path):
    example = read(tmp_path, "COPA", COPA | {"question": question})
    assert example.texts == (f"It rained. {joint} We got wet.", f"It rained. {joint} Clouds came.")
    assert (example.id, example.label) == (3, 1)


@pytest.mark.parametrize("question", ["why", "Cause", ""])
def test_copa_asks_for_a_cause_or_an_effect(question, tmp_path):
    with pytest.raises(BortError, match=rf'train\.jsonl, line 1: question "{question}" is not one of cause, effect$'):
        read(tmp_path, "COPA", COPA | {"question": question})


@pytest.mark.parametrize("label", [True, "1", 2, 1.0, None])
def test_copa_labels_are_the_numbers_0_and_1(label, tmp_path):
    with pytest.raises(BortError, match=r"line 1: label [^,]+ is not one of 0, 1$"):
        read(tmp_path, "COPA", COPA | {"label": label})


def test_the_winograd_schema_says_what_the_pronoun_means(tmp_path):
    example = read(tmp_path, "WSC", WSC)
    assert example.texts == ("Ann saw Bo and she waved.", "she means Ann")
    assert example.label == 1


@pytest.mark.parametrize("target", [None, [], "Ann", {"span1_text": "Ann"}, {"span1_text": "Ann", "span2_text": 3}])
def test_the_winograd_schema_needs_both_spans(target, tmp_path):
    with pytest.raises(BortError, match=r'line 1: no text in the field "target\.span[12]_text"$'):
        read(tmp_path, "WSC", WSC | {"target": target})


@pytest.mark.parametrize(("name", "first", "second"), [("AX-b", "sentence1", "sentence2"), ("AX-g", "premise", "hypothesis")])
@pytest.mark.parametrize(("label", "number"), [({}, None), ({"label": "not_entailment"}, 0), ({"label": "entailment"}, 1)])
def test_diagnostic_sets_may_carry_labels(name, first, second, label, number, tmp_path):
    example = read(tmp_path, name, {first: "a", second: "b", "idx": "0"} | label, "test")
    assert (example.texts, example.label) == (("a", "b"), number)


def test_diagnostic_sets_take_the_labels_of_the_task_that_answers_them():
    rte = get_task("SuperGLUE-RTE")
    diagnostic = [task for task in SUPERGLUE if task.predicted_by]
    assert [task.name for task in diagnostic] == ["AX-b", "AX-g"]
    assert all((task.predicted_by, task.labels) == (rte.name, rte.labels) for task in diagnostic)


def test_labels_as_files_and_leaderboards_write_them():
    labels = {task.name: (task.labels, task.leaderboard_labels) for task in SUPERGLUE}
    assert labels["BoolQ"] == labels["WiC"] == ((False, True), ("false", "true"))
    assert labels["WSC"] == ((False, True), ("False", "True"))
    assert labels["COPA"] == labels["MultiRC"] == labels["ReCoRD"] == ((0, 1), (0, 1))
    assert labels["CB"][0] == ("neutral", "entailment", "contradiction")


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(blacklist_characters="."), max_size=8), min_size=1, max_size=8))
def test_commitment_bank_keeps_the_last_four_pieces_without_their_first_character(pieces):
    text = ".".join(pieces)
    expected = text if len(pieces) < 4 else " ".join(pieces[-4:])[1:]
    assert last_sentences(text, "h") == (expected, "h")
    assert last_sentences("p", text) == ("p", expected)
