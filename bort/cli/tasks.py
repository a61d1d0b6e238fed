"""List the tasks and their files, look at some closely, download them, or compare the scores of runs.

  bort tasks                   list all tasks, and which of their files are here
  bort tasks NAME...           describe these tasks, and check every row of their files
  bort tasks download NAME...  fetch their published files
  bort tasks scores DIR...     dev scores of the complete runs in these folders, and benchmark averages

The environment variable BORT_DATA_MIRROR names another place to fetch from: an http or https address, or a folder, with the published
paths below it.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import TYPE_CHECKING, Any

from bort.errors import BortError, on_one_line

if TYPE_CHECKING:
    from bort.tasks import Task
    from bort.tasks.inventory import SegmentState
    from bort.tasks.reading import Layout

HELP = "list tasks and their files, download them, compare scores of runs"
_NAMES_HELP = "tasks, or after the word scores folders of runs"
_BENCHMARKS = ("glue", "superglue", "race")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Options of the verb."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=_NAMES_HELP)
    parser.add_argument(
        "--benchmark",
        action="append",
        choices=_BENCHMARKS,
        default=[],
        help="all tasks of this benchmark, beside those named; may be given several times",
    )
    parser.add_argument("--data_root", metavar="DIR", help="folder with glue/, superglue/ and race/; by default $MXNET_HOME/datasets")
    parser.add_argument("--json", metavar="FILE", help="write what is printed to this file as well, as JSON; not with download")


def run(arguments: argparse.Namespace) -> None:
    """List, show, download or compare."""
    from bort.tasks import TASKS, get_task

    names = list(arguments.names)
    if names[:1] == ["scores"]:
        if not names[1:] or arguments.benchmark:
            raise BortError("scores needs folders of runs, as in bort tasks scores runs, and takes no --benchmark")
        _scores(names[1:], arguments.json)
        return
    fetches = names[:1] == ["download"]
    if fetches:
        names.pop(0)
    names += [task.name for task in TASKS if task.benchmark.lower() in arguments.benchmark]
    chosen = list(dict.fromkeys(get_task(name, arguments.data_root) for name in names))
    if not fetches:
        _list(chosen or [get_task(task.name, arguments.data_root) for task in TASKS], bool(arguments.names), arguments.json)
    elif not chosen:
        raise BortError("nothing to download; name tasks, as in bort tasks download CB, or give --benchmark")
    elif arguments.json:
        raise BortError("--json is for lists; leave it out with download")
    else:
        for task in chosen:
            _download(task)


def _scores(folders: list[str], json_file: str | None) -> None:
    from bort.bench.report import print_table
    from bort.files import write_text
    from bort.training.benchmark_table import averages, find_runs, summarise

    runs, notes = find_runs(folders)
    scores = summarise(runs)
    rows = []
    for row in scores:
        first, own = [row.task, str(row.runs)], f"{row.score:.4f}"
        for segment, metrics in row.dev.items():
            for metric, value in metrics.items():
                rows.append([*first, metric if len(row.dev) == 1 else f"{segment} {metric}", f"{value:.4f}", own])
                first, own = ["", ""], ""
    found = averages(scores)
    lines = [value if isinstance(value, str) else f"{name} {value:.4f}" for name, value in found.items()]
    print_table("dev scores, means over the runs of a task", ["", "runs", "metric", "mean", "task"], rows, [*notes, *lines])
    if json_file is not None:
        tasks = [dataclasses.asdict(row) | {"score": row.score} for row in scores]
        benchmarks = {name: None if isinstance(value, str) else value for name, value in found.items()}
        write_text(json_file, json.dumps({"tasks": tasks, "benchmarks": benchmarks, "notes": notes}, indent=2) + "\n")


def _download(task: Task) -> None:
    from bort.tasks.download import download

    report = download(task)
    if not report.fetched:
        print(on_one_line(f"{task.name}: complete already; to fetch it again, move its files out of {report.folder} first"))
        return
    for file in report.fetched:
        print(on_one_line(f"{task.name}: {file.url}, {file.size} bytes, SHA-256 {file.sha256} (the official one)"))
    print(on_one_line(f"{task.name}: in {report.folder}"))
    if report.kept:
        kept = ", ".join(report.kept[:5]) + (f" and {len(report.kept) - 5} more" if len(report.kept) > 5 else "")
        print(f"bort: warning: {task.name}: kept as they were: {kept}; move them away to have the published ones", file=sys.stderr)
    for url in report.changed:
        print(f"bort: warning: {on_one_line(url)} is not the file that an earlier download found", file=sys.stderr)


def _list(tasks: list[Task], closely: bool, json_file: str | None) -> None:
    from rich.table import Table
    from tqdm import tqdm

    from bort.bench.report import table_console
    from bort.files import write_text
    from bort.tasks.inventory import inspect_segment

    pairs = [(task, segment) for task in tasks for segment in task.segments]
    states: dict[str, list[SegmentState]] = {task.name: [] for task in tasks}
    for task, segment in tqdm(pairs, desc="reading", unit="file", disable=None, leave=False):
        states[task.name].append(inspect_segment(task, segment.name, closely))

    console = table_console()
    table = Table("task", "benchmark", "segment", "file")
    for column in ("official", "present"):
        table.add_column(column, justify="right")
    table.add_column("labels", overflow="fold")
    table.add_column("metrics", overflow="fold")
    for task in tasks:
        first = (task.name, task.benchmark), (_labels(task), ", ".join(task.metrics))
        for segment, state in zip(task.segments, states[task.name], strict=True):
            table.add_row(*first[0], segment.name, segment.file, str(segment.official_size), _present(state), *first[1])
            first = ("", ""), ("", "")
        table.add_section()
    if closely:
        for task in tasks:
            _describe(task, console)
    console.print(table)
    for unit in ("passages", "questions"):
        if counted := [task.name for task in tasks if task.segments[0].unit == unit]:
            print(f"{', '.join(counted)}: {unit}, not rows")
    everything = [state for task in tasks for state in states[task.name]]
    if any(state.size is not None and not state.rows_read for state in everything):
        print("≈ the number of lines of a large file, whose rows were not read; bort tasks NAME reads them")
    for state in everything:
        for text in (*state.notes, *([f"damaged: {state.damage}"] if state.damage else [])):
            print(on_one_line(text))
    if json_file is not None:
        # In ASCII: a damaged file's label, or a path, may hold what is in no encoding.
        write_text(json_file, json.dumps([_record(task, states[task.name]) for task in tasks], indent=2) + "\n")


def _present(state: SegmentState) -> str:
    if state.damage:
        return "damaged"
    if state.path is None:
        return "–"
    return "not read" if state.size is None else f"{'' if state.rows_read else '≈ '}{state.size}"


def _labels(task: Task) -> str:
    if task.labels is None:
        return f"score {task.score_range[0]:g} to {task.score_range[1]:g}"
    return ", ".join(label if isinstance(label, str) else json.dumps(label) for label in task.labels)


def _describe(task: Task, console: Any) -> None:
    """What a task is, where its files belong, and which of them have changed since they were downloaded."""
    from rich.table import Table

    from bort.tasks import diagnostic_tasks
    from bort.tasks.download import changes_since_download
    from bort.tasks.sources import SOURCES

    places = [task.root / folder for folder in task.folders]
    table = Table.grid(padding=(0, 2))
    table.add_row(task.name, task.benchmark)
    table.add_row("folders", "\n".join(on_one_line(str(place)) + ("" if os.path.isdir(place) else " (not there)") for place in places))
    table.add_row("texts", _columns(task.segments[0].layout))
    numbered = "" if task.labels is None else ", ".join(f"{number} {label}" for number, label in enumerate(_labels(task).split(", ")))
    table.add_row("labels", numbered or _labels(task))
    table.add_row("metrics", ", ".join(task.metrics))
    if task.predicted_by:
        table.add_row("predicted by", f"a model of {task.predicted_by}")
    if others := diagnostic_tasks(task):
        table.add_row("its model labels", ", ".join(other.name for other in others))
    files = [f"{segment.name} → {segment.leaderboard_file}" for segment in task.segments if segment.leaderboard_file]
    table.add_row("leaderboard", ", ".join(files))
    table.add_row("published", "\n".join(source.url for source in SOURCES[task.folders[0]]))
    try:
        changed = ", ".join(changes_since_download(task))
    except BortError as error:
        changed = on_one_line(f"cannot be told: {error}")
    if changed:
        table.add_row("changed since the download", changed)
    console.print(table)


def _columns(layout: Layout) -> str:
    """What a layout reads, in words."""
    from bort.tasks.reading import JsonLines, Table

    if isinstance(layout, Table):
        return f"columns {', '.join(layout.texts)}; label in {layout.label}"
    if isinstance(layout, JsonLines):
        return f"fields {', '.join(layout.fields)}; label in label"
    return (layout.__doc__ or "").partition("\n")[0].replace("``", "")


def _record(task: Task, states: list[SegmentState]) -> dict[str, Any]:
    segments = []
    for segment, state in zip(task.segments, states, strict=True):
        facts = dataclasses.asdict(state) | {"path": state.path and str(state.path), "file": segment.file}
        segments.append(facts | {"official_size": segment.official_size, "unit": segment.unit})
    return {
        "task": task.name,
        "benchmark": task.benchmark,
        "folders": task.folders,
        "labels": task.labels,
        "metrics": task.metrics,
        "predicted_by": task.predicted_by,
        "segments": segments,
    }
