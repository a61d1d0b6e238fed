"""The arrays of each worker's batches.

Notable: what an update is made of is planned for all workers together (``bort/corpus/plan.py``) and then divided, so that a run on more
workers, or with more micro-batches, sees the same sequences as long as the global batch is the same.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.corpus.plan import LENGTH_STEP, UpdatePlan, round_up
from bort.corpus.sequences import SequenceSource
from bort.engine import PretrainingBatch
from bort.errors import BortError
from bort.randomness import dropout_seed
from bort.settings import PretrainingSettings

_PREDICTIONS_STEP = 4


class PretrainingBatches:
    """Batches of masked sequences for every worker.

    Args:
        sequences: what they are made of.
        pad_id: fills rows up to the length of their batch.
        settings: size and number of micro-batches, buckets and seed.
        world_size: number of workers.

    Raises:
        BortError: if batches are made by number of tokens and the longest sequence has more than one may hold.
    """

    def __init__(self, sequences: SequenceSource, pad_id: int, settings: PretrainingSettings, world_size: int) -> None:
        longest = int(sequences.lengths.max())
        if settings.use_avg_len and settings.batch_size < longest:
            raise BortError(
                f"batch_size {settings.batch_size} counts tokens with use_avg_len and the longest sequence has {longest}; "
                f"give at least {longest}, or leave use_avg_len out"
            )
        self._sequences, self._pad_id, self._settings, self._world_size = sequences, pad_id, settings, world_size
        self._parts = settings.accumulate * world_size
        update_size = settings.batch_size * self._parts
        self._plan = UpdatePlan(sequences.lengths, update_size, settings.use_avg_len, settings.num_buckets, settings.seed)
        self.steps_per_epoch = self._plan.steps_per_epoch
        """Updates that see every sequence once."""

    def update(self, step: int, rank: int) -> list[PretrainingBatch]:
        """The micro-batches of worker ``rank`` for update ``step`` (from 0).

        An update is divided in order of length, first by micro-batch and then by worker, so workers have like lengths at the same time.
        The parts differ by one sequence at most; where an update has fewer sequences than parts, at the end of an epoch, a worker has
        fewer micro-batches, or none.
        """
        epoch, update = self._plan.update(step)
        update = update[np.argsort(self._sequences.lengths[update], kind="stable")]
        return [
            self._collate(epoch, part, dropout_seed(self._settings.seed, step, micro, rank))
            for micro, part in enumerate(np.array_split(update, self._parts)[rank :: self._world_size])
            if len(part)
        ]

    def evaluation(self, rank: int) -> Iterator[PretrainingBatch]:
        """The share of worker ``rank`` in all sequences, with the masks of epoch 0, each sequence on exactly one worker.

        The longest come first, so that memory runs out at once or not at all; a batch by number of tokens has no more with its padding,
        unless padding alone makes one sequence too long.
        """
        share = self._plan.by_length[::-1][rank :: self._world_size]
        first = 0
        while first < len(share):
            size = self._settings.batch_size
            if self._settings.use_avg_len:
                size = max(1, size // int(self._padded_length(self._sequences.lengths[share[first]])))
            yield self._collate(0, share[first : first + size], 0)
            first += size

    def padding_waste(self, epoch: int = 0) -> float:
        """Share of the positions of an epoch's training batches, over all workers, that are padding."""
        sequences, _ = self._plan.epoch(epoch)
        # The parts that np.array_split makes of each update: the first few are longer by one.
        bounds, part = self._plan.bounds, np.arange(self._parts)
        size, longer = np.divmod(np.diff(bounds)[:, None], self._parts)
        firsts = bounds[:-1, None] + part * size + np.minimum(part, longer)
        sizes = size + (part < longer)
        firsts, sizes = firsts[sizes > 0], sizes[sizes > 0]
        # One sort puts the lengths of each update in order: its number stands in the upper bits.
        keys = np.repeat(np.arange(len(bounds) - 1, dtype=np.int64) << 32, np.diff(bounds)) | self._sequences.lengths[sequences]
        keys.sort()
        lengths = keys & 0xFFFFFFFF
        slots = self._padded_length(lengths[firsts + sizes - 1]) * sizes
        return 1.0 - float(lengths.sum() / slots.sum())

    def _padded_length(self, longest: Any) -> Any:
        return np.minimum(round_up(longest, LENGTH_STEP), self._sequences.max_seq_length)

    def _collate(self, epoch: int, indices: NDArray[Any], seed: int) -> PretrainingBatch:
        rows = [self._sequences.masked(epoch, int(index)) for index in indices]
        valid_length = np.array([len(row.token_ids) for row in rows], dtype=np.int32)
        num_predictions = np.array([len(row.positions) for row in rows])
        length = int(self._padded_length(valid_length.max()))
        width = max(_PREDICTIONS_STEP, round_up(int(num_predictions.max()), _PREDICTIONS_STEP))
        return PretrainingBatch(
            _pad([row.token_ids for row in rows], valid_length, length, self._pad_id),
            valid_length,
            _pad([row.positions for row in rows], num_predictions, width, 0),
            _pad([row.labels for row in rows], num_predictions, width, 0),
            (np.arange(width) < num_predictions[:, None]).astype(np.float32),
            seed,
        )


def _pad(rows: Sequence[NDArray[Any]], lengths: NDArray[Any], width: int, filler: int) -> NDArray[np.int32]:
    array = np.full((len(rows), width), filler, dtype=np.int32)
    array[np.arange(width) < lengths[:, None]] = np.concatenate(rows)
    return array
