"""One number for a whole benchmark, as its leaderboard computes it.

GLUE averages nine tasks and SuperGLUE eight: each task's own score is the mean of its metrics, MNLI's two sets are one task, and the
diagnostic sets do not count. RACE's number is the accuracy over the questions of both levels.

Notable: there is no average over some of the tasks, because averages over different tasks look alike and cannot be compared. What is
missing is named instead, down to the set and the metric.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from bort.errors import BortError
from bort.tasks.metrics import task_score
from bort.tasks.registry import TASKS
from bort.tasks.task import Task

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By task name and set, its metrics: ``{"MNLI": {"dev_matched": {"accuracy": 0.8}, "dev_mismatched": …}, …}``."""

BENCHMARKS = ("GLUE", "SuperGLUE", "RACE")


def benchmark_score(benchmark: str, results: Results, role: str = "dev") -> float:
    """The average of a benchmark.

    Args:
        benchmark: one of ``BENCHMARKS``.
        results: of all its tasks; those of others, such as diagnostic sets, are not used.
        role: ``dev``, or ``test`` for what a leaderboard has sent back; says which sets of a task count.

    Returns:
        The average, in the unit of ``results``.

    Raises:
        BortError: if there is no such benchmark, or results are missing; names all of them.
    """
    if benchmark not in BENCHMARKS:
        raise BortError(f'no benchmark "{benchmark}"; there are {", ".join(BENCHMARKS)}')
    tasks = counted_tasks(benchmark)
    missing = [name for task in tasks for name in _missing(task, results, role)]
    if missing:
        raise BortError(f"no average of {benchmark} without {', '.join(missing)}")
    return fmean(task_score(task, {name: _averaged(task, results[task.name][name]) for name in task.segment_names(role)}) for task in tasks)


def counted_tasks(benchmark: str) -> tuple[Task, ...]:
    """The tasks that a benchmark's average is over, in the order of their entries."""
    if benchmark == "RACE":
        # RACE-H and RACE-M are its two halves, and would count twice.
        return tuple(task for task in TASKS if task.name == "RACE")
    return tuple(task for task in TASKS if task.benchmark == benchmark and task.predicted_by is None)


def _averaged(task: Task, metrics: Mapping[str, float]) -> dict[str, float]:
    return {metric: metrics[metric] for metric in task.averaged_metrics}


def _missing(task: Task, results: Results, role: str) -> list[str]:
    """What an average lacks of a task: the task itself, or ``MRPC dev f1``."""
    if task.name not in results:
        return [task.name]
    return [
        f"{task.name} {segment} {metric}"
        for segment in task.segment_names(role)
        for metric in task.averaged_metrics
        if metric not in results[task.name].get(segment, {})
    ]
