"""Dev scores of many fine-tuning runs beside one another: the mean over the runs of each task, and the averages of whole benchmarks.

Notable: runs are found by their ``result.json``, which is written last, so that half a run never counts. Runs that are averaged differ in
the seed alone: of a sweep the runs of its best setting are taken, with a note that says so, and other differences are refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bort.errors import BortError
from bort.tasks.benchmark_scores import BENCHMARKS, benchmark_score
from bort.tasks.metrics import task_score
from bort.tasks.registry import TASKS, get_task
from bort.training.checkpoint import DIVISION
from bort.training.finetuning_result import RESULT_FILE, FinetuningResult, Metrics, read_result
from bort.training.grid import SEED
from bort.training.sweep_folder import RUNS_FOLDER, SWEEP_FILE, first_difference, read_sweep
from bort.training.sweep_report import Report, summarise_points


@dataclass(frozen=True)
class TaskScores:
    """What the runs of one task came to.

    Attributes:
        task: its name.
        benchmark: that it belongs to.
        runs: complete runs.
        dev: mean over the runs of each metric, by dev segment.
    """

    task: str
    benchmark: str
    runs: int
    dev: Metrics

    @property
    def score(self) -> float:
        """The task's own score: the mean of its metrics."""
        return task_score(get_task(self.task), self.dev)


def find_runs(folders: Iterable[Path | str]) -> tuple[list[Path], list[str]]:
    """Complete runs among ``folders`` and below them, each once; what begins with a full stop is not looked at.

    Returns:
        Folders with a ``result.json``, of a sweep those of its best setting; and of each sweep that compared settings, which one that is.

    Raises:
        BortError: if one of ``folders`` is no folder, a sweep is damaged, or there is no complete run.
    """
    runs: dict[str, Path] = {}
    notes: dict[str, str] = {}
    asked = [Path(folder) for folder in folders]
    for folder in asked:
        if not folder.is_dir():
            raise BortError(f"{folder}: no such folder; give one that holds runs of bort finetune")
        for parent, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if not name.startswith("."))
            found = [Path(parent)] if RESULT_FILE in files else []
            if SWEEP_FILE in files:
                found, note = _best_of_sweep(Path(parent))
                below.clear()
                if note:
                    notes.setdefault(os.path.realpath(parent), note)
            for run in found:
                runs.setdefault(os.path.realpath(run), run)
    if not runs:
        raise BortError(f"no {RESULT_FILE} in {', '.join(map(str, asked))}; a run of bort finetune writes it when it is complete")
    return list(runs.values()), list(notes.values())


def summarise(runs: Iterable[Path]) -> list[TaskScores]:
    """Mean scores by task, in the order of the benchmarks' tasks.

    Raises:
        BortError: if a result cannot be read, is of an unknown task, or lacks a metric of its task; or if two runs of a task differ in
            more than the seed, which names both and the setting.
    """
    found: dict[str, dict[Path, FinetuningResult]] = {}
    for run in runs:
        result = read_result(run)
        of_task = found.setdefault(result.task, {})
        of_task[run] = result
        _require_alike(of_task, run)
    return [_scores(name, list(found[name].values())) for name in (task.name for task in TASKS) if name in found]


def averages(scores: Sequence[TaskScores]) -> dict[str, float | str]:
    """Of each benchmark that has a score here, its average, or else what is missing for one."""
    results = {row.task: row.dev for row in scores}
    found: dict[str, float | str] = {}
    for benchmark in BENCHMARKS:
        if any(row.benchmark == benchmark for row in scores):
            try:
                found[benchmark] = benchmark_score(benchmark, results)
            except BortError as error:
                found[benchmark] = str(error)
    return found


def _best_of_sweep(folder: Path) -> tuple[list[Path], str]:
    """Complete runs of a sweep's best setting; and what has to be said of the choice, nothing if there was none."""
    options, points = read_sweep(folder)
    rows = summarise_points(folder, str(options.get("task", "")), points)
    best, compared = Report(rows, {}, []).best, sum(1 for row in rows if row.scores)
    if best is None:
        return [], ""
    names = [point.name for point in points if point.setting == best.setting and point.seed in best.scores]
    note = (
        f"{best.task}: of {compared} settings in {folder}, the best alone: {best.name}, chosen by these dev scores, so they look better "
        "than they are"
    )
    return [folder / RUNS_FOLDER / name for name in names], note if compared > 1 else ""


def _require_alike(results: Mapping[Path, FinetuningResult], run: Path) -> None:
    """Refuse a run of a task that differs from the first one in more than the seed and in how an update is divided."""
    first = next(iter(results))
    if difference := first_difference(results[first].settings, results[run].settings, {SEED, *DIVISION}):
        setting, was, now = difference
        raise BortError(
            f"{run}: made with {setting} {now}, but {first} with {was}, so they cannot be averaged; leave one of the two out, or give the "
            "folder of a whole sweep, of which the best setting counts"
        )


def _scores(name: str, results: Sequence[FinetuningResult]) -> TaskScores:
    """Means over runs of one task."""
    task = get_task(name)
    dev = {
        segment: {metric: fmean(result.dev[segment][metric] for result in results) for metric in task.metrics}
        for segment in task.segment_names("dev")
    }
    return TaskScores(name, task.benchmark, len(results), dev)
