"""Encoded rows as batches: for training shuffled, with rows of similar length together; for prediction by length, divided among workers.

Notable: which rows an update is made of depends on the seed, the epoch and the size of an update over all workers, and not on how workers
and micro-batches divide it: one worker with batches of 16, two with batches of 8, and one with two micro-batches of 8 train on the same
updates. Every row counts once per epoch: where rows run out, a batch is filled with rows of weight 0, so that the engine sees few shapes.
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
        input_ids: one array (T,) int32 per row, special tokens included; T is at most ``max_len``.
        labels: (N,) float32; class numbers or scores, zeros where rows have none.
        pad_id: fills rows up to the width of their batch.
        max_len: positions that a batch may have at most, whatever its width is rounded up to.
    """

    input_ids: Sequence[NDArray[np.int32]]
    labels: NDArray[np.float32]
    pad_id: int
    max_len: int

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> NDArray[np.int32]:
        """(N,) tokens of each row."""
        return np.array([len(ids) for ids in self.input_ids], dtype=np.int32)

    def batch(self, rows: Sequence[int] | NDArray[np.int64], batch_size: int, dropout_seed: int = 0) -> ClassificationBatch:
        """The batch of ``rows``, from none to ``batch_size``, filled up to ``batch_size`` with rows of one padding token and weight 0."""
        chosen = [self.input_ids[row] for row in rows]
        count = len(chosen)
        # Attention needs at least one token in every row.
        lengths = np.ones(batch_size, dtype=np.int32)
        lengths[:count] = [len(ids) for ids in chosen]
        width = min(int(_padded(lengths.max())), self.max_len)
        input_ids = np.full((batch_size, width), self.pad_id, dtype=np.int32)
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
    every epoch, and each row is equally likely at any place of the epoch. What this costs: rows of very different lengths do not meet in an
    update; with ``num_buckets`` 1 they do, and an epoch is a plain shuffle. The rows that are left over, too few for a whole update, are
    drawn from all lengths and make the last, smaller one.

    An update is divided in order of length, first by micro-batch and then by worker, so that little of a micro-batch is padding and workers
    have rows of similar length at the same time. In the last update of an epoch some of them may have no rows.

    Args:
        lengths: (N,) tokens of each row, N at least 1.
        batch_size: rows of one micro-batch of one worker.
        accumulate: micro-batches per update.
        world_size: workers.
        num_buckets: number of length buckets; 1 disables bucketing.
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
        """Updates that take every row once."""
        self._latest = (-1, np.empty(0, dtype=np.int64))

    def rows(self, step: int, micro: int, rank: int) -> NDArray[np.int64]:
        """Rows of micro-batch ``micro`` of worker ``rank`` in update ``step`` of the run, all counted from 0; the shortest row first.

        They are ``batch_size``; at the end of an epoch fewer, or none.
        """
        epoch, place = divmod(step, self.steps_per_epoch)
        first = place * self._update_size + (micro * self._world_size + rank) * self._batch_size
        return self._epoch(epoch)[first : first + self._batch_size]

    def epochs(self, updates: int) -> int:
        """Epochs begun by so many updates."""
        return -(-updates // self.steps_per_epoch)

    def padding(self) -> float:
        """Share of the first epoch's positions that are padding, filled-up rows included; micro-batches without rows do not count."""
        # All updates and micro-batches but the last are whole, so cutting the epoch at every ``batch_size`` gives the micro-batches.
        longest = np.maximum.reduceat(self._lengths[self._epoch(0)], np.arange(0, len(self._lengths), self._batch_size))
        return 1.0 - float(self._lengths.sum(dtype=np.int64) / (self._batch_size * _padded(longest.astype(np.int64)).sum()))

    def _epoch(self, epoch: int) -> NDArray[np.int64]:
        """Numbers of all rows, (N,), one update after another; those of the latest epoch are kept."""
        if self._latest[0] != epoch:
            random = generator(Purpose.ORDER, self._seed, epoch)
            order = random.permutation(len(self._lengths))
            full = len(order) // self._update_size
            num_pools = -(-full // self._num_buckets)
            # The rows that are left over are a pool of their own, after the others.
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
    """Yield the batches of worker ``rank``, each with the numbers of its rows; every row is in exactly one batch of one worker.

    Rows of similar length are together, so that little is padding. Batches, the largest first, go to the worker that has the fewest
    positions so far, so the workers' positions differ by no more than one batch. A worker may have no batch.
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
    """Width of a batch whose longest row has so many tokens: a multiple of a small step, since MXNet plans memory anew for each shape."""
    return -(-longest // _LENGTH_STEP) * _LENGTH_STEP
