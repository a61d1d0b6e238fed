"""Sweeps of ``bort finetune``: many runs from one command, on several seeds and over a grid of settings."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bort.cli.options import given_options
from bort.cli.starting_point import download_rows, find_settings, find_start, find_task, fit_length
from bort.errors import BortError

if TYPE_CHECKING:
    from bort.tasks import Task
    from bort.training.grid import Point

_KEEP_MODELS = ("best", "all")
_MOST_ROWS, _MOST_NAMES = 20, 10
# What is the sweep's own; and what does not decide the outcome of a run, so that it may change when a sweep is resumed.
_OF_THE_SWEEP = ("seeds", "grid", "jobs", "ray", "keep_models", "output_dir", "download")
_OF_NO_CONSEQUENCE = ("log_interval", "ckpt_interval", "keep_last", "resume", "cache_dir")
_GRID_HELP = "YAML file of option: [values], one run per combination; or the word published for the published grid of 480"
_MODELS_HELP = "whose best/ to keep: that of the best run, which is the default, or of all runs"


def add_arguments(parser: argparse._ArgumentGroup) -> None:
    """Options that make a sweep."""
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="one run per seed, in --output_dir's runs/, and a report of all")
    parser.add_argument("--grid", metavar="FILE", help=_GRID_HELP)
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at the same time; by default one per core, or with --gpu one per GPU")
    parser.add_argument("--ray", metavar="ADDRESS", help="run on Ray: local, auto, or host:port of a cluster")
    parser.add_argument("--keep_models", choices=_KEEP_MODELS, help=_MODELS_HELP)


def is_wanted(arguments: argparse.Namespace) -> bool:
    """Whether an option of a sweep is given."""
    return any(getattr(arguments, name) is not None for name in ("seeds", "grid", "jobs", "ray", "keep_models"))


def run(arguments: argparse.Namespace) -> None:
    """Run the sweep, or what is left of it, and print its report.

    Raises:
        BortError: at the end, if runs have failed.
    """
    from bort.bench.report import print_table
    from bort.training.grid import grid_points, read_grid
    from bort.training.lock import only_process
    from bort.training.sweep import best_run, remember_sweep, run_sweep
    from bort.training.sweep_folder import RUNS_FOLDER, read_runs
    from bort.training.sweep_processes import LOG_FILE, LocalWorkers
    from bort.training.sweep_report import COLUMNS, REPORT_FILE, write_report

    if arguments.seeds is None and arguments.grid is None:
        raise BortError("--jobs, --ray and --keep_models are for sweeps; give --seeds or --grid too")
    if int(os.environ.get("HOROVOD_SIZE", "1")) > 1:
        raise BortError("a sweep starts its own processes, one per run; leave horovodrun out")
    if arguments.resume != "auto":
        raise BortError(
            f"--resume {arguments.resume}: a sweep always resumes; to train from the start, remove {arguments.output_dir}, or give another "
            "--output_dir"
        )
    task = find_task(arguments)
    points = grid_points(read_grid(arguments.grid) if arguments.grid else {}, arguments.seeds)
    given = given_options(arguments)
    base = _options(arguments, given)
    for name in points[0].values:
        if name in given:
            raise BortError(f"--{name} is given, and so are its values in the sweep; leave one of the two out")
    _check_every_run(arguments, task, points, given)
    output = Path(arguments.output_dir)
    if arguments.ray is not None:
        from bort.training.sweep_ray import RayWorkers

        workers: LocalWorkers | RayWorkers = RayWorkers(arguments.ray, arguments.jobs, arguments.gpu)
    else:
        workers = LocalWorkers(arguments.jobs, arguments.gpu)

    def command_of(point: Point, folder: Path) -> list[str]:
        return ["-m", "bort", "finetune", *_words(arguments.parser, base | dict(point.values) | {"output_dir": str(folder)})]

    with only_process(output, "sweep"):
        points, known = remember_sweep(output, {name: value for name, value in base.items() if name not in _OF_NO_CONSEQUENCE}, points)
        if arguments.download:
            download_rows(task)
        keep_models, keep_checkpoints = arguments.keep_models or "best", arguments.keep_last == 0
        failed = run_sweep(points, command_of, output, workers, keep_models, keep_checkpoints, f"sweep {task.name}")
        report = write_report(output, task.name, known, failed)
    more = len(report.rows) - _MOST_ROWS
    notes = [report.headline(), *report.notes()]
    if (best := best_run(output, read_runs(output, points[0].values))) is not None:
        notes.append(f"best single run in {best}")
    notes.append((f"{more} more settings and all else" if more > 0 else "report") + f" in {output / REPORT_FILE}")
    print_table(f"fine-tuning on {task.name}", COLUMNS, [row.cells() for row in report.rows[:_MOST_ROWS]], notes)
    if failed:
        names = "; ".join(list(failed)[:_MOST_NAMES]) + (f" and {len(failed) - _MOST_NAMES} more" if len(failed) > _MOST_NAMES else "")
        raise BortError(
            f"{len(failed)} of {len(points)} runs failed: {names}; see {LOG_FILE} in their folders in {output / RUNS_FOLDER}, "
            "the same command tries them again"
        )


def _check_every_run(arguments: argparse.Namespace, task: Task, points: Sequence[Point], given: set[str]) -> None:
    """Refuse at once, before there is a folder, what a single run would refuse.

    Raises:
        BortError: if a setting, given or in the grid, is out of range or not for this task, device or encoder; if the rows are not there
            and not to be fetched, or there is no such encoder.
    """
    # Made one at a time, as there may be many.
    for run_arguments in (_of_run(arguments, point) for point in points):
        find_settings(run_arguments, task)
    if not arguments.download:
        for segment in (*task.segment_names("train"), *task.segment_names("dev")):
            task.path(segment)
    start = find_start(arguments, task, given | set(points[0].values))
    for run_arguments in (_of_run(arguments, point) for point in points):
        fit_length(find_settings(run_arguments, task)[0], run_arguments, start)


def _of_run(arguments: argparse.Namespace, point: Point) -> argparse.Namespace:
    """The options of one run of a sweep."""
    return argparse.Namespace(**vars(arguments) | dict(point.values))


def _options(arguments: argparse.Namespace, given: set[str]) -> dict[str, Any]:
    """Values of the given options that all runs share, but for those that are the defaults, by name."""
    values = {name: getattr(arguments, name) for name in sorted(given - set(_OF_THE_SWEEP))}
    return {name: value for name, value in values.items() if value != arguments.parser.get_default(name)}


def _words(parser: argparse.ArgumentParser, options: Mapping[str, Any]) -> list[str]:
    """Options as they would be typed; the first form of each is its name."""
    words = []
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not False:
            words.append(f"--{name}={value}")
        elif parser.get_default(name):
            # A flag that is off by default has no such form, and needs none.
            words.append(f"--no-{name}")
    return words
