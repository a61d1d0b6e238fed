"""RACE's articles and questions."""

from __future__ import annotations

import json

import pytest

from bort.errors import BortError
from bort.tasks import get_task


def article(article_id, answers=("A", "D"), **fields):
    questions = [f"question {number}?" for number in range(len(answers))]
    options = [[f"{letter} of {number}" for letter in "abcd"] for number in range(len(answers))]
    return {"id": article_id, "article": "An article.", "questions": questions, "options": options, "answers": list(answers)} | fields


def put(folder, path, item):
    file = folder / "race" / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(item if isinstance(item, bytes) else json.dumps(item).encode())
    return file


def test_one_row_a_question_with_the_article_before_it(tmp_path):
    put(tmp_path, "train/high/7.txt", article("high7.txt"))
    examples = get_task("RACE-H", tmp_path).examples("train")
    assert [(example.id, example.texts, example.label) for example in examples] == [
        (("high7.txt", 0), ("An article. question 0?", "a of 0 </sep> b of 0 </sep> c of 0 </sep> d of 0"), 0),
        (("high7.txt", 1), ("An article. question 1?", "a of 1 </sep> b of 1 </sep> c of 1 </sep> d of 1"), 3),
    ]
    assert [example.texts[0][example.question_start :] for example in examples] == [" question 0?", " question 1?"]


def test_an_article_without_questions_has_no_rows(tmp_path):
    put(tmp_path, "train/high/1.txt", article("high1.txt", answers=()))
    put(tmp_path, "train/high/2.txt", article("high2.txt"))
    assert {example.id[0] for example in get_task("RACE-H", tmp_path).examples("train")} == {"high2.txt"}


def test_articles_are_read_by_number_and_level(tmp_path):
    for level, number in (("middle", 3), ("high", 10), ("high", 9), ("high", 101)):
        put(tmp_path, f"dev/{level}/{number}.txt", article(f"{level}{number}.txt", "B"))
    put(tmp_path, "dev/high/README", b"not an article")
    ids = [example.id[0] for example in get_task("RACE", tmp_path).examples("dev")]
    assert ids == ["high9.txt", "high10.txt", "high101.txt", "middle3.txt"]
    assert [file.name for file in get_task("RACE-H", tmp_path).files("dev")] == ["9.txt", "10.txt", "101.txt"]


def test_a_level_that_is_missing_is_named(tmp_path):
    put(tmp_path, "dev/high/1.txt", article("high1.txt"))
    assert get_task("RACE-H", tmp_path).is_present("dev")
    for name in ("RACE-M", "RACE"):
        task = get_task(name, tmp_path)
        assert not task.is_present("dev")
        remedy = f"fetch it with bort tasks download {name}, or name the folder that holds race with --data_root"
        with pytest.raises(BortError, match=rf"^{name}: no dev/middle/\*\.txt in {tmp_path}/race; {remedy}$"):
            task.examples("dev")
    with pytest.raises(BortError, match=r"^RACE: no test/high/\*\.txt in "):
        get_task("RACE", tmp_path).files("test")


@pytest.mark.parametrize("answers", [{}, {"answers": None}, {"answers": [None, -1]}])
def test_a_test_file_may_lack_answers(tmp_path, answers):
    put(tmp_path, "test/high/1.txt", {key: value for key, value in article("high1.txt").items() if key != "answers"} | answers)
    put(tmp_path, "test/high/2.txt", article("high2.txt"))
    assert [example.label for example in get_task("RACE-H", tmp_path).examples("test")] == [None, None, 0, 3]


@pytest.mark.parametrize("ending", [b"", b"\n", b"\r\n\r\n"])
def test_line_ends_and_a_byte_order_mark_do_not_matter(tmp_path, ending):
    put(tmp_path, "train/middle/1.txt", b"\xef\xbb\xbf" + json.dumps(article("middle1.txt")).encode() + ending)
    assert len(get_task("RACE-M", tmp_path).examples("train")) == 2


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (b"", ": not JSON"),
        (b"\xff", ": not UTF-8: invalid start byte at byte 0"),
        (b"[]", ": not a JSON object"),
        (article(None), ': no text in the field "id"'),
        (article("middle1.txt"), ': the id "middle1.txt" does not begin with the name of the folder, high'),
        (article("high0.txt"), 'question 1: the id "high0.txt", 0 is that of .*0.txt, question 1 too'),
        (article("high1.txt", article=None), ': no text in the field "article"'),
        (article("high1.txt", questions="ab"), ': no list in the field "questions"'),
        (article("high1.txt", questions=["a", 3]), ': no text in the field "questions"'),
        (article("high1.txt", questions=["a"]), ": 1 questions, 2 lists of options, 2 answers"),
        (article("high1.txt") | {"answers": None}, ': no list in the field "answers"'),
        (article("high1.txt") | {"answers": ["A", "E"]}, r', question 2: label "E" is not one of A, B, C, D$'),
        (article("high1.txt") | {"answers": ["A", 1]}, r", question 2: label 1 is not one of A, B, C, D$"),
        (article("high1.txt", options=[list("abcd"), list("abc")]), ", question 2: 3 options where there must be 4"),
        (article("high1.txt", options=[list("abcd"), "abcd"]), ', question 2: no list in the field "options"'),
        (article("high1.txt", options=[list("abcd"), ["a", "b", "c", None]]), ', question 2: no text in the field "options"'),
    ],
)
def test_what_is_wrong_is_named_with_the_file_of_the_article(tmp_path, item, message):
    put(tmp_path, "train/high/0.txt", article("high0.txt"))
    file = put(tmp_path, "train/high/1.txt", item)
    with pytest.raises(BortError, match=message) as caught:
        get_task("RACE-H", tmp_path).examples("train")
    assert str(caught.value).startswith(str(file))
    assert "\n" not in str(caught.value)


def test_a_folder_in_place_of_an_article_is_named(tmp_path):
    (tmp_path / "race/train/high/1.txt").mkdir(parents=True)
    with pytest.raises(BortError, match=r"high/1\.txt: Is a directory"):
        get_task("RACE-H", tmp_path).examples("train")
