"""Prints the table of a quick-start run, draws its curves together, and fails if fine-tuning learnt no more than the majority class."""

from __future__ import annotations

import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from bort.tasks import get_task
from bort.tasks.metrics import majority_score
from bort.training.journal import read_metrics
from bort.training.pictures import picture

TASKS = ("RTE", "SST-2")
run = Path(sys.argv[1])
table = Table(title="Quick start", show_lines=False)
for column in ("what", "score", "compare with"):
    table.add_column(column, justify="left" if column == "what" else "right")

runs = {name: read_metrics(run / name) for name in ("teacher", "distilled", "alone")}
for kind, text in (("train", "training text"), ("eval", "held-out text")):
    accuracy = {name: [entry for entry in entries if entry["kind"] == kind][-1]["mlm_accuracy"] for name, entries in runs.items()}
    table.add_row(f"teacher's MLM accuracy, {text}", f"{accuracy['teacher']:.3f}", "")
    table.add_row(f"student's, with the teacher's help, {text}", f"{accuracy['distilled']:.3f}", f"without {accuracy['alone']:.3f}")

learnt = []
for name in TASKS:
    task = get_task(name, "test_data")
    scores = [entry["score"] for entry in read_metrics(run / "finetune" / name) if entry["kind"] == "eval"]
    majority = majority_score(task, task.examples("dev"))["accuracy"]
    learnt.append(max(scores) > majority)
    table.add_row(f"{name} dev accuracy", f"{max(scores):.3f}", f"majority {majority:.3f}")
files = [path for name in TASKS for path in sorted((run / "finetune" / name / "predictions").iterdir())]
for path in files:
    table.add_row(str(path), f"{len(path.read_text(encoding='utf-8').splitlines()) - 1} rows", "")

with picture(run / "curves.png", 12, 4) as figure:
    loss_axes, accuracy_axes, task_axes = figure.subplots(1, 3)
    for name, entries in runs.items():
        for axes, kind, quantity in ((loss_axes, "train", "mlm_loss"), (accuracy_axes, "eval", "mlm_accuracy")):
            points = [(entry["step"], entry[quantity]) for entry in entries if entry["kind"] == kind]
            axes.plot(*zip(*points, strict=True), marker=".", label=name)
    for name in TASKS:
        entries = [entry for entry in read_metrics(run / "finetune" / name) if entry["kind"] == "eval"]
        task_axes.plot([entry["step"] for entry in entries], [entry["score"] for entry in entries], marker=".", label=name)
    for axes, title in ((loss_axes, "training MLM loss"), (accuracy_axes, "held-out MLM accuracy"), (task_axes, "dev score")):
        axes.set_title(title)
        axes.set_xlabel("step")
        axes.legend()

Console(width=110).print(table)
print(f"curves in {run / 'curves.png'}, and in curves.png of each run's folder")
if not all(learnt):
    sys.exit(
        f"quickstart: error: no better than the majority class on {', '.join(n for n, ok in zip(TASKS, learnt, strict=True) if not ok)}"
    )
