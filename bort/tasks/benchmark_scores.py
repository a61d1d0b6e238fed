"""One number for a whole benchmark, as its leaderboard computes it.

GLUE averages nine tasks and SuperGLUE eight, each task's own score being the mean of its metrics and MNLI's two sets counting as one task;
the diagnostic sets do not count. RACE's number is the accuracy over the questions of both levels.

Notable: there is no average of a part. A result that is missing is named instead, down to the set and the metric: averages over different
tasks look alike and cannot be compared.
"""

from __future__ import annotations

from collections.abc import Mapping
from statistics import fmean

from bort.errors import BortError
from bort.tasks.metrics import task_score
from bort.tasks.registry import TASKS
from bort.tasks.task import Task

Results = Mapping[str, Mapping[str, Mapping[str, float]]]
"""By task name, what its metrics are on each of its sets: ``{"MNLI": {"dev_matched": {"accuracy": 0.8}, "dev_mismatched": …}, …}``."""

BENCHMARKS = ("GLUE", "SuperGLUE", "RACE")


def benchmark_score(benchmark: str, results: Results, role: str = "dev") -> float:
    """The average of a benchmark.

    Args:
        benchmark: one of ``BENCHMARKS``.
        results: of its tasks at least; others, such as diagnostic sets, are not looked at.
        role: ``dev``, or ``test`` for what a leaderboard has sent back; says which sets of a task count.

    Returns:
        The average, in the unit of ``results``.

    Raises:
        BortError: if there is no such benchmark, or a result is missing; names every one that is.
    """
    if benchmark not in BENCHMARKS:
        raise BortError(f'no benchmark "{benchmark}"; there are {", ".join(BENCHMARKS)}')
    tasks = counted_tasks(benchmark)
    missing = [name for task in tasks for name in _missing(task, results, role)]
    if missing:
        raise BortError(f"no average of {benchmark} without {', '.join(missing)}")
    return fmean(
        task_score(
            {name: {metric: results[task.name][name][metric] for metric in _counted_metrics(task)} for name in task.segment_names(role)}
        )
        for task in tasks
    )


def counted_tasks(benchmark: str) -> tuple[Task, ...]:
    """The tasks that a benchmark's average is of, in the order of their entries."""
    if benchmark == "RACE":
        # RACE-H and RACE-M are its two halves, and would count twice.
        return tuple(task for task in TASKS if task.name == "RACE")
    return tuple(task for task in TASKS if task.benchmark == benchmark and task.predicted_by is None)


def _counted_metrics(task: Task) -> tuple[str, ...]:
    """Those of RACE's levels are parts of the whole, weighed there by their numbers of questions."""
    return ("accuracy",) if task.name == "RACE" else task.metrics


def _missing(task: Task, results: Results, role: str) -> list[str]:
    """What an average lacks of a task: the task itself, or ``MRPC dev f1``."""
    if task.name not in results:
        return [task.name]
    return [
        f"{task.name} {segment} {metric}"
        for segment in task.segment_names(role)
        for metric in _counted_metrics(task)
        if metric not in results[task.name].get(segment, {})
    ]
