"""What a fine-tuning run learns from, is judged by and predicts: rows as texts and as input ids, and their logits over all workers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.engine import ClassifierEngine
from bort.settings import FinetuningSettings
from bort.tasks import Example, Task, diagnostic_tasks
from bort.tasks.batches import EncodedRows, prediction_batches
from bort.tasks.cache import encode_segment
from bort.tokenizer import Tokenizer


@dataclass(frozen=True)
class TaskRows:
    """What a run learns from and is judged by.

    Attributes:
        train: encoded training rows.
        dev_examples: dev rows by segment.
        dev: the same, encoded.
        unseen: tasks to predict, this one and its diagnostic sets, with the test segments that are here and their rows.
    """

    train: EncodedRows
    dev_examples: Mapping[str, list[Example]]
    dev: Mapping[str, EncodedRows]
    unseen: Sequence[tuple[Task, Mapping[str, list[Example]]]]

    def fingerprint(self) -> str:
        """SHA-256 of the input ids and labels of all training and dev rows."""
        digest = hashlib.sha256()
        for rows in (self.train, *self.dev.values()):
            digest.update(rows.lengths.tobytes() + rows.labels.tobytes())
            for ids in rows.input_ids:
                digest.update(np.ascontiguousarray(ids).data)
        return digest.hexdigest()

    def test_fingerprints(self) -> dict[str, str]:
        """SHA-256 of ids and texts of the test rows that are here, by the name of the leaderboard file that answers them."""
        fingerprints = {}
        for task, segments in self.unseen:
            for segment in task.segments:
                digest = hashlib.sha256()
                for example in segments[segment.name]:
                    digest.update(json.dumps([example.id, example.texts, example.candidate, example.question_start]).encode())
                fingerprints[str(segment.leaderboard_file)] = digest.hexdigest()
        return fingerprints

    def task_of(self, leaderboard_file: str) -> str:
        """Name of the task whose test rows that file answers."""
        return next(task.name for task, _ in self.unseen if leaderboard_file in [segment.leaderboard_file for segment in task.segments])

    def dev_logits(self, engine: ClassifierEngine, batch_size: int, num_classes: int) -> dict[str, NDArray[np.float32]]:
        """Logits of the dev rows by segment, on every worker."""
        return {name: predict_together(engine, rows, batch_size, num_classes) for name, rows in self.dev.items()}


def read_rows(engine: ClassifierEngine, task: Task, tokenizer: Tokenizer, settings: FinetuningSettings, cache: Path | None) -> TaskRows:
    """Read every file of a task and of its diagnostic sets, those of the test sets too where they are here.

    All of it before training, so that a damaged test file is found now and not after hours.

    Args:
        cache: where tokenised rows are kept, filled by worker 0 before the others look; None keeps none.

    Raises:
        BortError: if a training or dev file is missing, or any file is damaged.
    """

    def encode(segment: str, examples: list[Example]) -> EncodedRows:
        return encode_segment(task, segment, examples, tokenizer, settings.max_len, settings.keep_question, cache)

    if engine.rank > 0 and cache is not None:
        # A barrier: worker 0 passes it when it has filled the cache.
        engine.agree(0)
    train = {name: encode(name, task.examples(name)) for name in task.segment_names("train")}
    dev = {name: task.examples(name) for name in task.segment_names("dev")}
    encoded_dev = {name: encode(name, examples) for name, examples in dev.items()}
    if engine.rank == 0 and cache is not None:
        engine.agree(0)
    unseen = []
    for other in (task, *diagnostic_tasks(task)):
        present = tuple(segment for segment in other.segments if segment.leaderboard_file and other.is_present(segment.name))
        if present:
            unseen.append((replace(other, segments=present), {segment.name: other.examples(segment.name) for segment in present}))
    return TaskRows(train["train"], dev, encoded_dev, unseen)


def predict_together(engine: ClassifierEngine, rows: EncodedRows, batch_size: int, num_classes: int) -> NDArray[np.float32]:
    """Logits of every row, (N, num_classes), in the order of the rows, on every worker; each worker labels its share.

    Blocks until the device is done.
    """
    logits = np.zeros((len(rows), num_classes), dtype=np.float32)
    for chosen, batch in prediction_batches(rows, batch_size, engine.rank, engine.world_size):
        logits[chosen] = engine.predict(batch)[: len(chosen)]
    return engine.sum_over_workers(logits)
