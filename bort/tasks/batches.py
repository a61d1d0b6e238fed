"""Encoded rows as batches: for training shuffled, with rows of like length together; for prediction by length, divided among workers.

Notable: the plan of a training epoch is a function of (seed, epoch) and of the size of an update over all workers. Workers and
micro-batches divide an update and do not change which rows it is made of, so 1 x 16, 2 x 8 and two micro-batches of 8 train on the same
updates. Every row counts once an epoch: where rows run out, a batch is filled with rows of weight 0, so that the engine sees few shapes.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.engine import ClassificationBatch
from bort.errors import BortError
from bort.randomness import Purpose, generator

_LENGTH_STEP = 8


@dataclass(frozen=True)
class EncodedRows:
    """Rows of one segment, ready to be batched.

    Attributes:
        input_ids: one array (T,) int32 a row, special tokens included.
        labels: (N,) float32; class numbers or scores, zeros where rows have none.
        pad_id: fills rows up to the length of their batch.
        max_len: positions that a batch may have at most, if T was limited; what rounding up its width must not exceed.
    """

    input_ids: Sequence[NDArray[np.int32]]
    labels: NDArray[np.float32]
    pad_id: int
    max_len: int | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """(N,) tokens of each row."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int32)

    def batch(self, rows: Sequence[int] | NDArray[np.int64], batch_size: int, dropout_seed: int = 0) -> ClassificationBatch:
        """The batch of ``rows``, at most ``batch_size`` and maybe none, filled up to ``batch_size`` with rows of one pad and weight 0."""
        chosen = [self.input_ids[row] for row in rows]
        count = len(chosen)
        # A row without any token would leave attention nothing to look at.
        lengths = np.ones(batch_size, dtype=np.int32)
        lengths[:count] = [len(ids) for ids in chosen]
        width = int(_padded(lengths.max()))
        input_ids = np.full((batch_size, width if self.max_len is None else min(width, self.max_len)), self.pad_id, dtype=np.int32)
        for index, ids in enumerate(chosen):
            input_ids[index, : len(ids)] = ids
        labels = np.zeros(batch_size, dtype=np.float32)
        labels[:count] = self.labels[np.asarray(rows, dtype=np.int64)]
        weights = (np.arange(batch_size) < count).astype(np.float32)
        return ClassificationBatch(input_ids, lengths, labels, weights, dropout_seed)


class TrainingPlan:
    """Which rows make up which update, and how workers and micro-batches divide it.

    An epoch is shuffled and cut into pools of about ``num_buckets`` updates each; a pool is sorted by length and cut into updates, and the
    updates of all pools are shuffled. So an update is a random sample of one length bucket among ``num_buckets``, with other neighbours
    every epoch, and each row has the same chance to be at any place of the epoch. What this costs: rows of very different lengths do not
    meet in an update; with ``num_buckets`` 1 they do, and an epoch is a plain shuffle. The rows that do not fill an update are drawn from
    all lengths and are the last, smaller one.

    An update is divided in order of length, first by micro-batch and then by worker, so that little of a micro-batch is padding and workers
    have like lengths at the same time. The last update of an epoch may leave some of them without rows.

    Args:
        lengths: (N,) tokens of each row, N at least 1.
        batch_size: rows a worker takes at once.
        accumulate: micro-batches an update.
        world_size: workers.
        num_buckets: lengths are told apart so finely; 1 ignores them.
        seed: of the order.

    Raises:
        BortError: if there are no rows.
    """

    def __init__(self, lengths: NDArray[np.int32], batch_size: int, accumulate: int, world_size: int, num_buckets: int, seed: int) -> None:
        if not len(lengths):
            raise BortError("no rows to train on")
        self._lengths, self._num_buckets, self._seed = lengths, num_buckets, seed
        self._batch_size, self._world_size = batch_size, world_size
        self._update_size = batch_size * accumulate * world_size
        self.steps_per_epoch = -(-len(lengths) // self._update_size)
        """Updates that see every row once."""
        self._latest = (-1, np.empty(0, dtype=np.int64))

    def rows(self, step: int, micro: int, rank: int) -> NDArray[np.int64]:
        """Rows of micro-batch ``micro`` of worker ``rank`` in update ``step`` of the run, all from 0, shortest first.

        At most ``batch_size``; at the end of an epoch fewer, or none.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self._update_size + (micro * self._world_size + rank) * self._batch_size
        return self._epoch(epoch)[first : first + self._batch_size]

    def padding(self, epoch: int = 0) -> float:
        """Share of the positions of an epoch's batches that hold no token of a row that counts, micro-batches without rows left out."""
        # Updates and micro-batches are whole but for the last, so the epoch is one row of micro-batches.
        longest = np.maximum.reduceat(self._lengths[self._epoch(epoch)], np.arange(0, len(self._lengths), self._batch_size))
        return 1.0 - float(self._lengths.sum(dtype=np.int64) / (self._batch_size * _padded(longest.astype(np.int64)).sum()))

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """All rows (N,), update behind update; the latest epoch is kept."""
        if self._latest[0] != epoch:
            random = generator(Purpose.ORDER, self._seed, epoch)
            order = random.permutation(len(self._lengths))
            full = len(order) // self._update_size
            num_pools = -(-full // self._num_buckets)
            # The rows that do not fill an update are a pool of their own behind the others.
            pools = np.append(np.arange(full) * num_pools // max(full, 1), num_pools)
            order = order[np.lexsort((self._lengths[order], np.repeat(pools, self._update_size)[: len(order)]))]
            updates = order[: full * self._update_size].reshape(full, self._update_size)
            order = np.concatenate([updates[random.permutation(full)].ravel(), order[updates.size :]])
            order.flags.writeable = False
            self._latest = (epoch, order)
        return self._latest[1]


def prediction_batches(
    rows: EncodedRows, batch_size: int, rank: int = 0, world_size: int = 1
) -> Iterator[tuple[NDArray[np.int64], ClassificationBatch]]:
    """The share of worker ``rank`` in all rows: the row numbers of a batch, and the batch.

    Rows of like length stand together, so that little is padding. Each row is on exactly one worker. Batches, the largest first, go to the
    worker that has the fewest positions so far, so the shares differ by no more than one batch. A worker may have none.
    """
    by_length = np.argsort(-rows.lengths, kind="stable")
    loads = [(0, worker) for worker in range(world_size)]
    for first in range(0, len(by_length), batch_size):
        chosen = by_length[first : first + batch_size]
        load, worker = loads[0]
        heapq.heapreplace(loads, (load + int(_padded(rows.lengths[chosen[0]])), worker))
        if worker == rank:
            yield chosen, rows.batch(chosen, batch_size)


def _padded(longest: Any) -> Any:
    """Positions for rows of at most so many tokens: the next multiple of a small step, since MXNet plans memory anew for each shape."""
    return -(-longest // _LENGTH_STEP) * _LENGTH_STEP
