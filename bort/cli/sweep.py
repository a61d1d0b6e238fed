"""Sweeps of ``bort finetune``: options that make of one command many runs, on several seeds and over a grid of settings."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bort.cli.options import get_settings
from bort.errors import BortError
from bort.settings import FinetuningRunSettings, FinetuningSettings, OptimizerSettings

if TYPE_CHECKING:
    from bort.tasks import Task

_KEEP_MODELS = ("best", "all")
_MOST_ROWS, _MOST_NAMES = 20, 10
# What is the sweep's own; and what does not decide the outcome of a run, so that it may change when a sweep goes on.
_OF_THE_SWEEP = ("seeds", "grid", "jobs", "ray", "keep_models", "output_dir", "download")
_OF_NO_CONSEQUENCE = ("log_interval", "ckpt_interval", "keep_last", "resume", "cache_dir")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options that make a sweep."""
    parser.add_argument("--seeds", nargs="+", type=int, metavar="N", help="a run for each seed, in DIR/runs/, and a report of all")
    parser.add_argument("--grid", metavar="FILE", help="YAML file with lists of settings, a run for each combination; or published")
    parser.add_argument("--jobs", type=int, metavar="N", help="runs at once in a sweep; by default one a core, or with --gpu one a GPU")
    parser.add_argument("--ray", metavar="ADDRESS", help="carry a sweep out on Ray: local, auto, or host:port of a cluster")
    parser.add_argument(
        "--keep_models", choices=_KEEP_MODELS, help="best/ of the best run of a sweep alone, which is the default, or of all of them"
    )


def is_wanted(arguments: argparse.Namespace) -> bool:
    """Whether an option of a sweep is given."""
    return any(getattr(arguments, name) is not None for name in ("seeds", "grid", "jobs", "ray", "keep_models"))


def run(arguments: argparse.Namespace) -> None:
    """Run the sweep, or what is left of it, and print its report.

    Raises:
        BortError: at the end, if runs have failed.
    """
    from bort.bench.report import print_table
    from bort.cli.finetune import download_rows
    from bort.tasks import get_task
    from bort.training.grid import Point, grid_points, read_grid
    from bort.training.lock import only_process
    from bort.training.sweep import best_run, remember_sweep, run_sweep
    from bort.training.sweep_processes import LOG_FILE, LocalWorkers
    from bort.training.sweep_report import COLUMNS, REPORT_FILE, RUNS_FOLDER, read_runs, write_report

    if arguments.seeds is None and arguments.grid is None:
        raise BortError("--jobs, --ray and --keep_models are for sweeps; give --seeds or --grid too")
    if int(os.environ.get("HOROVOD_SIZE", "1")) > 1:
        raise BortError("a sweep starts its own processes, one a run; leave horovodrun out")
    if arguments.resume != "auto":
        raise BortError(
            f"--resume {arguments.resume}: a sweep always goes on where it was; to begin anew, remove {arguments.output_dir}, or give "
            "another --output_dir"
        )
    task = get_task(arguments.task, arguments.data_root)
    points = grid_points(read_grid(arguments.grid) if arguments.grid else {}, arguments.seeds)
    base, given = _options(arguments), _given(sys.argv[1:])
    for name in points[0].values:
        if name in base or name in given:
            raise BortError(f"--{name} is given, and so are its values in the sweep; leave one of the two out")
    _check_every_run(arguments, task)
    output = Path(arguments.output_dir)
    if arguments.ray is not None:
        from bort.training.sweep_ray import RayWorkers

        workers: LocalWorkers | RayWorkers = RayWorkers(arguments.ray, arguments.jobs, arguments.gpu)
    else:
        workers = LocalWorkers(arguments.jobs, arguments.gpu)

    def command_of(point: Point, folder: Path) -> list[str]:
        return ["-m", "bort", "finetune", *_words(base | dict(point.values) | {"output_dir": str(folder)})]

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


def _check_every_run(arguments: argparse.Namespace, task: Task) -> None:
    """Refuse at once, before there is a folder, what every single run would refuse.

    Raises:
        BortError: if the task has no training rows, they are not there and not to be fetched, there is no such encoder, or a setting is
            out of range.
    """
    from bort.cli.finetune import find_start
    from bort.tasks.recipes import recipe

    recommended = asdict(recipe(task.name))
    for settings in (FinetuningSettings, OptimizerSettings, FinetuningRunSettings):
        get_settings(settings, arguments, recommended)
    if not arguments.download:
        for segment in (*task.segment_names("train"), *task.segment_names("dev")):
            task.path(segment)
    find_start(arguments, task)


def _parser() -> argparse.ArgumentParser:
    from bort.cli import finetune

    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finetune.add_arguments(parser)
    return parser


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of every run that are not left at their defaults, by name."""
    options = {}
    for action in _parser()._actions:
        value = getattr(arguments, action.dest, action.default)
        if action.dest not in _OF_THE_SWEEP and value != action.default:
            options[action.dest] = value
    return options


def _given(words: Sequence[str]) -> set[str]:
    """Names of the options in a command line, also of those that have their default's value there."""
    parser = _parser()
    for action in parser._actions:
        action.default, action.required = argparse.SUPPRESS, False
    for group in parser._mutually_exclusive_groups:
        group.required = False
    return set(vars(parser.parse_known_args(words)[0]))


def _words(options: dict[str, Any]) -> list[str]:
    """Options as they would be typed."""
    actions = {action.dest: action for action in _parser()._actions}
    words = []
    for name, value in options.items():
        option = actions[name].option_strings[0]
        if value is True:
            words.append(option)
        elif value is False:
            # A flag that is off by default has no such form, and needs none.
            words += [f"--no-{name}"] if f"--no-{name}" in actions[name].option_strings else []
        else:
            words.append(f"{option}={value}")
    return words
