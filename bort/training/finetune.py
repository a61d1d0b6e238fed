"""The fine-tuning loop: train on a task, keep the epoch with the best dev score, predict the test set.

Notable: an epoch is judged by the task's own score, the mean over its metrics and dev segments; the best epoch's classifier is on disk
before the next begins, and the leaderboard files are made with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.engine import ClassifierEngine, Predictor
from bort.errors import BortError
from bort.model_directory import TrainedTask, write_model_directory
from bort.randomness import dropout_seed
from bort.settings import FinetuningSettings
from bort.tasks import Example, Task
from bort.tasks.batches import EncodedRows, prediction_batches, steps_per_epoch, training_rows
from bort.tasks.encoding import encode_examples
from bort.tasks.leaderboard import write_predictions
from bort.tasks.metrics import majority_score, score, task_score
from bort.tokenizer import Tokenizer
from bort.training.journal import Journal
from bort.training.schedule import LinearSchedule

BEST_FOLDER, PREDICTIONS_FOLDER = "best", "predictions"


@dataclass(frozen=True)
class FinetuningResult:
    """Outcome of a run.

    Attributes:
        best_epoch: the epoch that was kept, from 1.
        dev: metrics of that epoch by dev segment.
        majority: metrics of answering every dev row with the commonest class.
        files: leaderboard files, empty where the task has no test file here.
    """

    best_epoch: int
    dev: Mapping[str, Mapping[str, float]]
    majority: Mapping[str, Mapping[str, float]]
    files: tuple[Path, ...]


def finetune(
    engine: ClassifierEngine,
    config: BortConfig,
    tokenizer: Tokenizer,
    task: Task,
    output: Path,
    settings: FinetuningSettings,
) -> FinetuningResult:
    """Train a classifier for ``task`` and write ``output/best/`` and ``output/predictions/``.

    Args:
        engine: the classifier, on this worker.
        config: sizes of its encoder.
        output: run folder.

    Raises:
        BortError: if a training or dev file is missing, any file is damaged, or the task has no training rows. A task without test files is
            trained all the same.
    """
    if not task.segment_names("train"):
        raise BortError(
            f"{task.name} has no training rows; its test set is labelled by a model of {task.predicted_by}: bort predict --help"
        )
    max_len = min(settings.max_len, config.max_position_embeddings)
    rows = encode_rows(task.examples("train"), tokenizer, max_len)
    dev = {name: task.examples(name) for name in task.segment_names("dev")}
    encoded_dev = {name: encode_rows(examples, tokenizer, max_len) for name, examples in dev.items()}
    dev_labels = {name: np.array([example.label for example in examples]) for name, examples in dev.items()}
    # Read before training, so that a damaged test file is found now and not after hours.
    test = {name: task.examples(name) for name in task.segment_names("test") if task.is_present(name)}
    global_batch = settings.batch_size * engine.world_size * settings.accumulate
    steps = steps_per_epoch(len(rows), global_batch)
    schedule = LinearSchedule(settings.lr, settings.epochs * steps, settings.warmup_ratio)
    trained = TrainedTask(task.name, task.labels, max_len)
    is_first = engine.rank == 0
    best_epoch, best_score, best = 0, -np.inf, dict[str, dict[str, float]]()
    best_parameters: dict[str, np.ndarray] = {}

    with Journal(output if is_first else None, settings.epochs * steps, 0, f"finetune {task.name}") as journal:
        for epoch in range(settings.epochs):
            for step in range(epoch * steps, (epoch + 1) * steps):
                together = training_rows(len(rows), global_batch, step, settings.seed)
                for micro in range(settings.accumulate):
                    first = (micro * engine.world_size + engine.rank) * settings.batch_size
                    mine = together[first : first + settings.batch_size]
                    seed = dropout_seed(settings.seed, step, micro, engine.rank)
                    engine.accumulate(rows.batch(mine, settings.batch_size, seed))
                engine.update(schedule(step))
                journal.advance()
            done = (epoch + 1) * steps
            sums = engine.drain()
            if not math.isfinite(sums["loss"]):
                raise BortError(f"{task.name}: the loss is not finite in epoch {epoch + 1}; train again with a lower --lr")
            train = {
                "loss": sums["loss"] / sums["rows"],
                "accuracy": sums["correct"] / sums["rows"],
                "gradient_norm": sums["gradient_norm"] / sums["updates"],
            }
            if task.is_regression:
                del train["accuracy"]
            journal.record(done, "train", train | {"learning_rate": schedule(done - 1)})
            predictions = {name: predict(engine, task, encoded, settings.batch_size) for name, encoded in encoded_dev.items()}
            metrics = {name: score(task, predictions[name], dev_labels[name]) for name in dev}
            own_score = task_score(metrics)
            journal.record(done, "eval", {"score": own_score} | _flatten(metrics))
            if own_score > best_score:
                best_epoch, best_score, best = epoch + 1, own_score, metrics
                best_parameters = engine.parameters()
                if is_first:
                    write_model_directory(output / BEST_FOLDER, config, best_parameters, tokenizer, trained)

    files: list[Path] = []
    if is_first and len(test) == len(task.segment_names("test")):
        engine.load_state(best_parameters)
        files = write_test_predictions(engine, tokenizer, task, test, max_len, output / PREDICTIONS_FOLDER, settings.batch_size)
    majority = {name: majority_score(task, labels) for name, labels in dev_labels.items()}
    return FinetuningResult(best_epoch, best, majority, tuple(files))


def encode_rows(examples: list[Example], tokenizer: Tokenizer, max_len: int) -> EncodedRows:
    """Examples as input ids of at most ``max_len`` and labels; an absent label is 0."""
    labels = np.array([example.label or 0 for example in examples], dtype=np.float32)
    return EncodedRows(encode_examples(examples, tokenizer, max_len), labels, tokenizer.vocab.pad_id)


def predict(predictor: Predictor, task: Task, rows: EncodedRows, batch_size: int) -> NDArray[np.float32]:
    """Class numbers, or scores where the task is a regression: (N,), in the order of the rows."""
    logits = predict_logits(predictor, rows, batch_size)
    return logits[:, 0] if task.is_regression else logits.argmax(axis=1)


def predict_logits(predictor: Predictor, rows: EncodedRows, batch_size: int) -> NDArray[np.float32]:
    """Logits of every row, (N, num_classes), in the order of the rows.

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


def write_test_predictions(
    predictor: Predictor,
    tokenizer: Tokenizer,
    task: Task,
    test: Mapping[str, list[Example]],
    max_len: int,
    folder: Path,
    batch_size: int,
) -> list[Path]:
    """Label the test segments of ``task``, given by name, and write its leaderboard files to ``folder``."""
    predictions = {name: predict(predictor, task, encode_rows(rows, tokenizer, max_len), batch_size) for name, rows in test.items()}
    return write_predictions(task, test, predictions, folder)


def _flatten(metrics: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """``{"f1": …}`` for one segment, ``{"dev_matched_accuracy": …}`` for several."""
    return {
        (name if len(metrics) == 1 else f"{segment}_{name}"): value for segment, values in metrics.items() for name, value in values.items()
    }
