"""What a sweep found: scores of each setting over its seeds, as rows, ``report.md``, ``report.json`` and ``scores.png``.

Notable: the result is never one lucky run. What stands on top is the mean and the standard deviation of the setting that is best on
average, with the number of settings it was chosen from; runs that failed or are missing are counted, and a setting that lacks runs which
others have cannot come out on top. One run has no standard deviation, and none is made up.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bort.files import write_text
from bort.tasks.metrics import task_score
from bort.tasks.registry import get_task
from bort.training.finetuning_result import RESULT_FILE
from bort.training.grid import Point, setting_name
from bort.training.markdown import bullets, code, table
from bort.training.pictures import picture
from bort.training.sweep_folder import RUNS_FOLDER, read_runs

REPORT_FILE, NUMBERS_FILE, PICTURE_FILE = "report.md", "report.json", "scores.png"
COLUMNS = ("setting", "runs", "mean", "sd", "median", "best", "worst", "majority")
_MOST_IN_PICTURE = 100


@dataclass(frozen=True)
class Row:
    """Runs of one task that differ in nothing but the seed.

    Attributes:
        task: its name.
        setting: what distinguishes the row from others of its task.
        scores: of complete runs, by seed: the task's own score on the dev rows, in the epoch that was kept.
        wanted: runs asked for.
        majority: score of answering every dev row with the majority class; None if no run is complete.
    """

    task: str
    setting: Mapping[str, Any]
    scores: Mapping[int, float]
    wanted: int
    majority: float | None

    @property
    def name(self) -> str:
        """``batch_size=8,lr=1e-4``; empty if nothing distinguishes it."""
        return setting_name(self.setting)

    @property
    def mean(self) -> float | None:
        """Of the scores; None without any."""
        return statistics.fmean(self.scores.values()) if self.scores else None

    @property
    def sd(self) -> float | None:
        """Sample standard deviation of the scores (n - 1 in the denominator); None for fewer than two."""
        return statistics.stdev(self.scores.values()) if len(self.scores) > 1 else None

    def numbers(self) -> dict[str, Any]:
        """Everything there is to say of the row, None for what has no value."""
        values = list(self.scores.values())
        return {
            "task": self.task,
            "setting": dict(self.setting),
            "wanted": self.wanted,
            "n": len(values),
            "mean": self.mean,
            "sd": self.sd,
            "median": statistics.median(values) if values else None,
            "best": max(values, default=None),
            "worst": min(values, default=None),
            "majority": self.majority,
            "scores": {str(seed): score for seed, score in sorted(self.scores.items())},
        }

    def cells(self) -> tuple[str, ...]:
        """The row under ``COLUMNS``."""
        numbers = self.numbers()
        runs = str(len(self.scores)) if len(self.scores) == self.wanted else f"{len(self.scores)} of {self.wanted}"
        return (self.name or "(one setting)", runs, *(shown(numbers[column]) for column in COLUMNS[2:]))


@dataclass(frozen=True)
class Report:
    """What is known of a sweep.

    Attributes:
        rows: the settings, best mean first.
        failed: why each run failed that did, by the point's name.
        missing: points without a result that did not fail either.
    """

    rows: Sequence[Row]
    failed: Mapping[str, str]
    missing: Sequence[str]

    @property
    def best(self) -> Row | None:
        """The setting with the highest mean of those with the most complete runs; None if no run is complete."""
        most = max((len(row.scores) for row in self.rows), default=0)
        return next((row for row in self.rows if most and len(row.scores) == most), None)

    def headline(self) -> str:
        """The result in a sentence or two, plain text."""
        best = self.best
        if best is None:
            return "No run is complete."
        n = len(best.scores)
        spread = f" ± {shown(best.sd)} (mean and standard deviation of {n} runs)" if n > 1 else " (one run, so no standard deviation)"
        where = f" with {best.name}" if best.name else ""
        compared = sum(1 for row in self.rows if row.scores)
        choice = (
            f" The best mean of {compared} settings that were compared on the same dev rows, which makes it look better than it is."
            if compared > 1
            else ""
        )
        return f"{best.task}: {shown(best.mean)}{spread}{where}; the majority class gives {shown(best.majority)}.{choice}"

    def notes(self) -> list[str]:
        """What else has to be said, plain text."""
        wanted, complete = sum(row.wanted for row in self.rows), sum(len(row.scores) for row in self.rows)
        counts = f"{complete} of {wanted} runs complete, {len(self.failed)} failed, {len(self.missing)} missing."
        notes = [counts, "A run's score is that of its best epoch on the dev rows; the best of several runs is luck on top of that."]
        most = max((len(row.scores) for row in self.rows), default=0)
        if any(0 < len(row.scores) < most for row in self.rows):
            notes.append(f"Settings with fewer than {most} complete runs were not considered for the result.")
        return notes


def shown(value: float | None) -> str:
    """A score with four decimals, a dash for none."""
    return "–" if value is None else f"{value:.4f}"


def summarise_points(output: Path, task: str, points: Sequence[Point]) -> list[Row]:
    """Rows of a sweep's points, best mean first.

    Args:
        task: its name, for settings without a complete run.

    Raises:
        BortError: if a result is damaged, or runs differ in more than the points do.
    """
    complete = read_runs(output, points[0].values)
    groups: dict[str, list[Point]] = {}
    for point in points:
        groups.setdefault(setting_name(point.setting), []).append(point)
    rows = []
    for group in groups.values():
        results = {point.seed: complete[point.name] for point in group if point.name in complete}
        first = next(iter(results.values()), None)
        scores = {seed: result.score for seed, result in results.items()}
        majority = None if first is None else task_score(get_task(first.task), first.majority)
        rows.append(Row(task if first is None else first.task, group[0].setting, scores, len(group), majority))
    return sorted(rows, key=_order)


def write_report(output: Path, task: str, points: Sequence[Point], failed: Mapping[str, str]) -> Report:
    """Write ``report.md``, ``report.json`` and ``scores.png`` into a sweep's folder.

    Args:
        points: all of the sweep's.
        failed: why runs failed, by the point's name.

    Raises:
        BortError: if a result is damaged.
    """
    complete = {point.name for point in points if (output / RUNS_FOLDER / point.name / RESULT_FILE).exists()}
    missing = [point.name for point in points if point.name not in complete and point.name not in failed]
    report = Report(summarise_points(output, task, points), failed, missing)
    parts = [f"# Fine-tuning on {code(task)}", f"**{report.headline()}**", bullets(report.notes())]
    if report.best is not None:
        parts.append(f"![Scores of the runs by setting]({PICTURE_FILE})")
    parts.append(table(COLUMNS, [(code(cells[0]), *cells[1:]) for cells in (row.cells() for row in report.rows)]))
    parts.append("sd: sample standard deviation (n − 1); a dash where there are too few runs to have one.")
    for heading, names in (
        ("Failed runs", [f"{code(name)}: {code(reason)}" for name, reason in failed.items()]),
        ("Missing runs", map(code, missing)),
    ):
        if entries := list(names):
            parts += [f"## {heading}", bullets(entries)]
    write_text(output / REPORT_FILE, "\n\n".join(parts) + "\n")
    best = report.best.numbers() if report.best else None
    numbers = {
        "task": task,
        "headline": report.headline(),
        "best": best,
        "settings_compared": sum(1 for row in report.rows if row.scores),
        "failed": dict(failed),
        "missing": missing,
        "settings": [row.numbers() for row in report.rows],
    }
    write_text(output / NUMBERS_FILE, json.dumps(numbers, indent=2, allow_nan=False) + "\n")
    if report.best is not None:
        draw_scores_of_settings(output / PICTURE_FILE, report.rows)
    return report


def draw_scores_of_settings(path: Path, rows: Sequence[Row]) -> None:
    """Draw every score as a dot in its setting's strip, with mean and standard deviation; best mean on top, at most 100 settings."""
    complete = [row for row in rows if row.scores]
    drawn = complete[:_MOST_IN_PICTURE]
    shortened = f", the best {len(drawn)} of {len(complete)} settings" if len(drawn) < len(complete) else ""
    with picture(path, 9, 1.6 + 0.28 * len(drawn)) as figure:
        axes = figure.add_subplot()
        for place, row in enumerate(drawn):
            axes.plot(list(row.scores.values()), [place] * len(row.scores), "o", color="tab:blue", alpha=0.45, markersize=5)
            axes.errorbar(statistics.fmean(row.scores.values()), place, xerr=row.sd, fmt="|", color="black", markersize=12, capsize=3)
        for majority in {row.majority for row in drawn if row.majority is not None}:
            axes.axvline(majority, color="tab:red", linestyle=":", label="majority class")
        axes.set_yticks(range(len(drawn)), [row.name or "(one setting)" for row in drawn], fontsize=7)
        axes.set_ylim(len(drawn) - 0.5, -0.5)
        axes.set_title(f"{drawn[0].task}{shortened}: runs, mean ± sd")
        axes.set_xlabel("score on the dev rows")
        axes.legend(loc="best")


def _order(row: Row) -> tuple[str, float, str]:
    return row.task, -row.mean if row.mean is not None else math.inf, row.name
