"""RACE (Lai et al. 2017): reading comprehension from English exams of high and middle schools, one file per article, one row per question.

Notable: a row has two texts, article and question in the first and the four options in the second, with the literal ``</sep>`` between
them, and one class per option, as in the published code. An article can be longer than a model reads, and cutting the end of the first text
would cut the question, so a row knows where its question begins (``keep_question`` in bort/tasks/encoding.py).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from bort.errors import BortError
from bort.tasks.json_fields import JsonObject
from bort.tasks.leaderboard import race_answers
from bort.tasks.reading import Row
from bort.tasks.task import Segment, Task

OPTIONS = ("A", "B", "C", "D")


@dataclass(frozen=True)
class Article:
    """One of RACE's files: a JSON object with an article, and questions, options and answers in lists of equal length."""

    def rows(self, path: Path, labelled: bool) -> Iterator[Row]:
        """As ``Layout.rows``; one row per question, its ``id`` the article's own and the question's number from 0.

        An article without questions, as two of the published training set are said to be, has no rows.
        """
        article = JsonObject.parse(_read(path), str(path))
        article_id = article.text("id")
        # The metrics of the levels know a question's level by its id alone.
        if not article_id.startswith(path.parent.name):
            raise BortError(f"{path}: the id {json.dumps(article_id[:40])} does not begin with the name of the folder, {path.parent.name}")
        text, questions, options = article.text("article"), article.texts("questions"), article.items("options")
        has_answers = labelled or article.values.get("answers") is not None
        answers = article.items("answers") if has_answers else [None] * len(questions)
        if not len(questions) == len(options) == len(answers):
            raise BortError(f"{path}: {len(questions)} questions, {len(options)} lists of options, {len(answers)} answers")
        for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
            where = f"{path}, question {number + 1}"
            choices = JsonObject({"options": options[number]}, where).texts("options")
            if len(choices) != len(OPTIONS):
                raise BortError(f"{where}: {len(choices)} options where there must be {len(OPTIONS)}")
            yield Row(
                line=1,
                id=(article_id, number),
                texts=(f"{text} {question}", " </sep> ".join(choices)),
                label=answer,
                where=where,
                question_start=len(text),
            )


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise BortError(f"{path}: not UTF-8: {error.reason} at byte {error.start}") from error


def _task(name: str, levels: tuple[str, ...], sizes: tuple[int, int, int], breakdown: tuple[str, ...] = ()) -> Task:
    train, dev, test = sizes
    return Task(
        name=name,
        benchmark="RACE",
        folders=("race",),
        segments=(
            Segment("train", "train", Article(), train, unit="questions", subfolders=levels),
            Segment("dev", "dev", Article(), dev, unit="questions", subfolders=levels),
            Segment("test", "test", Article(), test, f"{name}.jsonl", unit="questions", subfolders=levels),
        ),
        labels=OPTIONS,
        metrics=("accuracy", *breakdown),
        breakdown=breakdown,
        prediction_format=race_answers,
    )


RACE = (
    _task("RACE-H", ("high",), (62445, 3451, 3498)),
    _task("RACE-M", ("middle",), (25421, 1436, 1436)),
    _task("RACE", ("high", "middle"), (87866, 4887, 4934), ("accuracy_high", "accuracy_middle")),
)
