"""Which sequences make up which update of a run, over all workers.

Sequences of like length stand together in a bucket, and an update takes its sequences from one bucket, so that little is padding. The
plan of an epoch (each bucket shuffled, then the updates of all buckets) is a function of (seed, epoch); update *s* of a run is number
``s % steps_per_epoch`` of epoch ``s // steps_per_epoch``. So every sequence is seen exactly once an epoch, and a run resumes without a
seek.

Notable: the plan knows neither workers nor micro-batches. They divide an update, and do not change what it is made of.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.randomness import Purpose, generator

LENGTH_STEP = 16
"""Batches are padded to a multiple of it, since MXNet plans memory anew for each shape; so a bucket need not be narrower."""

MOST_PADDED = 2
"""Times its tokens that an update may hold with its padding, where batches are made by number of tokens."""

# With fewer, the same sequences would meet in an update again and again.
_FEWEST_UPDATES = 8


@dataclass(frozen=True)
class Bucket:
    """Neighbours in the order of length.

    Attributes:
        first, end: its first place in that order, and the place behind its last one.
        sequences_per_update: divides ``end - first``, but for the last bucket, whose last update is what remains.
    """

    first: int
    end: int
    sequences_per_update: int


def cut_buckets(lengths: NDArray[np.int32], update_size: int, use_avg_len: bool, num_buckets: int) -> list[Bucket]:
    """Divide sequences into buckets by length.

    Each length, rounded up to ``LENGTH_STEP``, has a bucket of its own at first. Those with fewer than eight updates, and then as many
    as there are too many, are joined with a neighbour, always where that adds the least padding; few sequences have one bucket, which is
    a plain shuffle. What does not fill an update of its bucket goes to the next longer one.

    Args:
        lengths: (N,) tokens of each sequence, N at least 1.
        update_size: sequences of an update; with ``use_avg_len`` its tokens, of which a bucket makes a number of sequences by their average
            length, rounded down, but no more than fit into ``MOST_PADDED`` times as many positions if all were as long as the bucket's
            longest; at least one.
        num_buckets: at most so many.

    Returns:
        Buckets in order of length, without gaps.
    """
    of_length = np.bincount(lengths)
    present = np.flatnonzero(of_length)
    widths, where = np.unique(round_up(present, LENGTH_STEP), return_index=True)
    counts = np.add.reduceat(of_length[present], where)
    tokens = np.add.reduceat(of_length[present] * present, where)
    while True:
        per_update = np.full(len(counts), update_size)
        if use_avg_len:
            per_update = np.maximum(np.minimum(update_size * counts // tokens, MOST_PADDED * update_size // widths), 1)
        small = counts < _FEWEST_UPDATES * per_update
        if len(counts) == 1 or (len(counts) <= num_buckets and not small.any()):
            break
        added_padding = (counts[:-1] * np.diff(widths)).astype(np.float64)
        if small.any():
            added_padding[~(small[:-1] | small[1:])] = np.inf
        joined = int(np.argmin(added_padding))
        counts[joined + 1] += counts[joined]
        tokens[joined + 1] += tokens[joined]
        widths, counts, tokens = (np.delete(array, joined) for array in (widths, counts, tokens))

    buckets = []
    first = 0
    for end, number in zip(np.cumsum(counts).tolist(), per_update.tolist(), strict=True):
        is_last = end == len(lengths)
        end = end if is_last else end - (end - first) % number
        buckets.append(Bucket(first, end, number))
        first = end
    return buckets


class UpdatePlan:
    """The sequences of every update.

    Memory: two integers a sequence, of the smallest type that holds their number.

    Args:
        lengths: (N,) tokens of each sequence, N at least 1.
        update_size, use_avg_len, num_buckets: as for :func:`cut_buckets`.
        seed: fixes the order.
    """

    def __init__(self, lengths: NDArray[np.int32], update_size: int, use_avg_len: bool, num_buckets: int, seed: int) -> None:
        self._seed = seed
        self.buckets = cut_buckets(lengths, update_size, use_avg_len, num_buckets)
        # NumPy sorts integers of 16 bits in linear time.
        sortable = lengths.astype(np.min_scalar_type(lengths.max()), copy=False)
        self.by_length: NDArray[Any] = np.argsort(sortable, kind="stable").astype(np.min_scalar_type(len(lengths)))
        """(N,) sequences, shortest first."""
        starts = [np.arange(bucket.first, bucket.end, bucket.sequences_per_update) for bucket in self.buckets]
        self.bounds: NDArray[np.int64] = np.append(np.concatenate(starts), len(lengths))
        """(steps_per_epoch + 1,) where each update begins in a shuffled epoch, before the updates themselves are shuffled."""
        self.steps_per_epoch = len(self.bounds) - 1
        self._latest = (-1, self.by_length, self.bounds)

    def update(self, step: int) -> tuple[int, NDArray[Any]]:
        """The epoch of update ``step`` (from 0), and its sequences."""
        epoch, place = divmod(step, self.steps_per_epoch)
        sequences, order = self.epoch(epoch)
        first = order[place]
        return epoch, sequences[self.bounds[first] : self.bounds[first + 1]]

    def epoch(self, epoch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """The plan of an epoch; the latest one is kept. Not to be written to.

        Returns:
            All sequences (N,), each bucket shuffled; and the order (steps_per_epoch,) of the updates whose ``bounds`` divide them.
        """
        latest, sequences, order = self._latest
        if epoch != latest:
            random = generator(Purpose.ORDER, self._seed, epoch)
            sequences = self.by_length.copy()
            for bucket in self.buckets:
                random.shuffle(sequences[bucket.first : bucket.end])
            order = random.permutation(self.steps_per_epoch)
            self._latest = (epoch, sequences, order)
        return sequences, order


def round_up(value: Any, step: int) -> Any:
    """The next multiple of ``step`` from ``value`` (a number or an array) on."""
    return -(-value // step) * step
