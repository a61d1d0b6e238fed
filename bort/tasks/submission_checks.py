"""Checks that a leaderboard will take a prediction file, against the rows of the test file.

Notable: how strict a leaderboard's own reader is, nobody outside knows. A file refused here costs a correction; a file refused there costs
one of a few submissions per month. So a file passes only as bort/tasks/leaderboard.py would write it: UTF-8 without a byte-order mark, line
feeds, no blank lines, these fields and no others, every row in the order of the test file, scores as ``0.979`` and not ``00.979``. Only the
last line feed may be missing, and JSON's own freedoms remain: white space between tokens, the order of fields, escapes in texts. Files
come from anywhere, so their size is bounded, and JSON with a repeated key, NaN or endless nesting is refused.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bort.errors import on_one_line
from bort.tasks.json_fields import refuse_constant, shown
from bort.tasks.leaderboard import glue_table, json_lines, multirc_answers, race_answers, record_answers
from bort.tasks.submission_answers import (
    IN_ORDER,
    Judge,
    differences,
    fault,
    judge_cell,
    judge_entity,
    judge_label,
    judge_letters,
    judge_passage,
)
from bort.tasks.task import Example, Task

MAX_FILE_BYTES = 16 * 2**20
"""More than four times the largest prediction file, QQP's."""
_MAX_LINE_BYTES = 2**20
_MOST_PROBLEMS = 20
_PLAIN_TEXT = "write the file as UTF-8 without a byte-order mark, lines ending in a line feed"


@dataclass(frozen=True)
class Problem:
    """Something that is wrong with a submission, or missing from it.

    Attributes:
        file: path of the file, or the name of one that is missing.
        line: its line, from 1; None where it is not one line's.
        what: what is wrong.
        remedy: what to do about it.
    """

    file: str
    line: int | None
    what: str
    remedy: str

    def __str__(self) -> str:
        """One line, whatever a file's name holds."""
        place = self.file if self.line is None else f"{self.file}, line {self.line}"
        return on_one_line(f"{place}: {self.what}; {self.remedy}")


@dataclass
class _Findings:
    """The problems of one file: the first ones, and how many follow."""

    file: str
    problems: list[Problem] = field(default_factory=list)
    more: int = 0

    def add(self, line: int | None, what: str, remedy: str) -> None:
        if len(self.problems) < _MOST_PROBLEMS:
            self.problems.append(Problem(self.file, line, what, remedy))
        else:
            self.more += 1


@dataclass(frozen=True)
class _Form:
    """A form of JSON lines: the field that names what a line answers, the field of the answer, and the judge of the answer."""

    key: str
    value: str
    judge: Judge


_FORMS: Mapping[Callable[[Task, Sequence[Example], Any], str], _Form] = {
    json_lines: _Form("idx", "label", judge_label),
    multirc_answers: _Form("idx", "passage", judge_passage),
    record_answers: _Form("idx", "label", judge_entity),
    race_answers: _Form("id", "answers", judge_letters),
}


def check_predictions(task: Task, examples: Sequence[Example], contents: bytes, file: str) -> list[Problem]:
    """What is wrong with a prediction file; empty if nothing is.

    Of a file with more than twenty problems, the first twenty and a count of the others are returned.

    Args:
        task: whose predictions they are.
        examples: rows of the test segment that the file answers, as ``task.examples`` gives them; at least one.
        contents: the file.
        file: its path, for the problems.
    """
    findings = _Findings(file)
    if task.prediction_format is glue_table:
        _check_table(task, examples, contents, findings)
    else:
        _check_json_lines(task, examples, contents, _FORMS[task.prediction_format], findings)
    rest = [Problem(file, None, f"{findings.more} more problems", "fix those above first")] if findings.more else []
    return findings.problems + rest


def _check_table(task: Task, examples: Sequence[Example], contents: bytes, findings: _Findings) -> None:
    lines = _lines(contents, 1 + len(examples), findings)
    if not lines:
        return
    (first, header), *rows = lines
    if header is not None and header != "index\tprediction":
        findings.add(first, f"the header is {shown(header)}", "write index, a tab, prediction")
    found: list[str | None] = []
    for number, row in rows:
        cells = [] if row is None else row.split("\t")
        found.append(cells[0] if len(cells) == 2 else None)
        if len(cells) == 2:
            for what, remedy in judge_cell(task, (), cells[1]):
                findings.add(number, what, remedy)
        elif cells:
            findings.add(number, f"the number of columns is {len(cells)}", "write the index, a tab and the prediction")
    _check_order([number for number, _ in rows], found, [str(example.id) for example in examples], "index", findings)


def _check_json_lines(task: Task, examples: Sequence[Example], contents: bytes, form: _Form, findings: _Findings) -> None:
    answered: dict[int | str, list[Example]] = {}
    for example in examples:
        answered.setdefault(example.keys[0], []).append(example)
    kind = type(next(iter(answered)))
    lines = _lines(contents, len(answered), findings)
    found: list[int | str | None] = []
    for number, line in lines:
        values = None if line is None else _parse(line, number, form, findings)
        key = None if values is None else values[form.key]
        found.append(key if type(key) is kind else None)
        if values is None:
            continue
        if type(key) is not kind:
            remedy = "write it as a whole number without quotes" if kind is int else "write it as text, as the test file has it"
            findings.add(number, f"the {form.key} is {shown(key)}", remedy)
        for what, remedy in form.judge(task, answered[key] if type(key) is kind and key in answered else (), values[form.value]):
            findings.add(number, what, remedy)
    if lines:
        _check_order([number for number, _ in lines], found, list(answered), form.key, findings)


def _parse(line: str, number: int, form: _Form, findings: _Findings) -> dict[str, Any] | None:
    """The object on a line, if it has the form's fields and no others."""
    try:
        values = json.loads(line, object_pairs_hook=_with_keys_once, parse_constant=refuse_constant)
        reason = fault(values, (form.key, form.value))
    except json.JSONDecodeError as error:
        reason = f"not JSON: {error.msg} at character {error.pos + 1}"
    except (ValueError, RecursionError) as error:
        reason = f"not JSON: {error}"
    if reason is None:
        return dict(values)
    findings.add(number, reason, f'write one object with "{form.key}" and "{form.value}"')
    return None


def _with_keys_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    twice = [key for key, count in Counter(key for key, _ in pairs).items() if count > 1]
    if twice:
        raise ValueError(f"the key {shown(twice[0])} stands twice")
    return dict(pairs)


def _lines(contents: bytes, wanted: int, findings: _Findings) -> list[tuple[int, str | None]]:
    """Number and text of every line that is not blank, None for a text that cannot be read; no lines at all if the file is hopeless."""
    if len(contents) > MAX_FILE_BYTES:
        findings.add(None, f"larger than {MAX_FILE_BYTES >> 20} MiB", "no prediction file is; write it again with bort predict")
        return []
    if contents.startswith(b"\xef\xbb\xbf"):
        findings.add(1, "a byte-order mark", _PLAIN_TEXT)
        contents = contents[3:]
    if b"\r" in contents:
        # A single one is white space to a reader of JSON, and a line end to other readers.
        findings.add(1 + contents[: contents.index(b"\r")].count(b"\n"), "a carriage return", _PLAIN_TEXT)
        contents = contents.replace(b"\r\n", b"\n")
    if not contents.strip(b"\n"):
        findings.add(None, "an empty file", "write it again with bort predict")
        return []
    contents = contents.removesuffix(b"\n")
    count = contents.count(b"\n") + 1
    if count > 2 * wanted + 100:
        findings.add(None, f"{count} lines where there must be {wanted}", IN_ORDER)
        return []
    lines: list[tuple[int, str | None]] = []
    for number, line in enumerate(contents.split(b"\n"), start=1):
        text = None
        if not line:
            findings.add(number, "a blank line", "remove it")
            continue
        if len(line) > _MAX_LINE_BYTES:
            findings.add(
                number, f"longer than {_MAX_LINE_BYTES >> 20} MiB", "no line of a prediction file is; write it again with bort predict"
            )
        else:
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                findings.add(number, f"not UTF-8: {error.reason} at byte {error.start}", _PLAIN_TEXT)
        lines.append((number, text))
    return lines


def _check_order(places: Sequence[int], found: Sequence[Any], wanted: Sequence[Any], called: str, findings: _Findings) -> None:
    if len(found) != len(wanted):
        findings.add(None, f"{len(found)} rows where the test file has {len(wanted)}", IN_ORDER)
    for position, what in differences(found, wanted, called):
        findings.add(None if position is None else places[position], what, IN_ORDER)
