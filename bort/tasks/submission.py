"""A benchmark's prediction files, gathered, judged and packed for its leaderboard.

Notable: everything that is wrong or missing is found at once and handed back as values; a zip is written of the bytes that were judged, and
only if nothing is wrong. The same files make the same zip: names are sorted and dates fixed. Where ``fill_majority`` completes a partial
submission, the zip holds no word of it, because a leaderboard may refuse a file it does not know; ``FILLED.txt`` beside the zip says so.
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

# RACE has one file for both of its levels, or one for each.
_WHOLE, _LEVELS = "RACE.jsonl", ("RACE-H.jsonl", "RACE-M.jsonl")


@dataclass
class Submission:
    """What would be handed in.

    Attributes:
        benchmark: ``GLUE``, ``SuperGLUE`` or ``RACE``.
        files: contents of the prediction files that are as they should be, by name.
        filled: those of them that no model made, and the answer that they hold instead.
        problems: everything that is wrong or missing; a submission without any is complete.
        notices: what a leaderboard would object to although the files fit the data at hand.
    """

    benchmark: str
    files: dict[str, bytes] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)


def check_submission(benchmark: str, folder: Path | str, data_root: Path | str | None = None, fill_majority: bool = False) -> Submission:
    """Gather a benchmark's prediction files and judge them against its test files.

    Args:
        benchmark: its name, whatever the case.
        folder: holds the files, or runs that do, as ``find_prediction_files`` looks for them.
        data_root: as in ``get_task``.
        fill_majority: put what the commonest class of the training file would predict in the place of a missing file.

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
    """Write the zip, its files at the top, and say in ``FILLED.txt`` beside it what in it no model has made.

    The note has a line for each filled file of each zip in the folder: a second benchmark's zip does not wipe out what the first's says.

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
        # The note is never behind the zip: what is filled now comes before the zip does, and what was filled in an older one goes after.
        _write_note(path, submission.filled, keep_old=True)
    _write_note(path, submission.filled, keep_old=False)


def _wanted_files(tasks: Sequence[Task], places: Mapping[str, Sequence[Path]], problems: list[Problem]) -> dict[str, tuple[Task, Segment]]:
    """Names of the files that make a submission, and what they answer."""
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
            source = task.predicted_by or task.name
            submission.problems.append(
                Problem(name, None, f"cannot be filled without the training file: {error}", f"fetch it: bort tasks download {source}")
            )


def _test_rows(submission: Submission, task: Task, segment: Segment, name: str) -> list[Example] | None:
    """The rows a file answers, with a notice if they are not all; None, and a problem, if they cannot be read."""
    try:
        with warnings.catch_warnings():
            # The notice says the same, and of a sample too.
            warnings.simplefilter("ignore")
            examples = task.examples(segment.name)
    except BortError as error:
        what = f"cannot be judged without the test file: {error}"
        submission.problems.append(Problem(name, None, what, f"fetch it: bort tasks download {task.name}"))
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
    # A line of its own for each, whatever the name of the zip holds.
    zip_name = on_one_line(path.name)
    new = [f"{zip_name}: {name}: no model's predictions; every answer is {answer}" for name, answer in filled.items()]
    kept = [line for line in old if line not in new and (keep_old or not line.startswith(f"{zip_name}: "))]
    if kept or new:
        write_text(note, "".join(f"{line}\n" for line in kept + new))
    elif old:
        note.unlink()
