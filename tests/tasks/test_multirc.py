"""MultiRC's passages, questions and answers."""

from __future__ import annotations

import copy
import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks import get_task
from bort.tasks.multirc import plain_passage

PASSAGE = {
    "idx": 4,
    "passage": {
        "text": "<b>Sent 1: </b>Tea.<br><b>Sent 2: </b>Milk.<br>",
        "questions": [
            {"idx": 7, "question": "Which?", "answers": [{"idx": 1, "text": "tea", "label": 1}, {"idx": "2", "text": "jam", "label": 0}]},
            {"idx": 8, "question": "Why?", "answers": [{"idx": 1, "text": "so", "label": 0}]},
        ],
    },
}


def read(folder, *rows, segment="train"):
    task = get_task("MultiRC", folder)
    file = folder / task.folders[0] / task.segment(segment).file
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return task.examples(segment)


def changed(*path_and_value):
    """PASSAGE with the value at a path replaced."""
    *path, last, value = path_and_value
    row = copy.deepcopy(PASSAGE)
    place = row
    for key in path:
        place = place[key]
    place[last] = value
    return row


def test_one_row_an_answer_with_the_ids_of_all_levels(tmp_path):
    examples = read(tmp_path, PASSAGE)
    assert [(example.id, example.texts, example.label, example.line) for example in examples] == [
        ((4, 7, 1), ("Tea. Milk.", "Which? tea"), 1, 1),
        ((4, 7, 2), ("Tea. Milk.", "Which? jam"), 0, 1),
        ((4, 8, 1), ("Tea. Milk.", "Why? so"), 0, 1),
    ]


def test_answers_of_the_test_file_need_no_label(tmp_path):
    row = copy.deepcopy(PASSAGE)
    for question in row["passage"]["questions"]:
        for answer in question["answers"]:
            del answer["label"]
    assert [example.label for example in read(tmp_path, row, segment="test")] == [None, None, None]
    with pytest.raises(BortError, match=r'train\.jsonl, line 1, passage, question 1, answer 1: no field "label"'):
        read(tmp_path, row)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (changed("idx", None), 'line 2: the field "idx" holds no whole number'),
        (changed("idx", 0), "line 2: the id 0 is that of .*line 1 too"),
        (changed("passage", []), "line 2, passage: not a JSON object"),
        (changed("passage", "text", None), 'line 2, passage: no text in the field "text"'),
        (changed("passage", "questions", {}), 'line 2, passage: no list in the field "questions"'),
        (changed("passage", "questions", []), 'line 2, passage: nothing in the field "questions"'),
        (changed("passage", "questions", 1, "x"), "line 2, passage, question 2: not a JSON object"),
        (changed("passage", "questions", 1, "idx", 7), "line 2, passage, question 2: the id 7 is that of .*question 1 too"),
        (changed("passage", "questions", 0, "answers", []), 'question 1: nothing in the field "answers"'),
        (
            changed("passage", "questions", 0, "answers", 1, "idx", 1),
            "question 1, answer 2: the id 4, 7, 1 is that of .*question 1, answer 1 too",
        ),
        (changed("passage", "questions", 0, "answers", 1, "text", 3), 'question 1, answer 2: no text in the field "text"'),
        (changed("passage", "questions", 0, "answers", 1, "label", 2), r"question 1, answer 2: label 2 is not one of 0, 1$"),
        (changed("passage", "questions", 0, "answers", 1, "label", True), r"answer 2: label true is not one of 0, 1$"),
        (changed("passage", "questions", 0, "answers", 1, "label", -1), r"answer 2: label -1 is not one of 0, 1$"),
        (changed("passage", "questions", 0, "answers", 1, "label", {"a": 1}), r'answer 2: label an object with "a" is not one of 0, 1$'),
    ],
)
def test_what_is_wrong_is_named_with_its_question_and_answer(tmp_path, row, message):
    with pytest.raises(BortError, match=message) as caught:
        read(tmp_path, changed("idx", 0), row)
    assert str(caught.value).startswith(str(tmp_path / "superglue/MultiRC/train.jsonl"))
    assert "\n" not in str(caught.value)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.text(st.characters(blacklist_characters="<", blacklist_categories=("Cs",)), min_size=1).filter(str.strip), min_size=1))
def test_marked_and_plain_sentences_become_the_same_text(sentences):
    marked = "".join(f"<b>Sent {number}: </b>{sentence}<br>" for number, sentence in enumerate(sentences, start=1))
    assert plain_passage(marked) == " ".join(sentence.strip() for sentence in sentences)


@pytest.mark.parametrize("text", ["", "  two  spaces ", "3 > 2", "a\nb"])
def test_a_text_without_tags_stays_as_it_is(text):
    assert plain_passage(text) == text


def test_other_tags_go_and_comparisons_stay():
    assert plain_passage("<i>Tea</i> if x < 3 <br/> and <b>milk</b>.</br>") == "Tea if x < 3 and milk."
