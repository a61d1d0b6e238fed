"""Encoded rows as batches: shuffled and full for training, in file order for prediction.

Notable: the order of an epoch is a function of (seed, epoch). The last batch of an epoch keeps its size by repeating a row with weight 0,
so every row counts exactly once an epoch and the engine sees few shapes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bort.engine import ClassificationBatch
from bort.randomness import epoch_order

_LENGTH_STEP = 16


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one segment, ready to be batched.

    Attributes:
        input_ids: one array (T,) int32 a row, special tokens included.
        labels: (N,) float32; class numbers or scores, zeros where rows have none.
        pad_id: fills rows up to the length of their batch.
    """

    input_ids: Sequence[NDArray[np.int32]]
    labels: NDArray[np.float32]
    pad_id: int

    def __len__(self) -> int:
        return len(self.input_ids)

    def batch(self, rows: Sequence[int] | NDArray[np.int64], batch_size: int, dropout_seed: int = 0) -> ClassificationBatch:
        """The batch of ``rows``, filled up to ``batch_size`` with repetitions that have weight 0."""
        chosen = [*rows, *([rows[0] if len(rows) else 0] * (batch_size - len(rows)))]
        lengths = np.array([len(self.input_ids[row]) for row in chosen], dtype=np.int32)
        width = -(-int(lengths.max()) // _LENGTH_STEP) * _LENGTH_STEP
        input_ids = np.full((batch_size, width), self.pad_id, dtype=np.int32)
        for index, row in enumerate(chosen):
            input_ids[index, : lengths[index]] = self.input_ids[row]
        weights = (np.arange(batch_size) < len(rows)).astype(np.float32)
        return ClassificationBatch(input_ids, lengths, self.labels[chosen], weights, dropout_seed)


def steps_per_epoch(num_rows: int, global_batch: int) -> int:
    """Updates that see every row once."""
    return -(-num_rows // global_batch)


def training_rows(num_rows: int, global_batch: int, step: int, seed: int) -> NDArray[np.int64]:
    """Rows of update ``step`` over all workers, at most ``global_batch``; fewer at the end of an epoch."""
    epoch, place = divmod(step, steps_per_epoch(num_rows, global_batch))
    return epoch_order(seed, epoch, num_rows)[place * global_batch : (place + 1) * global_batch]


def prediction_batches(rows: EncodedRows, batch_size: int) -> Iterator[tuple[Sequence[int], ClassificationBatch]]:
    """All rows, once each: the row numbers of a batch, and the batch; rows of similar length together, so that little is padding."""
    by_length = sorted(range(len(rows)), key=lambda row: len(rows.input_ids[row]))
    for first in range(0, len(by_length), batch_size):
        chosen = by_length[first : first + batch_size]
        yield chosen, rows.batch(chosen, batch_size)
