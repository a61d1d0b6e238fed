"""Batches: every sequence once an epoch for any number of workers, and arrays that say what stands where."""

from __future__ import annotations

import numpy as np
import pytest

from bort.corpus.batches import PretrainingBatches
from bort.corpus.masking import Masker

VOCAB_SIZE, MASK_ID = 300, 299


class SmallVocab:
    bos_id, pad_id, eos_id, mask_id = 0, 1, 2, MASK_ID
    special_ids = (0, 1, 2, 3, MASK_ID)

    def __len__(self):
        return VOCAB_SIZE


class SmallCorpus:
    """Sequence i holds tokens that name it."""

    max_seq_length = 40

    def __len__(self):
        return 53

    def __getitem__(self, index):
        return np.full(1 + index % 38, 10 + index, dtype=np.int32)


@pytest.fixture
def batches():
    vocab = SmallVocab()
    return PretrainingBatches(SmallCorpus(), vocab, Masker(vocab, 0.15, 20, seed=4), seed=4)


def sequences_in(batch):
    """The sequence each row came from, told by a label, since every token of a sequence names it."""
    return [int(row[0]) - 10 for row in batch.masked_labels]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_an_epoch_holds_every_sequence_once_over_all_workers(batches, workers):
    seen = []
    for position in range(0, 53, workers):
        for rank in range(workers):
            mine = range(position + rank, min(position + rank + 1, 53))
            if mine:
                seen += sequences_in(batches.at(mine))
    assert sorted(seen) == list(range(53))


def test_the_next_epoch_has_another_order_and_other_masks(batches):
    first, second = batches.at(range(53)), batches.at(range(53, 106))
    assert sequences_in(first) != sequences_in(second)
    assert sorted(sequences_in(first)) == sorted(sequences_in(second))
    rows = {sequence: row for row, sequence in enumerate(sequences_in(second))}
    same = [
        np.array_equal(first.masked_positions[row], second.masked_positions[rows[sequence]])
        for row, sequence in enumerate(sequences_in(first))
        if sequence % 38 > 20
    ]
    assert sum(same) < len(same) / 2


def test_a_batch_across_two_epochs_is_the_two_parts(batches):
    across = batches.at(range(50, 57))
    assert sequences_in(across) == sequences_in(batches.at(range(50, 53))) + sequences_in(batches.at(range(53, 57)))


def test_arrays_say_what_stands_where(batches):
    batch = batches.at(range(20))
    assert batch.input_ids.shape[1] % 16 == 0 or batch.input_ids.shape[1] == 40
    for row, length in enumerate(batch.valid_length):
        sequence = sequences_in(batch)[row]
        assert length == 3 + sequence % 38
        assert batch.input_ids[row, 0] == 0
        assert batch.input_ids[row, length - 1] == 2
        assert (batch.input_ids[row, length:] == 1).all()
        used = batch.masked_weights[row].astype(bool)
        positions = batch.masked_positions[row, used]
        assert len(positions) == max(1, round((length - 2) * 0.15))
        assert positions.min() >= 1
        assert positions.max() <= length - 2
        assert (batch.masked_labels[row, used] == 10 + sequence).all()
        untouched = np.setdiff1d(np.arange(1, length - 1), positions)
        assert (batch.input_ids[row, untouched] == 10 + sequence).all()
        assert not batch.masked_positions[row, ~used].any()


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_evaluation_sees_every_sequence_once_with_the_same_masks(batches, workers):
    seen = {}
    for rank in range(workers):
        for batch in batches.evaluation(4, rank, workers):
            for row, sequence in enumerate(sequences_in(batch)):
                assert sequence not in seen
                seen[sequence] = batch.masked_positions[row][batch.masked_weights[row] > 0].tolist()
    assert len(seen) == 53
    reference = {
        sequence: batch.masked_positions[row][batch.masked_weights[row] > 0].tolist()
        for batch in batches.evaluation(53, 0, 1)
        for row, sequence in enumerate(sequences_in(batch))
    }
    assert seen == reference
