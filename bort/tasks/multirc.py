"""MultiRC (Khashabi et al. 2018): a passage, questions about it, and answers of which any number may be right; one row per answer.

Notable: the published reader asks for fields of an older release and fails on SuperGLUE's; this one reads a passage to the same text
whether it is plain or has its sentences marked up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bort.errors import BortError
from bort.tasks.json_fields import JsonObject
from bort.tasks.reading import Row, read_lines

_SENTENCE_MARK = re.compile(r"<b>Sent \d+: ?</b>")
_LINE_BREAK = re.compile(r"</?br ?/?>")
_TAG = re.compile(r"</?[bipu]>")


def plain_passage(text: str) -> str:
    """A passage without its tags: ``<b>Sent 1: </b>Tea.<br><b>Sent 2: </b>Milk.<br>`` becomes ``Tea. Milk.``.

    A line break becomes a space, since nothing else separates two sentences; a text without tags stays as it is.
    """
    if "<" not in text:
        return text
    sentences = _LINE_BREAK.split(_SENTENCE_MARK.sub("", text))
    return " ".join(_TAG.sub("", sentence).strip() for sentence in sentences).strip()


@dataclass(frozen=True)
class Passages:
    """MultiRC's files: one passage per line, with ``questions``, each with ``answers``."""

    def rows(self, path: Path, labelled: bool) -> Iterator[Row]:
        """As ``Layout.rows``; one row per answer, its ``id`` the ``idx`` of passage, question and answer."""
        lines_of_passages: dict[int, str] = {}
        for line, text in read_lines(path):
            row = JsonObject.parse(text, f"{path}, line {line}")
            passage_id = _unused(row, lines_of_passages)
            passage = row.child("passage")
            passage_text = plain_passage(passage.text("text"))
            places_of_questions: dict[int, str] = {}
            for question in _some(passage, "questions", "question"):
                question_id, question_text = _unused(question, places_of_questions), question.text("question")
                for answer in _some(question, "answers", "answer"):
                    yield Row(
                        line=line,
                        id=(passage_id, question_id, answer.number("idx")),
                        texts=(passage_text, f"{question_text} {answer.text('text')}"),
                        label=answer.require("label") if labelled else answer.values.get("label"),
                        where=answer.where,
                    )


def _some(parent: JsonObject, name: str, called: str) -> list[JsonObject]:
    """The objects of a list that may not be empty: a leaderboard file nests as the input does, and would have nothing to nest."""
    children = parent.children(name, called)
    if not children:
        raise BortError(f'{parent.where}: nothing in the field "{name}"')
    return children


def _unused(item: JsonObject, places: dict[int, str]) -> int:
    """The item's ``idx``, which none of those before it may have had."""
    number = item.number("idx")
    if number in places:
        raise BortError(f"{item.where}: the id {number} is that of {places[number]} too")
    places[number] = item.where
    return number
