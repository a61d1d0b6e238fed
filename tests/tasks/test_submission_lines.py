"""JSON lines that SuperGLUE or RACE would refuse."""

from __future__ import annotations

import pytest

from .test_submission_broken import (
    IN_ORDER,
    LETTERS,
    OBJECT,
    PLAIN,
    assert_refused,
    fields,
    line,
    lines,
    swap,
    values,
)


def questions(change):
    """Change the questions of MultiRC's first passage: 0 with answers 0 and 1, 1 with answers 2 and 3."""
    return values(1, lambda value: change(value["passage"]["questions"]))


BROKEN_LINES = {
    "an idx in quotes": ("CB.jsonl", fields(1, idx="0"), [', line 1: the idx is "0"; write it as a whole number without quotes']),
    "an idx that is true": ("CB.jsonl", fields(2, idx=True), [", line 2: the idx is true; write it as a whole number without quotes"]),
    "an idx with a decimal": ("CB.jsonl", fields(2, idx=1.0), [", line 2: the idx is 1.0; write it as a whole number without quotes"]),
    "an idx of no row": (
        "CB.jsonl",
        fields(2, idx=99),
        [f", line 2: idx 99 is not in the test file; {IN_ORDER}", f": idx 1 missing (1 in all); {IN_ORDER}"],
    ),
    "lines out of order": ("RTE.jsonl", lines(swap(0, 1)), [f", line 1: idx 1 where 0 is due (2 rows out of order); {IN_ORDER}"]),
    "a truth value for a word": ("BoolQ.jsonl", fields(1, label=True), [', line 1: the label is true; write one of "false", "true"']),
    "a capital": ("WiC.jsonl", fields(1, label="True"), [', line 1: the label is "True"; write one of "false", "true"']),
    "no capital": ("WSC.jsonl", fields(1, label="true"), [', line 1: the label is "true"; write one of "False", "True"']),
    "a word for COPA": ("COPA.jsonl", fields(1, label="0"), [', line 1: the label is "0"; write one of 0, 1']),
    "a truth value for COPA": ("COPA.jsonl", fields(1, label=False), [", line 1: the label is false; write one of 0, 1"]),
    "a number for AX-b": (
        "AX-b.jsonl",
        fields(3, label=1),
        [', line 3: the label is 1; write one of "not_entailment", "entailment"'],
    ),
    "a label of another task": (
        "AX-g.jsonl",
        fields(3, label="neutral"),
        [', line 3: the label is "neutral"; write one of "not_entailment", "entailment"'],
    ),
    "no label": ("CB.jsonl", values(2, lambda value: value.pop("label")), [f', line 2: no field "label"; {OBJECT}']),
    "another field": ("CB.jsonl", fields(2, probability=0.5), [f', line 2: a field "probability" too many; {OBJECT}']),
    "no object": ("CB.jsonl", line(2, b'[1, "neutral"]'), [f", line 2: not a JSON object; {OBJECT}"]),
    "a cut line": (
        "CB.jsonl",
        line(2, b'{"idx": 1, "la'),
        [f", line 2: not JSON: Unterminated string starting at at character 12; {OBJECT}"],
    ),
    "two objects on a line": (
        "CB.jsonl",
        line(2, b'{"idx": 1, "label": "neutral"}{"idx": 2, "label": "neutral"}'),
        [f", line 2: not JSON: Extra data at character 31; {OBJECT}"],
    ),
    "a key twice": (
        "CB.jsonl",
        line(2, b'{"idx": 1, "label": "neutral", "label": "entailment"}'),
        [f', line 2: not JSON: the key "label" stands twice; {OBJECT}'],
    ),
    "a carriage return": ("CB.jsonl", line(2, b'{"idx": 1,\r"label": "neutral"}'), [f", line 2: a carriage return; {PLAIN}"]),
    "NaN": ("COPA.jsonl", line(2, b'{"idx": 1, "label": NaN}'), [f", line 2: not JSON: NaN is no number; {OBJECT}"]),
    "infinity": ("COPA.jsonl", line(2, b'{"idx": 1, "label": 1e999}'), [", line 2: the label is Infinity; write one of 0, 1"]),
    "a list of lists of lists": (
        "WiC.jsonl",
        line(2, b'{"idx": 1, "label": ' + b"[" * 500_000),
        [f", line 2: not JSON: maximum recursion depth exceeded while decoding a JSON array from a unicode string; {OBJECT}"],
    ),
    "digits without end": ("WiC.jsonl", line(2, b'{"idx": ' + b"9" * 500_000 + b"}"), None),
    "a flat MultiRC": (
        "MultiRC.jsonl",
        line(1, b'{"idx": 0, "label": 1}'),
        [', line 1: no field "passage"; write one object with "idx" and "passage"'],
    ),
    "a passage without questions": (
        "MultiRC.jsonl",
        fields(1, passage=[]),
        [', line 1: the passage is a list of 0; write {"questions": […]}'],
    ),
    "a passage missing": (
        "MultiRC.jsonl",
        lines(lambda rows: rows.pop(0)),
        [f": 1 rows where the test file has 2; {IN_ORDER}", f": idx 0 missing (1 in all); {IN_ORDER}"],
    ),
    "a question missing": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions.pop(1)),
        [f", line 1: question 1 missing (1 in all); {IN_ORDER}"],
    ),
    "a question in two": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions.insert(1, {"idx": 0, "answers": [all_questions[0]["answers"].pop()]})),
        [
            f", line 1: question 0: answer 1 missing (1 in all); {IN_ORDER}",
            f", line 1: question 0: answer 0 missing (1 in all); {IN_ORDER}",
            f", line 1: question 0 stands here again; {IN_ORDER}",
        ],
    ),
    "questions out of order": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions.reverse()),
        [f", line 1: question 1 where 0 is due (2 rows out of order); {IN_ORDER}"],
    ),
    "an answer missing": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions[1]["answers"].pop()),
        [f", line 1: question 1: answer 3 missing (1 in all); {IN_ORDER}"],
    ),
    "an answer twice": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions[1]["answers"].append(all_questions[1]["answers"][0])),
        [f", line 1: question 1: answer 2 stands here again; {IN_ORDER}"],
    ),
    "an answer that is maybe": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions[1]["answers"][0].update(label=2)),
        [", line 1: question 1, answer 2: the label is 2; write one of 0, 1"],
    ),
    "an answer without a label": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions[1]["answers"][0].pop("label")),
        [', line 1: question 1: an answer is an object with "idx"; write {"idx": number, "label": 0 or 1}'],
    ),
    "a question without answers": (
        "MultiRC.jsonl",
        questions(lambda all_questions: all_questions[0].update(answers=None)),
        [', line 1: a question is an object with "idx", "answers"; write {"idx": number, "answers": […]}'],
    ),
    "an entity of no text": (
        "ReCoRD.jsonl",
        fields(1, label="Paris"),
        [', line 1: the label "Paris" is no entity of the query; write one of its {entities}'],
    ),
    "an entity's number": ("ReCoRD.jsonl", fields(2, label=0), [", line 2: the label is 0; write the text of one of the query's entities"]),
    "a query missing": (
        "ReCoRD.jsonl",
        lines(lambda rows: rows.pop(1)),
        [f": 2 rows where the test file has 3; {IN_ORDER}", f": idx 1 missing (1 in all); {IN_ORDER}"],
    ),
}

BROKEN_LETTERS = {
    "a fifth letter": (
        "RACE.jsonl",
        values(1, lambda value: value["answers"].__setitem__(0, "E")),
        [f', line 1: answer 1 is "E"; {LETTERS}'],
    ),
    "a small letter": (
        "RACE.jsonl",
        values(1, lambda value: value["answers"].__setitem__(1, "a")),
        [f', line 1: answer 2 is "a"; {LETTERS}'],
    ),
    "a number for a letter": (
        "RACE.jsonl",
        values(1, lambda value: value["answers"].__setitem__(1, 0)),
        [f", line 1: answer 2 is 0; {LETTERS}"],
    ),
    "one letter missing": (
        "RACE.jsonl",
        values(1, lambda value: value["answers"].pop()),
        [", line 1: {fewer} answers to {count} questions; write one letter per question"],
    ),
    "letters in one text": ("RACE.jsonl", fields(1, answers="ABC"), [', line 1: the answers are "ABC"; write a list of letters']),
    "a number for an article": ("RACE.jsonl", fields(1, id=4), [", line 1: the id is 4; write it as text, as the test file has it"]),
    "an article twice": (
        "RACE.jsonl",
        lines(lambda rows: rows.append(rows[0])),
        [
            f": 5 rows where the test file has 4; {IN_ORDER}",
            f', line 5: id "high4.txt" stands here again; {IN_ORDER}',
        ],
    ),
    "an article of the other split": (
        "RACE.jsonl",
        fields(2, id="high12.txt"),
        [f', line 2: id "high12.txt" is not in the test file; {IN_ORDER}', f': id "high100.txt" missing (1 in all); {IN_ORDER}'],
    ),
}


@pytest.mark.parametrize(("file", "edit", "reasons"), BROKEN_LINES.values(), ids=BROKEN_LINES)
def test_each_is_refused_with_its_own_reason(file, edit, reasons, repository, tmp_path, capsys):
    assert_refused("superglue", file, edit, reasons, repository, tmp_path, capsys)


@pytest.mark.parametrize(("file", "edit", "reasons"), BROKEN_LETTERS.values(), ids=BROKEN_LETTERS)
def test_articles_are_refused_too(file, edit, reasons, repository, tmp_path, capsys):
    assert_refused("race", file, edit, reasons, repository, tmp_path, capsys)
