"""Prediction files, in the form and under the names that the leaderboards ask for.

GLUE takes a table with one line per test row, in order; SuperGLUE takes JSON lines with each row's own ``idx``, nested in MultiRC as its
input is; RACE, which has no format of its own, is written as JSON lines with the letters of an article's questions. A task's entry names
its format. A task's files appear whole or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from bort import files
from bort.errors import BortError
from bort.tasks.reading import ExampleId
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
        ValueError: if rows and predictions differ in number, a prediction is no class number, an id lacks keys that the format nests, or a
            query of ReCoRD does not have exactly one answer.
    """
    texts: dict[Path, str] = {}
    for segment in task.segments:
        if segment.leaderboard_file is None:
            continue
        rows, answers = examples[segment.name], predictions[segment.name]
        if len(rows) != len(answers):
            raise ValueError(f"{task.name}, {segment.name}: {len(answers)} predictions for {len(rows)} rows")
        texts[Path(folder) / segment.leaderboard_file] = task.prediction_format(task, rows, answers)
    for path, text in texts.items():
        files.write_text(path, text)
    return list(texts)


def glue_table(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of a GLUE prediction file: a header, then row number and label; scores with three decimals."""
    if task.is_regression:
        answers = [f"{_within(task, row, score):.3f}" for row, score in enumerate(predictions)]
    else:
        answers = [str(label) for label in _labels(task, predictions)]
    return "".join(f"{index}\t{answer}\n" for index, answer in [("index", "prediction"), *enumerate(answers)])


def json_lines(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of a SuperGLUE prediction file: one object per line with the row's own ``idx`` and its label."""
    pairs = zip(examples, _labels(task, predictions), strict=True)
    return _lines({"idx": example.id, "label": label} for example, label in pairs)


def multirc_answers(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of MultiRC's prediction file: one passage per line, with its questions and their answers nested as in the input.

    Args:
        examples: answers; an ``id`` holds the ``idx`` of passage, question and answer.
        predictions: (N,) class numbers.
    """
    passages: dict[ExampleId, dict[ExampleId, list[dict[str, Label]]]] = {}
    for example, label in zip(examples, _labels(task, predictions), strict=True):
        passage, question, answer = example.keys
        passages.setdefault(passage, {}).setdefault(question, []).append({"idx": answer, "label": label})
    return _lines(
        {"idx": passage, "passage": {"questions": [{"idx": question, "answers": answers} for question, answers in questions.items()]}}
        for passage, questions in passages.items()
    )


def record_answers(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of ReCoRD's prediction file: one query per line, with the entity chosen for it.

    Args:
        examples: candidates; those of one query share its ``idx`` as ``id``.
        predictions: (N,) class numbers, 1 for one candidate of each query and 0 for the others.
    """
    chosen: dict[ExampleId, list[str | None]] = {}
    for example, prediction in zip(examples, predictions, strict=True):
        chosen.setdefault(example.id, []).extend([example.candidate] if prediction == 1 else [])
    for query, entities in chosen.items():
        if len(entities) != 1:
            raise ValueError(f"{task.name}: {len(entities)} answers to query {query}, which takes one")
    return _lines({"idx": query, "label": entities[0]} for query, entities in chosen.items())


def race_answers(task: Task, examples: Sequence[Example], predictions: np.ndarray) -> str:
    """Text of RACE's prediction file: one article per line, with the letters of its questions in order.

    Args:
        examples: questions; an ``id`` holds the article's own and the question's number, which rises within an article.
        predictions: (N,) class numbers.
    """
    articles: dict[ExampleId, list[Label]] = {}
    for example, letter in zip(examples, _labels(task, predictions), strict=True):
        article, _ = example.keys
        articles.setdefault(article, []).append(letter)
    return _lines({"id": article, "answers": letters} for article, letters in articles.items())


def _lines(values: Iterable[Mapping[str, object]]) -> str:
    return "".join(json.dumps(value) + "\n" for value in values)


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
