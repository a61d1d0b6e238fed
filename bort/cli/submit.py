"""Gather a benchmark's prediction files from a folder, or from the runs in it, check them against the test files, and zip them.

RACE takes RACE.jsonl, or RACE-H.jsonl and RACE-M.jsonl.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from bort.errors import BortError, on_one_line

HELP = "check prediction files, and zip them for a leaderboard"
_FOLDER_HELP = "folder with the prediction files, or with runs: every predictions/ under it is searched too"
_FILL_HELP = (
    "where a prediction file is missing, answer with the majority class of the training file; FILLED.txt beside the zip names these tasks"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("benchmark", choices=("glue", "superglue", "race"), help="the benchmark whose leaderboard takes the zip")
    parser.add_argument("folder", metavar="DIR", help=_FOLDER_HELP)
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")
    parser.add_argument(
        "--output", metavar="FILE.zip", help="the zip; by default glue.zip, superglue.zip or race.zip in the current folder"
    )
    parser.add_argument("--fill_majority", action="store_true", help=_FILL_HELP)


def run(arguments: argparse.Namespace) -> None:
    """Write the zip, or print everything that is wrong or missing, one line each, and write nothing."""
    from bort.tasks.submission import NOTE, check_submission, write_submission

    output = Path(f"{arguments.benchmark}.zip" if arguments.output is None else arguments.output)
    if output.suffix != ".zip":
        raise BortError(f'--output is "{output}"; give the name of a .zip')
    if not arguments.folder:
        raise BortError("DIR is empty; give the folder that holds the prediction files")
    submission = check_submission(arguments.benchmark, arguments.folder, arguments.data_root, arguments.fill_majority)
    for notice in submission.notices:
        print(f"bort: warning: {on_one_line(notice)}", file=sys.stderr)
    for problem in submission.problems:
        print(f"bort: error: {problem}", file=sys.stderr)
    if submission.problems:
        counted = "1 problem" if len(submission.problems) == 1 else f"{len(submission.problems)} problems"
        raise BortError(f"{submission.benchmark}: {counted}, named above; nothing is written until there are none")
    write_submission(submission, output)
    for name, answer in submission.filled.items():
        print(f"{name}: no model's predictions; every answer is {answer}")
    counted = "1 file" if len(submission.files) == 1 else f"{len(submission.files)} files"
    print(on_one_line(f"{submission.benchmark}: {counted} in {output}"))
    if submission.filled:
        counted = f"{len(submission.filled)} of {len(submission.files)}"
        print(on_one_line(f"filled in, not predicted: {counted}; {output.parent / NOTE} says which"))
