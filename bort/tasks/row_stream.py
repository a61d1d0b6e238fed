"""Rows from a file or a pipe that may never end: tab-separated texts or JSON lines, as examples with the ids they came with.

Notable: rows come in groups of what has arrived, so that a slow pipe is answered at once and a fast one in large batches; memory depends on
the largest group and not on the length of the input. Blank lines at the end are ignored; one between rows is an empty text (the tasks' own
files refuse it). Every row is labelled on its own.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bort.errors import BortError
from bort.tasks.json_fields import JsonObject
from bort.tasks.reading import JsonLines, Table
from bort.tasks.task import Example, Task

_BLOCK = 2**20
_LONGEST_ROW = 2**24
_MOST_ROWS = 2**18
_ID_FIELDS = ("idx", "id", "index")
_ENDINGS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".tsv": "tsv"}


@dataclass(frozen=True)
class StreamedRow:
    """One row to label.

    Attributes:
        id: the row's own ``idx``, ``id`` or ``index``, any JSON value; its number from 0 where it has none.
        example: its texts.
    """

    id: Any
    example: Example


def row_format(name: str, first_bytes: bytes) -> str:
    """``tsv`` or ``jsonl``: by the file's ending or, where that says neither, by whether the first row begins like a JSON object.

    Args:
        name: the file's name, or that of a stream.
        first_bytes: of the input; may be empty.
    """
    ending = os.path.splitext(name)[1].lower()
    return _ENDINGS.get(ending) or ("jsonl" if first_bytes.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"{") else "tsv")


def read_rows(descriptor: int, name: str, task: Task, form: str = "auto") -> Iterator[tuple[str, list[StreamedRow], int]]:
    """Yield (format, rows, bytes read for them) of each group of rows that has arrived, in order; no group is empty.

    Args:
        descriptor: open for reading.
        name: of the input, for messages.
        task: says how many texts a row has, and under which names a JSON object may hold them.
        form: ``tsv``, ``jsonl``, or ``auto`` for what ``row_format`` says.

    Raises:
        BortError: if a row is not UTF-8, is too long, or does not have the texts of the task; names the line.
    """
    number = blank = waiting = 0
    for lines, size in _arriving_lines(descriptor, name):
        waiting += size
        if number == blank == 0:
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        rows: list[StreamedRow] = []
        for line in lines:
            line = line.removesuffix(b"\r")
            if not line:
                blank += 1
                continue
            form = row_format(name, line) if form == "auto" else form
            for row in itertools.chain(itertools.repeat(b"", blank), [line]):
                if len(rows) == _MOST_ROWS:
                    yield form, rows, 0
                    rows = []
                try:
                    rows.append(_row(row, form, f"{name}, line {number + 1}", task, number))
                except BortError:
                    # The rows before a bad one are answered, whether or not they arrived together with it.
                    if rows:
                        yield form, rows, 0
                    raise
                number += 1
            blank = 0
        if rows:
            yield form, rows, waiting
            waiting = 0


def _arriving_lines(descriptor: int, name: str) -> Iterator[tuple[list[bytes], int]]:
    """Yield the whole lines of each block that a read returns, and the bytes read since the last yield; the last line may be unended."""
    rest, size, count = b"", 0, 0
    # A read returns what a pipe holds, and waits only where it holds nothing.
    while block := os.read(descriptor, _BLOCK):
        size += len(block)
        *lines, rest = (rest + block).split(b"\n")
        if len(rest) > _LONGEST_ROW:
            raise BortError(f"{name}, line {count + len(lines) + 1}: longer than {_LONGEST_ROW >> 20} MiB; is this a file of rows?")
        if lines:
            yield lines, size
            count, size = count + len(lines), 0
    if rest:
        yield [rest], size


def _row(line: bytes, form: str, where: str, task: Task, number: int) -> StreamedRow:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BortError(f"{where}: not UTF-8 at byte {error.start} of the line; convert the file first") from None
    return _json_row(text, where, task, number) if form == "jsonl" else _table_row(text, where, task, number)


def _num_texts(task: Task) -> int:
    return 2 if task.is_pair else 1


def _table_row(text: str, where: str, task: Task, number: int) -> StreamedRow:
    texts = tuple(text.split("\t"))
    if len(texts) != _num_texts(task):
        raise BortError(f"{where}: {len(texts)} tab-separated texts, the task has {_num_texts(task)}")
    return StreamedRow(number, Example(number, texts, None, number + 1))


def _json_row(text: str, where: str, task: Task, number: int) -> StreamedRow:
    row = JsonObject.parse(text, where)
    name = next((row.values[field] for field in _ID_FIELDS if field in row.values), number)
    return StreamedRow(name, Example(number, texts_of(row, task), None, number + 1))


def texts_of(row: JsonObject, task: Task) -> tuple[str, ...]:
    """A row's texts under general names or, without those, under the names of the task's own files.

    Raises:
        BortError: if it has neither, or one is not a text.
    """
    general = ("text1", "text2") if task.is_pair else ("text",)
    if any(name in row.values for name in general):
        return tuple(row.text(name) for name in general)
    layout = task.segments[-1].layout
    if isinstance(layout, JsonLines):
        return layout.texts(row)
    if isinstance(layout, Table) and any(name in row.values for name in layout.texts):
        return tuple(row.text(name) for name in layout.texts)
    raise BortError(f"{row.where}: no texts; give {task.name} rows with {' and '.join(general)}")
