"""Prediction files, in the form and under the names that the leaderboards ask for.

GLUE takes a table with one row a test row, in order; SuperGLUE takes JSON lines that carry each row's own ``idx``. A task names its
format in its entry; a file appears whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from bort import files
from bort.errors import BortError
from bort.tasks.task import Example, Label, Task


def write_predictions(
    task: Task, examples: Mapping[str, Sequence[Example]], predictions: Mapping[str, np.ndarray], folder: Path | str
) -> list[Path]:
    """Write one file for each test segment of ``task``.

    Args:
        task: whose files these are; a diagnostic set takes the predictions of the model that ``task.predicted_by`` names.
        examples: rows by segment name, as ``task.examples`` gives them.
        predictions: (N,) class numbers, or scores where the task is a regression, by segment name.
        folder: where the files go; made if it is missing.

    Returns:
        The files, in the order of the task's test segments.

    Raises:
        BortError: if a score is not finite; names the row.
        ValueError: if rows and predictions differ in number or a prediction is no class number.
    """
    written = []
    for segment in task.segments:
        if segment.leaderboard_file is None:
            continue
        rows, answers = examples[segment.name], predictions[segment.name]
        if len(rows) != len(answers):
            raise ValueError(f"{task.name}, {segment.name}: {len(answers)} predictions for {len(rows)} rows")
        path = Path(folder) / segment.leaderboard_file
        files.write_text(path, task.prediction_format(task, rows, answers))
        written.append(path)
    return written


def glue_table(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of a GLUE prediction file: a header, then row number and label; scores with three decimals."""
    if task.is_regression:
        answers = [f"{_within(task, row, score):.3f}" for row, score in enumerate(predictions)]
    else:
        answers = [str(label) for label in _labels(task, predictions)]
    return "".join(f"{index}\t{answer}\n" for index, answer in [("index", "prediction"), *enumerate(answers)])


def json_lines(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of a SuperGLUE prediction file: one object a line with the row's own ``idx`` and its label."""
    pairs = zip(examples, _labels(task, predictions), strict=True)
    return "".join(json.dumps({"idx": example.id, "label": label}) + "\n" for example, label in pairs)


def _labels(task: Task, predictions: np.ndarray) -> list[Label]:
    numbers = np.asarray(predictions)
    outside = (numbers < 0) | (numbers >= task.num_classes) | (numbers != np.floor(numbers))
    if outside.any():
        raise ValueError(f"{task.name}: prediction {numbers[outside][0]} is not a class number below {task.num_classes}")
    return [task.leaderboard_labels[int(number)] for number in numbers]


def _within(task: Task, row: int, score: float) -> float:
    if not np.isfinite(score):
        raise BortError(f"{task.name}: the prediction for test row {row} is {score}; the model has diverged, train it again")
    low, high = task.score_range
    return min(max(low, float(score)), high)
