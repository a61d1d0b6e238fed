"""Which sequences make up which batch, and their arrays.

Notable: position *p* of a run is one integer. It stands in epoch ``p // n`` of a corpus of *n* sequences, at place ``p % n`` of that
epoch's shuffle, whatever the number of workers; so every sequence is seen exactly once an epoch, and a run resumes without a seek.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from bort.corpus.masking import Masker
from bort.corpus.shards import Corpus
from bort.engine import PretrainingBatch
from bort.randomness import epoch_order
from bort.vocabulary import Vocab

# MXNet plans memory anew for each shape, so lengths and numbers of predictions come in few sizes.
_LENGTH_STEP = 16
_PREDICTIONS_STEP = 4


class PretrainingBatches:
    """Masked batches of a corpus.

    Args:
        corpus: sequences.
        vocab: its vocabulary.
        masker: how they are masked.
        seed: fixes the order.
    """

    def __init__(self, corpus: Corpus, vocab: Vocab, masker: Masker, seed: int) -> None:
        self._corpus = corpus
        self._vocab = vocab
        self._masker = masker
        self._seed = seed

    def at(self, positions: Sequence[int], dropout_seed: int = 0) -> PretrainingBatch:
        """The batch of the sequences at ``positions`` of the shuffled run."""
        size = len(self._corpus)
        numbered = [(position // size, int(epoch_order(self._seed, position // size, size)[position % size])) for position in positions]
        return self._collate(numbered, dropout_seed)

    def evaluation(self, batch_size: int, rank: int, world_size: int) -> Iterator[PretrainingBatch]:
        """This worker's share of the whole corpus, in its own order with the masks of epoch 0, each sequence on exactly one worker."""
        share = range(rank, len(self._corpus), world_size)
        for first in range(0, len(share), batch_size):
            yield self._collate([(0, sequence) for sequence in share[first : first + batch_size]], 0)

    def _collate(self, numbered: Sequence[tuple[int, int]], dropout_seed: int) -> PretrainingBatch:
        rows = []
        for epoch, sequence in numbered:
            tokens = self._corpus[sequence]
            masked, positions = self._masker.mask(tokens, epoch, sequence)
            rows.append((tokens, masked, positions))
        length = min(_round_up(2 + max(len(tokens) for tokens, _, _ in rows), _LENGTH_STEP), self._corpus.max_seq_length)
        predictions = _round_up(max(len(positions) for _, _, positions in rows), _PREDICTIONS_STEP)
        input_ids = np.full((len(rows), length), self._vocab.pad_id, dtype=np.int32)
        masked_positions = np.zeros((len(rows), predictions), dtype=np.int32)
        masked_labels = np.zeros((len(rows), predictions), dtype=np.int32)
        masked_weights = np.zeros((len(rows), predictions), dtype=np.float32)
        valid_length = np.array([len(tokens) + 2 for tokens, _, _ in rows], dtype=np.int32)
        for row, (tokens, masked, positions) in enumerate(rows):
            input_ids[row, 0] = self._vocab.bos_id
            input_ids[row, 1 : 1 + len(masked)] = masked
            input_ids[row, 1 + len(masked)] = self._vocab.eos_id
            masked_positions[row, : len(positions)] = positions + 1
            masked_labels[row, : len(positions)] = tokens[positions]
            masked_weights[row, : len(positions)] = 1.0
        return PretrainingBatch(input_ids, valid_length, masked_positions, masked_labels, masked_weights, dropout_seed)


def _round_up(value: int, step: int) -> int:
    return -(-value // step) * step
