"""What the best model of a fine-tuning run answers: a picture of its errors on the dev rows, and the leaderboard files of the test rows.

Notable: it is read back from the disk, so both show what a user of ``best/`` will get.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.engine import ClassifierEngine
from bort.files import whole_directory
from bort.model_directory import PARAMETERS_FILE
from bort.parameters import read_parameters
from bort.tasks import Task
from bort.tasks.cache import encode_segment
from bort.tasks.leaderboard import write_predictions
from bort.training.best import BEST_FOLDER
from bort.training.confusion import draw_confusion_matrix, draw_scores
from bort.training.finetuning_job import Job, require_finite
from bort.training.task_rows import TaskRows, predict_together

PREDICTIONS_FOLDER, MATRIX_FILE, SCORES_FILE = "predictions", "confusion_matrix.png", "scores.png"


def write_answers(job: Job, done: int) -> list[str]:
    """Draw the errors of the best model, and write ``predictions/`` where there are test rows; every worker computes its share.

    Args:
        done: updates of the run.

    Returns:
        The leaderboard files, relative to the run's folder; on worker 0 alone.

    Raises:
        BortError: if the model's file is damaged, or an output is not finite.
        OSError: if something cannot be written.
    """
    engine, task, settings = job.engine, job.task, job.settings
    _load_best(engine, job.output)
    logits = job.dev_logits(done)
    if engine.rank == 0:
        _draw_errors(task, job.data, logits, job.output)
    answers = []
    for other, segments in job.data.unseen:
        predictions = {}
        for name, examples in segments.items():
            rows = encode_segment(other, name, examples, job.tokenizer, settings.max_len, settings.keep_question, job.cache)
            test_logits = predict_together(engine, rows, settings.dev_batch_size, task.num_classes)
            require_finite({name: test_logits}, job.output, done)
            predictions[name] = other.decide(examples, test_logits)
        answers.append((other, segments, predictions))
    if engine.rank > 0 or not answers:
        return []
    with whole_directory(job.output / PREDICTIONS_FOLDER) as partial:
        written = [path.name for other, segments, found in answers for path in write_predictions(other, segments, found, partial)]
    return [f"{PREDICTIONS_FOLDER}/{name}" for name in written]


def _load_best(engine: ClassifierEngine, output: Path) -> None:
    """Give every worker the parameters that worker 0 has on its disk."""
    own = engine.parameters()
    # Summed with zeros they reach the workers that have no such disk.
    kept = read_parameters(output / BEST_FOLDER / PARAMETERS_FILE) if engine.rank == 0 else {name: np.zeros_like(own[name]) for name in own}
    engine.load_state({name: engine.sum_over_workers(kept[name]) for name in sorted(own)})


def _draw_errors(task: Task, data: TaskRows, logits: Mapping[str, NDArray[np.float32]], output: Path) -> None:
    predictions = np.concatenate([task.decide(examples, logits[name]) for name, examples in data.dev_examples.items()])
    truth = np.array([example.label for examples in data.dev_examples.values() for example in examples], dtype=np.float64)
    title = f"{task.name}: {' and '.join(data.dev_examples)}, {len(truth):,} rows"
    if task.is_regression:
        draw_scores(output / SCORES_FILE, truth, predictions, title)
    else:
        draw_confusion_matrix(output / MATRIX_FILE, [str(label) for label in task.leaderboard_labels], truth, predictions, title)
