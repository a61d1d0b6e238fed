"""What every benchmark says in the same way: the machine, spreads of samples, a table for people and one JSON line for programs."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from bort.files import write_text

_WIDTH_OF_A_FILE = 140


@dataclass(frozen=True)
class Spread:
    """Median and range of repeated measurements.

    Attributes:
        median, least, most: of the samples, in their unit.
        samples: in the order in which they were taken.
    """

    median: float
    least: float
    most: float
    samples: tuple[float, ...]

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of at least one sample."""
        return cls(statistics.median(samples), min(samples), max(samples), tuple(samples))

    def __str__(self) -> str:
        return f"{_short(self.median)} ({_short(self.least)}–{_short(self.most)})"


def machine_line(machine: Mapping[str, Any]) -> str:
    """What :func:`bort.machine.describe_machine` found, on one line."""
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    flags = f" ({', '.join(machine['cpu_flags'])})" if machine["cpu_flags"] else ""
    return (
        f"{machine['cores']} cores of {machine['cpu']}{flags}, {machine['memory_gb']} GB, {machine['system']}, "
        f"Python {machine['python']}, {versions}"
    )


def table_console() -> Console:
    """Standard output for tables of texts as they are: as wide as the terminal, or as a file can be read."""
    return Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else _WIDTH_OF_A_FILE)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str] = ()) -> None:
    """Print a table, its first column to the left and the others to the right, and notes below it."""
    console = table_console()
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    for row in rows:
        table.add_row(*row)
    console.print(table)
    for note in notes:
        print(note)


def write_json_line(record: Mapping[str, Any], path: Path | str | None) -> None:
    """Print a record as one line of JSON, and write the line to a file as well, if one is given, whole or not at all."""
    line = json.dumps(record, ensure_ascii=False, allow_nan=False)
    print(line)
    if path is not None:
        write_text(path, line + "\n")


def _short(value: float) -> str:
    """Three figures or more, without an exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
