"""Gathers, checks and packs a benchmark's prediction files for its leaderboard.

Notable: everything that is wrong or missing is found at once and returned as values; a zip is made of the very bytes that were checked, and
only if nothing is wrong. The same files make the same zip: names are sorted and dates fixed. Where ``fill_majority`` completes a partial
submission, the zip does not say so, because a leaderboard may refuse a file it does not know; ``FILLED.txt`` beside the zip does.
"""

from __future__ import annotations

import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bort.errors import BortError, on_one_line
from bort.files import whole_file, write_text
from bort.tasks.registry import TASKS, get_task
from bort.tasks.submission_checks import Problem, check_predictions
from bort.tasks.submission_files import find_prediction_files, missing_file, read_prediction_file, similar_file
from bort.tasks.submission_filling import majority_file
from bort.tasks.task import Example, Segment, Task

NOTE = "FILLED.txt"

_OFFICIAL = "put the official file there"

# RACE has one file for both of its levels, or one for each.
_WHOLE, _LEVELS = "RACE.jsonl", ("RACE-H.jsonl", "RACE-M.jsonl")


@dataclass
class Submission:
    """What would be submitted.

    Attributes:
        benchmark: ``GLUE``, ``SuperGLUE`` or ``RACE``.
        files: contents of the prediction files that are as they should be, by name.
        filled: those of them that no model made, by name, and the answer that they hold instead.
        problems: everything that is wrong or missing; a submission without any is complete.
        notices: what a leaderboard would object to although the files fit the data at hand.
    """

    benchmark: str
    files: dict[str, bytes] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check_submission(benchmark: str, folder: Path | str, data_root: Path | str | None = None, fill_majority: bool = False) -> Submission:
    """Gather a benchmark's prediction files and check them against its test files.

    Args:
        benchmark: its name, whatever the case.
        folder: holds the files, or runs that do, as ``find_prediction_files`` looks for them.
        data_root: as in ``get_task``.
        fill_majority: in place of a missing file, answer every row with the majority class of the training file.

    Raises:
        BortError: if there is no such benchmark, or ``folder`` is no folder.
    """
    tasks = [get_task(task.name, data_root) for task in TASKS if task.benchmark.casefold() == benchmark.casefold()]
    if not tasks:
        raise BortError(f'no benchmark "{benchmark}"; there are {", ".join(dict.fromkeys(task.benchmark for task in TASKS))}')
    submission = Submission(tasks[0].benchmark)
    places = find_prediction_files(Path(folder), submission.problems)
    wanted = _wanted_files(tasks, places, submission.problems)
    if fill_majority and not any(name in places for name in wanted):
        # A folder given by mistake must not become a submission.
        what = f"no prediction file of {submission.benchmark} to complete"
        submission.problems.append(Problem(str(folder), None, what, "give a folder with at least one"))
        fill_majority = False
    for name, (task, segment) in wanted.items():
        if name in places:
            _judge(submission, task, segment, name, places[name])
        elif fill_majority and similar_file(name, places) is None:
            _fill(submission, task, segment, name)
        else:
            submission.problems.append(missing_file(name, task.name, task.predicted_by, places))
    return submission


def write_submission(submission: Submission, path: Path | str) -> None:
    """Write the zip, with the files at its top, and say in ``FILLED.txt`` beside it which of them no model has made.

    ``FILLED.txt`` has a line for each filled file of each zip in the folder: a second zip does not wipe out the lines of the first.

    Raises:
        BortError: if the submission has problems.
    """
    if submission.problems:
        raise BortError(f"{submission.benchmark}: {len(submission.problems)} problems, the first: {submission.problems[0]}")
    path = Path(path)
    with whole_file(path) as partial:
        with zipfile.ZipFile(partial, "w") as archive:
            for name, contents in sorted(submission.files.items()):
                entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
                entry.create_system = 3
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, contents, zipfile.ZIP_DEFLATED, compresslevel=9)
        # The note is never behind the zip: lines are added before the zip appears, and those of an older zip are removed after.
        _write_note(path, submission.filled, keep_old=True)
    _write_note(path, submission.filled, keep_old=False)


def _wanted_files(tasks: Sequence[Task], places: Mapping[str, Sequence[Path]], problems: list[Problem]) -> dict[str, tuple[Task, Segment]]:
    """Names of the files that make a submission, and the segments that they answer."""
    wanted = {
        segment.leaderboard_file: (task, segment) for task in tasks for segment in task.segments if segment.leaderboard_file is not None
    }
    if _WHOLE not in wanted:
        return wanted
    levels = [name for name in _LEVELS if name in places]
    if _WHOLE in places and levels:
        what = f"stands beside {' and '.join(levels)}, for the same questions"
        problems.append(Problem(str(places[_WHOLE][0]), None, what, "remove either, or give the folder of the run you mean"))
    chosen = (_WHOLE, *levels) if _WHOLE in places else _LEVELS if levels else (_WHOLE,)
    return {name: wanted[name] for name in chosen}


def _judge(submission: Submission, task: Task, segment: Segment, name: str, paths: Sequence[Path]) -> None:
    examples = _test_rows(submission, task, segment, name)
    contents = read_prediction_file(paths, submission.problems)
    if examples is not None and contents is not None:
        found = check_predictions(task, examples, contents, str(paths[0]))
        submission.problems += found
        if not found:
            submission.files[name] = contents


def _fill(submission: Submission, task: Task, segment: Segment, name: str) -> None:
    examples = _test_rows(submission, task, segment, name)
    if examples is not None:
        try:
            submission.files[name], submission.filled[name] = majority_file(task, examples)
        except BortError as error:
            submission.problems.append(Problem(name, None, f"cannot be filled without the training file: {error}", _OFFICIAL))


def _test_rows(submission: Submission, task: Task, segment: Segment, name: str) -> list[Example] | None:
    """The rows that a file answers, with a notice if they are not as many as published; None, and a problem, if they cannot be read."""
    try:
        with warnings.catch_warnings():
            # The notice below says the same, and speaks of samples too.
            warnings.simplefilter("ignore")
            examples = task.examples(segment.name)
    except BortError as error:
        what = f"cannot be checked without the test file: {error}"
        submission.problems.append(Problem(name, None, what, _OFFICIAL))
        return None
    size = segment.size(examples)
    if size != segment.official_size:
        place = task.path(segment.name)
        submission.notices.append(
            f"{name}: {place} has {size} {segment.unit} where the official file has {segment.official_size}; "
            "a leaderboard takes predictions for the official file alone"
        )
    return examples


def _write_note(path: Path, filled: Mapping[str, str], keep_old: bool) -> None:
    note = path.parent / NOTE
    old = note.read_text("utf-8", errors="replace").splitlines() if note.is_file() else []
    # A name with a line end in it must not make two lines.
    zip_name = on_one_line(path.name)
    new = [f"{zip_name}: {name}: no model's predictions; every answer is {answer}" for name, answer in filled.items()]
    kept = [line for line in old if line not in new and (keep_old or not line.startswith(f"{zip_name}: "))]
    if kept or new:
        write_text(note, "".join(f"{line}\n" for line in kept + new))
    elif old:
        note.unlink()
