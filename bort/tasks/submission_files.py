"""Finds and reads the prediction files in a folder, or in the runs under it.

Notable: which of two files of one name is meant is never guessed: they are the same, byte for byte, or an error. Names that begin with a
full stop are skipped, so half a file that a killed run left behind is never submitted.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from bort.errors import BortError
from bort.tasks.submission_checks import MAX_FILE_BYTES, Problem

_FILL = "--fill_majority fills it in"


def find_prediction_files(folder: Path, problems: list[Problem]) -> dict[str, list[Path]]:
    """Tables and JSON lines by file name, in ``folder`` itself and in every folder called ``predictions`` under it, links included.

    Whatever has such a name counts: even a link that leads nowhere is a file that somebody wanted to submit.

    Args:
        folder: a folder of files, a run or a folder of runs.
        problems: gets one more for each folder that cannot be read.

    Raises:
        BortError: if ``folder`` is no folder.
    """
    if not folder.is_dir():
        raise BortError(f"{folder}: no such folder; give one that holds prediction files, or runs of bort finetune")

    def unreadable(error: OSError) -> None:
        problems.append(Problem(str(error.filename), None, f"cannot be read: {error.strerror}", "give a folder that you may read"))

    found: dict[str, list[Path]] = {}
    visited = set()
    for parent, folders, files in os.walk(folder, onerror=unreadable, followlinks=True):
        # A link may lead back up, or into a folder that was visited already.
        if os.path.realpath(parent) in visited:
            folders.clear()
            continue
        visited.add(os.path.realpath(parent))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        if Path(parent) == folder or os.path.basename(parent) == "predictions":
            for name in sorted([*files, *folders]):
                path = Path(parent, name)
                if path.suffix.lower() in (".tsv", ".jsonl") and not name.startswith("."):
                    found.setdefault(name, []).append(path)
    return found


def read_prediction_file(paths: Sequence[Path], problems: list[Problem]) -> bytes | None:
    """What the files of one name hold, cut just above ``MAX_FILE_BYTES``; None, and a problem, if they differ or one cannot be read."""
    contents = None
    for path in paths:
        # A link that leads nowhere, a folder, or a pipe, whose reading might never end.
        if not os.path.isfile(path):
            problems.append(Problem(str(path), None, "not a regular file", "put the prediction file in its place, or remove it"))
            return None
        try:
            with path.open("rb") as file:
                other = file.read(MAX_FILE_BYTES + 1)
        except OSError as error:
            problems.append(Problem(str(path), None, f"cannot be read: {error.strerror}", "give files that you may read"))
            return None
        if contents is not None and contents != other:
            problems.append(
                Problem(str(path), None, f"differs from {paths[0]}", "remove all but one, or give the folder of the run you mean")
            )
            return None
        contents = other
    return contents


def similar_file(name: str, found: Mapping[str, Sequence[Path]]) -> Path | None:
    """A file whose name differs from ``name`` only in capital and small letters, if there is one."""
    return next((paths[0] for other, paths in found.items() if other.casefold() == name.casefold()), None)


def missing_file(name: str, task_name: str, predicted_by: str | None, found: Mapping[str, Sequence[Path]]) -> Problem:
    """The problem that there is no file called ``name``, with the command that makes it."""
    if similar := similar_file(name, found):
        return Problem(name, None, "missing", f"rename {similar}")
    if predicted_by:
        return Problem(
            name, None, "missing", f"bort predict --checkpoint DIR --task {task_name} makes it with a model of {predicted_by}, {_FILL}"
        )
    return Problem(name, None, "missing", f"bort finetune --task {task_name} makes it, {_FILL}")
