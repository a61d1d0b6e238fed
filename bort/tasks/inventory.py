"""Reports which of a task's files are present, their rows against the official counts, and what is wrong with them."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path

from bort.errors import BortError
from bort.tasks.reading import Table
from bort.tasks.task import Segment, Task

_READ_WHOLE = 16 << 20  # bytes of a segment up to which a quick look reads every row
_MANY_FILES = 1000


@dataclass(frozen=True)
class SegmentState:
    """What was found of one segment.

    Attributes:
        name: of the segment.
        path: its file or folder; None if it is not there, or looking is not permitted.
        size: how many of its unit it has; None if it is not there, damaged, or in too many files for a quick look.
        rows_read: whether every row was read and found in order; False if only lines or files were counted.
        damage: what is wrong with it; None if nothing is.
        notes: what is odd, but can be read.
    """

    name: str
    path: Path | None = None
    size: int | None = None
    rows_read: bool = False
    damage: str | None = None
    notes: tuple[str, ...] = ()


def inspect_segment(task: Task, segment_name: str, thorough: bool = False) -> SegmentState:
    """Look at one segment's files.

    Args:
        thorough: read every row; otherwise only the lines of a large file are counted, and in a folder of many files only the files.
    """
    segment, path = task.segment(segment_name), None
    try:
        if not task.is_present(segment_name):
            return SegmentState(segment_name)
        path = task.path(segment_name)
        files = task.files(segment_name)
        if not thorough and (len(files) > _MANY_FILES or sum(file.stat().st_size for file in files) > _READ_WHOLE):
            if segment.subfolders:
                return SegmentState(segment_name, path, notes=(f"{path}: {len(files)} files, not read",))
            return SegmentState(segment_name, path, _count_lines(path, segment))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            examples = task.examples(segment_name)
    except BortError as error:
        return SegmentState(segment_name, path, damage=str(error))
    except OSError as error:
        return SegmentState(segment_name, path, damage=f"{error.filename or path}: {error.strerror}")
    notes = tuple(str(warning.message) for warning in caught)
    return SegmentState(segment_name, path, segment.size(examples), True, notes=notes)


def _count_lines(path: Path, segment: Segment) -> int:
    """Lines of a file that hold rows: all but the header."""
    lines, last = 0, b"\n"
    with path.open("rb") as file:
        while portion := file.read(1 << 20):
            lines += portion.count(b"\n")
            last = portion[-1:]
    has_header = isinstance(segment.layout, Table) and segment.layout.header is None
    return lines + (last != b"\n") - has_header
