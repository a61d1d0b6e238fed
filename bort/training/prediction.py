"""Labelling with a fine-tuned classifier: logits of encoded rows, test sets to leaderboard files, and rows that stream by."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import scipy.special
from numpy.typing import NDArray

from bort.engine import Predictor
from bort.errors import BortError
from bort.model_directory import TrainedTask
from bort.tasks import Example, Task, get_task
from bort.tasks.batches import EncodedRows, prediction_batches
from bort.tasks.encoding import encode_examples
from bort.tasks.leaderboard import write_predictions
from bort.tasks.metrics import score
from bort.tasks.row_stream import StreamedRow
from bort.tokenizer import Tokenizer
from bort.training.finetuning_result import Metrics

_ROWS_AT_ONCE = 1024


def trained_task(folder: Path | str, trained: TrainedTask, data_root: Path | str | None = None) -> Task:
    """The task that the classifier in ``folder`` was fine-tuned for.

    Raises:
        BortError: if there is no such task, or it has other labels now.
    """
    task = get_task(trained.name, data_root)
    if task.labels != trained.labels:
        raise BortError(f"{folder}: its labels {trained.labels} are not those of {task.name}, {task.labels}; fine-tune it again")
    return task


def encode_rows(examples: Sequence[Example], tokenizer: Tokenizer, max_len: int, keep_question: bool = False) -> EncodedRows:
    """Examples as input ids of at most ``max_len`` and labels; an absent label is 0."""
    labels = np.array([example.label or 0 for example in examples], dtype=np.float32)
    return EncodedRows(encode_examples(examples, tokenizer, max_len, keep_question), labels, tokenizer.vocab.pad_id, max_len)


def predict_logits(predictor: Predictor, rows: EncodedRows, batch_size: int) -> NDArray[np.float32]:
    """Logits of every row, (N, num_classes), in the order of the rows; N at least 1.

    Raises:
        BortError: if one is not finite.
    """
    parts = [(chosen, predictor.predict(batch)[: len(chosen)]) for chosen, batch in prediction_batches(rows, batch_size)]
    logits = np.empty((len(rows), parts[0][1].shape[1]), dtype=np.float32)
    for chosen, values in parts:
        logits[chosen] = values
    if not np.isfinite(logits).all():
        raise BortError("the model's outputs are not finite; its training diverged: train again with a lower --lr")
    return logits


def predict_task(
    predictor: Predictor, tokenizer: Tokenizer, trained: TrainedTask, task: Task, examples: Mapping[str, list[Example]], batch_size: int
) -> dict[str, np.ndarray]:
    """Predictions of whole segments of ``task`` by name: class numbers, or scores where it is a regression.

    Args:
        trained: says how the classifier's rows were made.
        examples: rows by segment name.
    """
    encoded = {name: encode_rows(rows, tokenizer, trained.max_len, trained.keep_question) for name, rows in examples.items()}
    return {name: task.decide(examples[name], predict_logits(predictor, rows, batch_size)) for name, rows in encoded.items()}


def label_rows(
    predictor: Predictor, tokenizer: Tokenizer, trained: TrainedTask, task: Task, rows: Sequence[StreamedRow], batch_size: int
) -> Iterator[tuple[StreamedRow, NDArray[np.float64]]]:
    """Yield each row, in order, with its probabilities (num_classes,), or its score (1,) where the task is a regression."""
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        group = rows[first : first + _ROWS_AT_ONCE]
        examples = [row.example for row in group]
        encoded = encode_rows(examples, tokenizer, trained.max_len, trained.keep_question)
        logits = predict_logits(predictor, encoded, batch_size).astype(np.float64)
        yield from zip(group, logits if task.is_regression else scipy.special.softmax(logits, axis=1), strict=True)


def table_header(task: Task, with_probabilities: bool) -> str:
    """First line of a table of labelled rows."""
    more = [f"probability_{label}" for label in task.leaderboard_labels] if with_probabilities else []
    return "\t".join(["index", "prediction", *more]) + "\n"


def table_line(task: Task, row: StreamedRow, outputs: NDArray[np.float64], with_probabilities: bool) -> str:
    """A labelled row as a line of a table; a text without tabs or line ends stands there as it is, any other id as JSON writes it."""
    # Half of a surrogate pair, which JSON can write, is in no encoding but as an escape.
    is_plain = isinstance(row.id, str) and not re.search("[\t\r\n\ud800-\udfff]", row.id)
    name = row.id if is_plain else json.dumps(row.id)
    more = [f"{probability:.6f}" for probability in outputs] if with_probabilities else []
    return "\t".join([name, _shown(task, outputs), *more]) + "\n"


def json_line(task: Task, row: StreamedRow, outputs: NDArray[np.float64], with_probabilities: bool) -> str:
    """A labelled row as a JSON object: ``id``, and ``label`` (with ``probabilities`` by label) or ``score``; in ASCII."""
    answer: dict[str, Any] = {"id": row.id}
    if task.is_regression:
        answer["score"] = float(_shown(task, outputs))
    else:
        answer["label"] = task.leaderboard_labels[int(outputs.argmax())]
        if with_probabilities:
            named = zip(task.leaderboard_labels, outputs, strict=True)
            answer["probabilities"] = {str(label): round(float(probability), 6) for label, probability in named}
    return json.dumps(answer) + "\n"


def _shown(task: Task, outputs: NDArray[np.float64]) -> str:
    if task.is_regression:
        low, high = task.score_range
        return f"{min(max(low, float(outputs[0])), high):.3f}"
    return str(task.leaderboard_labels[int(outputs.argmax())])


def write_test_predictions(
    predictor: Predictor, tokenizer: Tokenizer, trained: TrainedTask, task: Task, names: Iterable[str], folder: Path, batch_size: int
) -> tuple[list[Path], Metrics]:
    """Label the test segments called ``names``, and write the leaderboard files to ``folder``.

    Returns:
        The files, and the metrics of each segment whose rows all have labels.
    """
    examples = {name: task.examples(name) for name in names}
    predictions = predict_task(predictor, tokenizer, trained, task, examples, batch_size)
    labelled = [name for name, rows in examples.items() if all(example.label is not None for example in rows)]
    files = write_predictions(task, examples, predictions, folder)
    return files, {name: score(task, examples[name], predictions[name]) for name in labelled}


def score_segments(
    predictor: Predictor, tokenizer: Tokenizer, trained: TrainedTask, task: Task, names: Iterable[str], batch_size: int
) -> Metrics:
    """Metrics of labelled segments by name."""
    examples = {name: task.examples(name) for name in names}
    predictions = predict_task(predictor, tokenizer, trained, task, examples, batch_size)
    return {name: score(task, rows, predictions[name]) for name, rows in examples.items()}
