"""Checks the answer on one line of a prediction file: a label, a passage's answers, an entity or letters.

Every judge takes the task, the rows that the line answers (none where the test file has no such rows) and the value on the line, which may
be anything that JSON can write; it yields what is wrong, and the remedy.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

from bort.tasks.json_fields import shown
from bort.tasks.task import Example, Task

Judge = Callable[[Task, Sequence[Example], Any], Iterator[tuple[str, str]]]
_SCORE = re.compile(r"(?:0|[1-9][0-9]{0,8})\.[0-9]{3}")
IN_ORDER = "write one row for each row of the test file, in its order"


def judge_label(task: Task, rows: Sequence[Example], value: Any) -> Iterator[tuple[str, str]]:
    """A class as the leaderboard writes it; a score as a table writes it."""
    if not _is_answer(task, value):
        yield f"the label is {shown(value)}", f"write {_answers(task)}"


def judge_cell(task: Task, rows: Sequence[Example], value: str) -> Iterator[tuple[str, str]]:
    """A cell of a table: the text of a class, or a score with three decimals."""
    if not _is_answer(task, value):
        yield f"the prediction is {shown(value)}", f"write {_answers(task, str)}"


def judge_passage(task: Task, rows: Sequence[Example], value: Any) -> Iterator[tuple[str, str]]:
    """MultiRC's passage: all its questions with all their answers, nested and numbered as in the test file."""
    wanted: dict[int | str, list[int | str]] = {}
    for row in rows:
        _, question_id, answer_id = row.keys
        wanted.setdefault(question_id, []).append(answer_id)
    questions = _children(value, ("questions",), "questions")
    if questions is None:
        yield f"the passage is {shown(value)}", 'write {"questions": […]}'
        return
    found: list[int | None] = []
    for question in questions:
        answers = _children(question, ("idx", "answers"), "answers")
        if answers is None or type(question["idx"]) is not int:
            found.append(None)
            yield f"a question is {shown(question)}", 'write {"idx": number, "answers": […]}'
        else:
            found.append(question["idx"])
            yield from _judge_question(task, question["idx"], answers, wanted.get(question["idx"]))
    if wanted:
        yield from ((what, IN_ORDER) for _, what in differences(found, list(wanted), "question"))


def _judge_question(task: Task, question: int, answers: list[Any], wanted: list[int | str] | None) -> Iterator[tuple[str, str]]:
    found: list[int | None] = []
    for answer in answers:
        if fault(answer, ("idx", "label")) or type(answer["idx"]) is not int:
            found.append(None)
            yield f"question {question}: an answer is {shown(answer)}", 'write {"idx": number, "label": 0 or 1}'
        else:
            found.append(answer["idx"])
            for what, remedy in judge_label(task, (), answer["label"]):
                yield f"question {question}, answer {answer['idx']}: {what}", remedy
    if wanted is not None:
        yield from ((f"question {question}: {what}", IN_ORDER) for _, what in differences(found, wanted, "answer"))


def judge_entity(task: Task, rows: Sequence[Example], value: Any) -> Iterator[tuple[str, str]]:
    """ReCoRD's label: the text of one of the query's entities."""
    entities = [row.candidate for row in rows]
    if not isinstance(value, str):
        yield f"the label is {shown(value)}", "write the text of one of the query's entities"
    elif rows and value not in entities:
        some = ", ".join(shown(entity) for entity in entities[:3]) + (", …" if len(entities) > 3 else "")
        yield f"the label {shown(value)} is no entity of the query", f"write one of its {len(entities)}: {some}"


def judge_letters(task: Task, rows: Sequence[Example], value: Any) -> Iterator[tuple[str, str]]:
    """RACE's answers: a letter for each question of the article."""
    if not isinstance(value, list):
        yield f"the answers are {shown(value)}", "write a list of letters"
        return
    if rows and len(value) != len(rows):
        yield f"{len(value)} answers to {len(rows)} questions", "write one letter per question"
    for number, letter in enumerate(value, start=1):
        if not _is_answer(task, letter):
            yield f"answer {number} is {shown(letter)}", f"write {_answers(task)}"


def _is_answer(task: Task, value: object) -> bool:
    if task.is_regression:
        low, high = task.score_range
        return isinstance(value, str) and _SCORE.fullmatch(value) is not None and low <= float(value) <= high
    # JSON's true and 1 are equal in Python, but not in a file.
    return any(type(value) is type(label) and value == label for label in task.leaderboard_labels)


def _answers(task: Task, written: Callable[[object], str] = json.dumps) -> str:
    if task.is_regression:
        return "a number from {:g} to {:g} with three decimals".format(*task.score_range)
    return "one of " + ", ".join(written(label) for label in task.leaderboard_labels)


def differences(found: Sequence[Hashable], wanted: Sequence[Hashable], called: str) -> Iterator[tuple[int | None, str]]:
    """How two sequences of keys differ: keys that are unknown, repeated or missing or, if there are none, the first one out of order.

    Args:
        found: keys as a file has them; None for one that could not be read, and may be any.
        wanted: keys as they should be, each once.
        called: what a key is called.

    Yields:
        Position in ``found``, None for what is missing, and what is wrong.
    """
    known, seen, clean = set(wanted), Counter[Hashable](), True
    for position, key in enumerate(found):
        seen[key] += 1
        if key is not None and (key not in known or seen[key] > 1):
            clean = False
            yield position, f"{called} {shown(key)} {'stands here again' if key in known else 'is not in the test file'}"
    missing = [key for key in wanted if key not in seen]
    if len(missing) > seen[None]:
        clean = False
        some = ", ".join(shown(key) for key in missing[:5]) + (", …" if len(missing) > 5 else "")
        yield None, f"{called} {some} missing ({len(missing)} in all)"
    if clean:
        pairs = enumerate(zip(found, wanted, strict=False))
        wrong = [(position, key, due) for position, (key, due) in pairs if key is not None and key != due]
        for position, key, due in wrong[:1]:
            yield position, f"{called} {shown(key)} where {shown(due)} is due ({len(wrong)} rows out of order)"


def fault(value: object, fields: tuple[str, ...]) -> str | None:
    """Why a value is not an object with these fields and no others; None if it is one."""
    if not isinstance(value, dict):
        return "not a JSON object"
    missing, extra = [name for name in fields if name not in value], [name for name in value if name not in fields]
    if missing:
        return f'no field "{missing[0]}"'
    return f"a field {shown(extra[0])} too many" if extra else None


def _children(value: object, fields: tuple[str, ...], name: str) -> list[Any] | None:
    """The list in the field ``name`` of an object with ``fields`` and no others; None if there is no such object or list."""
    children = value[name] if isinstance(value, dict) and fault(value, fields) is None else None
    return children if isinstance(children, list) else None
