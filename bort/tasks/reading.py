"""Reads benchmark files into raw rows: tab-separated tables and JSON lines, as the benchmarks publish them.

Notable: a table's cell is what stands between two tabs, quotes included (``csv.QUOTE_NONE``), and a line ends at a line feed alone, so a
quotation mark or a stray separator inside a sentence never shifts a row. Columns are found by their names in the header: MNLI's label, for
one, is column 11 of the training file and column 15 of the development files. Everything that is wrong with a file is an error that names
the file and the line.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from bort.errors import BortError
from bort.tasks.json_fields import JsonObject

ExampleId = int | str | tuple[int | str, ...]
"""What a leaderboard calls a row; where its file nests rows, their keys, the outermost first: MultiRC's (passage, question, answer)."""


@dataclass(frozen=True)
class Row:
    """One row, its label still as the file has it.

    Attributes:
        line: line of the file, from 1.
        id: the row's number in its file from 0, or the ``idx`` it carries; rows that are answered together share it.
        texts: the texts a model reads, one or two.
        label: the label as the file has it; None if it has none.
        where: file, line and so on, as an error names them; rows that share an ``id`` share it.
        candidate, answers, question_start: as in ``Example`` (bort/tasks/task.py).
    """

    line: int
    id: ExampleId
    texts: tuple[str, ...]
    label: object
    where: str
    candidate: str | None = None
    answers: tuple[str, ...] = ()
    question_start: int | None = None


class Layout(Protocol):
    """How the rows of one kind of file are laid out."""

    def rows(self, path: Path, labelled: bool) -> Iterator[Row]:
        """Rows of ``path`` in order; ``labelled`` says whether every row must have a label.

        Raises:
            BortError: if the file cannot be read or is laid out otherwise; names the file and the line.
        """


@dataclass(frozen=True)
class Table:
    """A tab-separated file.

    Args:
        texts: names of the columns that hold the texts.
        label: name of the column that holds the label.
        header: names of all columns where the file does not begin with them.
        skip_short: leave out rows that end before the last column needed, with a warning of how many; otherwise they are errors.
    """

    texts: tuple[str, ...]
    label: str
    header: tuple[str, ...] | None = None
    skip_short: bool = False

    def rows(self, path: Path, labelled: bool) -> Iterator[Row]:
        """As ``Layout.rows``; ``id`` counts the rows that are returned, from 0."""
        lines = read_lines(path)
        header = self.header or tuple(next(lines, (1, ""))[1].split("\t"))
        for name in (*self.texts, self.label):
            if name not in header and (labelled or name != self.label):
                raise BortError(f'{path}, line 1: the header has no column "{name}"; it has {", ".join(header):.200}')
            if header.count(name) > 1:
                raise BortError(f'{path}, line 1: the header has the column "{name}" {header.count(name)} times')
        text_columns = [header.index(name) for name in self.texts]
        label_column = header.index(self.label) if self.label in header else None
        width = 1 + max(*text_columns, -1 if label_column is None else label_column)
        short: list[int] = []
        count = 0
        for line, text in lines:
            cells = text.split("\t")
            if len(cells) > len(header):
                # What follows a tab within a text would be lost, or taken for the next column.
                raise BortError(f"{path}, line {line}: {len(cells)} columns where there are {len(header)}; a text can hold no tab")
            if len(cells) >= width:
                label = None if label_column is None else cells[label_column]
                yield Row(line, count, tuple(cells[column] for column in text_columns), label, f"{path}, line {line}")
                count += 1
            elif self.skip_short:
                short.append(line)
            else:
                raise BortError(f"{path}, line {line}: {len(cells)} columns where at least {width} are needed")
        if short:
            warnings.warn(f"{path}: left out {len(short)} rows with fewer than {width} columns, the first at line {short[0]}", stacklevel=2)


def _as_they_are(*texts: str) -> tuple[str, ...]:
    return texts


@dataclass(frozen=True)
class JsonLines:
    """A file with one JSON object per line, each with an ``idx`` and, where it is labelled, a ``label``.

    Args:
        fields: names of the fields that hold text; ``target.span1_text`` is a field of the object in ``target``.
        compose: makes the texts that a model reads from the values of ``fields``, in their order; its BortErrors need not say where.
    """

    fields: tuple[str, ...]
    compose: Callable[..., tuple[str, ...]] = _as_they_are

    def rows(self, path: Path, labelled: bool) -> Iterator[Row]:
        """As ``Layout.rows``; ``id`` is the row's own ``idx``, which may be written as a string."""
        for line, text in read_lines(path):
            row = JsonObject.parse(text, f"{path}, line {line}")
            label = row.require("label") if labelled else row.values.get("label")
            yield Row(line, row.number("idx"), self.texts(row), label, row.where)

    def texts(self, row: JsonObject) -> tuple[str, ...]:
        """The texts that a model reads of one object.

        Raises:
            BortError: if a field is missing, holds no text or cannot be composed.
        """
        values = [row.text(name) for name in self.fields]
        try:
            return self.compose(*values)
        except BortError as error:
            raise BortError(f"{row.where}: {error}") from error


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield (number from 1, text) of every line, without byte-order mark, line ends and blank lines at the end of the file.

    Raises:
        BortError: if the file cannot be read, is not UTF-8 or has a blank line between rows.
    """
    blank = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                line = line.removesuffix(b"\n").removesuffix(b"\r")
                if not line:
                    blank = blank or number
                    continue
                if blank:
                    raise BortError(f"{path}, line {blank}: a blank line between rows")
                try:
                    yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise BortError(f"{path}, line {number}: not UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}") from error
