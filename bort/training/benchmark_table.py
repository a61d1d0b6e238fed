"""Dev scores of many fine-tuning runs beside one another: the mean over the runs of each task, and the averages of whole benchmarks.

Notable: runs are found by their ``result.json``, which is written last, so that half a run never counts. Runs of one task are averaged
whatever sets them apart; a sweep's own report (bort/training/sweep_report.py) is the place to compare settings.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from bort.errors import BortError
from bort.tasks.benchmark_scores import BENCHMARKS, benchmark_score
from bort.tasks.metrics import task_score
from bort.tasks.registry import TASKS, get_task
from bort.training.finetuning_result import RESULT_FILE, read_result


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
    dev: Mapping[str, Mapping[str, float]]

    @property
    def score(self) -> float:
        """The task's own score: the mean of its metrics."""
        return task_score(self.dev)


def find_runs(folders: Iterable[Path | str]) -> list[Path]:
    """Folders with a ``result.json``, among ``folders`` and below them, each once; what begins with a full stop is not looked at.

    Raises:
        BortError: if one of ``folders`` is no folder, or there is no complete run.
    """
    runs: dict[str, Path] = {}
    asked = [Path(folder) for folder in folders]
    for folder in asked:
        if not folder.is_dir():
            raise BortError(f"{folder}: no such folder; give one that holds runs of bort finetune")
        for parent, below, files in os.walk(folder):
            below[:] = sorted(name for name in below if not name.startswith("."))
            if RESULT_FILE in files:
                runs.setdefault(os.path.realpath(parent), Path(parent))
    if not runs:
        raise BortError(f"no {RESULT_FILE} in {', '.join(map(str, asked))}; a run of bort finetune writes it when it is complete")
    return list(runs.values())


def summarise(runs: Iterable[Path]) -> list[TaskScores]:
    """Mean scores by task, in the order of the benchmarks' tasks.

    Raises:
        BortError: if a result cannot be read, is of an unknown task, or lacks a metric of its task.
    """
    found: dict[str, list[dict[str, dict[str, float]]]] = {}
    for run in runs:
        name, dev = _dev_scores(run)
        found.setdefault(name, []).append(dev)
    return [TaskScores(task.name, task.benchmark, len(found[task.name]), _mean(found[task.name])) for task in TASKS if task.name in found]


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


def _dev_scores(run: Path) -> tuple[str, dict[str, dict[str, float]]]:
    """Task and dev metrics of one run, each metric a finite number."""
    result, path = read_result(run), run / RESULT_FILE
    try:
        task = get_task(str(result.task))
    except BortError as error:
        raise BortError(f"{path}: {error}") from error
    dev: dict[str, dict[str, float]] = {}
    for segment in task.segment_names("dev"):
        metrics = result.dev.get(segment) if isinstance(result.dev, Mapping) else None
        for metric in task.metrics:
            value = metrics.get(metric) if isinstance(metrics, Mapping) else None
            if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
                raise BortError(f"{path}: no {segment} {metric} of {task.name}; repeat the run in a new folder")
            dev.setdefault(segment, {})[metric] = value
    return task.name, dev


def _mean(runs: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, dict[str, float]]:
    """Of runs with the same segments and metrics."""
    return {segment: {metric: fmean(run[segment][metric] for run in runs) for metric in metrics} for segment, metrics in runs[0].items()}
