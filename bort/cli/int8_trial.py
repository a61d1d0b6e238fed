"""An INT8 export from its options: what to make, the rows to calibrate, check and time it with, and the table of what came of it."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bort.errors import BortError
from bort.machine import cpu_flags, has_vnni

if TYPE_CHECKING:
    from bort.export.int8 import Trial
    from bort.export.int8_check import Check
    from bort.export.source import Source
    from bort.tasks import Example

_CALIBRATION_ROWS, _TIMED_ROWS = 300, 40


def find_trial(arguments: argparse.Namespace, source: Source, kind: str) -> Trial:
    """What to try; everything that can be refused is refused here, before minutes of work.

    Args:
        kind: encoder, mlm or classifier.

    Raises:
        BortError: if an option is out of range or does not fit the model, rows are missing or damaged, or nothing can be made here.
    """
    from bort.export.int8 import Trial
    from bort.export.int8_candidates import find_candidates
    from bort.export.int8_check import Check
    from bort.export.int8_rows import Reader, draw

    if not 0 <= arguments.max_loss < math.inf:
        raise BortError(f"--max_loss must be a number of points from 0 on, got {arguments.max_loss}")
    reduced_range = _wants_reduced_range(arguments.reduced_range)
    check = None
    if arguments.check is not None:
        if source.task is None:
            raise BortError(f"{arguments.model}: a pre-trained model without a classifier, so --check has nothing to score; leave it out")
        check = Check.read(arguments.model, source.task, arguments.check, arguments.data_root)
    candidates = find_candidates(arguments.runtime, reduced_range)
    examples: list[Example] = []
    origin = ""
    if arguments.calibrate is not None or any(candidate.recipe for candidate in candidates):
        examples, origin = _calibration(arguments, source)
    if not examples and any(candidate.recipe for candidate in candidates):
        candidates = tuple(candidate for candidate in candidates if candidate.recipe is None)
        if not candidates:
            raise BortError("a model for OpenVINO needs rows to calibrate with; give --calibrate a file of texts, one a line")
        origin = " (with --calibrate FILE there would be models for OpenVINO too)"
    reader = Reader.of(kind, source.tokenizer, source.config, source.task)
    calibration = reader.inputs(draw(examples, _CALIBRATION_ROWS))
    if check is not None:
        timed = reader.inputs(draw(_all_rows(check), _TIMED_ROWS))
        timed_origin = f"{len(timed)} dev rows of {check.task.name}"
    elif calibration:
        timed, timed_origin = draw(calibration, _TIMED_ROWS), "rows of the calibration"
    else:
        timed, timed_origin = reader.random_inputs(), "random tokens"
    origins = {"calibration": f"{len(calibration)} {origin}" if calibration else f"nothing{origin}", "timed": timed_origin}
    return Trial(candidates, calibration, timed, check, arguments.max_loss, reduced_range, origins)


def _wants_reduced_range(asked: str) -> bool:
    can_add = has_vnni(cpu_flags())
    if asked == "no" and not can_add:
        raise BortError("--reduced_range no: this CPU has no VNNI, so such a model can be neither checked nor used here; leave it out")
    return asked == "yes" or not can_add


def _calibration(arguments: argparse.Namespace, source: Source) -> tuple[list[Example], str]:
    """Rows, and what they are; none where the model has no task and no file is given."""
    from bort.export.int8_rows import examples_of_file, training_examples
    from bort.training.prediction import trained_task

    task = None if source.task is None else trained_task(arguments.model, source.task, arguments.data_root)
    if arguments.calibrate is not None:
        return examples_of_file(Path(arguments.calibrate), task), f"rows of {arguments.calibrate}"
    return ([], "") if task is None else (training_examples(task), f"training rows of {task.name}")


def _all_rows(check: Check) -> list[Example]:
    return [example for rows in check.examples.values() for example in rows]


def show(report: Mapping[str, Any]) -> None:
    """Print what was measured, and on what."""
    from bort.bench.report import machine_line, print_table

    columns = ["", *(["points", "loss"] if report["check"] else []), "agreement", "MB", "ms"]
    rows = []
    for model in report["models"]:
        scores = [f"{model['points']:.2f}", f"{model['loss']:.2f}"] if report["check"] else []
        rows.append([model["name"], *scores, f"{model['agreement']:.4f}", f"{model['megabytes']:.1f}", f"{model['milliseconds']:.2f}"])
    verdict = (
        f"written: {report['written']}; the fastest that loses no more than {report['max_loss']:g} points"
        if report["check"]
        else f"written: {report['written']}; the fastest, and nothing was checked: --check TASK tells what a classifier loses"
    )
    origins = report["origins"]
    print_table(
        f"INT8 of {report['check'] or 'an unchecked model'}",
        columns,
        rows,
        [
            verdict,
            f"calibrated with {origins['calibration']}; timed on {origins['timed']}, one at a time, on {report['threads']} threads",
            machine_line(report["machine"]),
        ],
    )
