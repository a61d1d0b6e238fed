"""Batches: every sequence once an epoch over all workers, the same updates however divided, and arrays that say what stands where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bort import BortError
from bort.corpus.batches import PretrainingBatches
from bort.corpus.sequences import MaskedSequence
from bort.randomness import dropout_seed
from bort.settings import PretrainingSettings

PAD_ID, LONGEST = 1, 40


class NumberedSequences:
    """Sequence i holds the token 10 + i alone; every fifth position of it, from the epoch on, is to be predicted."""

    fingerprint = "numbered"

    def __init__(self, lengths, max_seq_length=LONGEST):
        self.lengths = np.asarray(lengths, dtype=np.int32)
        self.max_seq_length = max_seq_length

    def __len__(self):
        return len(self.lengths)

    def masked(self, epoch, index):
        length = int(self.lengths[index])
        positions = np.arange(1 + epoch % 2, length - 1, 5)
        return MaskedSequence(np.full(length, 10 + index, dtype=np.int32), positions, np.full(len(positions), 10 + index, dtype=np.int32))


def some_lengths(count, seed=0, longest=LONGEST):
    return np.random.default_rng(seed).integers(4, longest + 1, size=count)


def sequences_in(batch):
    return (batch.input_ids[:, 0] - 10).tolist()


def update_of(batches, step, workers):
    """Sequences of each micro-batch of each worker."""
    return [[sequences_in(batch) for batch in batches.update(step, rank)] for rank in range(workers)]


def flat(update):
    return [sequence for worker in update for micro_batch in worker for sequence in micro_batch]


DIVISIONS = st.tuples(st.integers(1, 5), st.integers(1, 4))


@settings(derandomize=True, deadline=None, max_examples=80)
@given(st.integers(1, 400), DIVISIONS, st.integers(1, 9), st.booleans(), st.integers(1, 6), st.integers(0, 2))
def test_an_epoch_holds_every_sequence_once_over_all_workers(count, division, batch_size, use_avg_len, num_buckets, epoch):
    workers, accumulate = division
    options = PretrainingSettings(
        batch_size=LONGEST * batch_size if use_avg_len else batch_size,
        accumulate=accumulate,
        use_avg_len=use_avg_len,
        num_buckets=num_buckets,
        seed=3,
    )
    batches = PretrainingBatches(NumberedSequences(some_lengths(count)), PAD_ID, options, workers)
    seen = []
    for place in range(batches.steps_per_epoch):
        update = update_of(batches, epoch * batches.steps_per_epoch + place, workers)
        seen += flat(update)
        sizes = [len(micro_batch) for worker in update for micro_batch in worker]
        assert min(sizes) >= 1
        assert max(len(worker) for worker in update) <= accumulate
        # Divided as evenly as can be: micro-batches are missing only where each of the others has a single sequence.
        assert max(sizes) - (min(sizes) if len(sizes) == workers * accumulate else 0) <= 1
        if not use_avg_len:
            assert max(sizes) <= batch_size
    assert sorted(seen) == list(range(count))


@settings(derandomize=True, deadline=None, max_examples=60)
@given(st.integers(1, 400), st.sampled_from([1, 2, 3, 4, 6, 12]), st.sampled_from([1, 2, 3, 4, 6, 12]), st.booleans(), st.integers(1, 6))
def test_an_update_is_the_same_however_it_is_divided(count, workers, accumulate, use_avg_len, num_buckets):
    assume(12 % (workers * accumulate) == 0)
    global_batch = 12 * LONGEST if use_avg_len else 12
    sequences = NumberedSequences(some_lengths(count, seed=count))

    def build(workers, accumulate):
        size = global_batch // (workers * accumulate)
        options = PretrainingSettings(batch_size=size, accumulate=accumulate, use_avg_len=use_avg_len, num_buckets=num_buckets)
        return PretrainingBatches(sequences, PAD_ID, options, workers)

    divided, whole = build(workers, accumulate), build(1, 1)
    assert divided.steps_per_epoch == whole.steps_per_epoch
    for step in range(2 * whole.steps_per_epoch):
        assert sorted(flat(update_of(divided, step, workers))) == sorted(flat(update_of(whole, step, 1)))


def test_workers_have_like_lengths_at_the_same_time():
    lengths = some_lengths(240)
    batches = PretrainingBatches(NumberedSequences(lengths), PAD_ID, PretrainingSettings(batch_size=4, accumulate=3), 2)
    for step in range(batches.steps_per_epoch):
        update = update_of(batches, step, 2)
        in_turn = [lengths[sequence] for micro in range(3) for rank in range(2) for sequence in update[rank][micro]]
        assert in_turn == sorted(in_turn)


def test_the_masks_are_those_of_the_epoch():
    batches = PretrainingBatches(NumberedSequences([20] * 10), PAD_ID, PretrainingSettings(batch_size=4), 1)
    assert batches.steps_per_epoch == 3
    assert [batches.update(step, 0)[0].masked_positions[0, 0] for step in range(7)] == [1, 1, 1, 2, 2, 2, 1]


def test_a_worker_may_have_nothing_to_do_at_the_end_of_an_epoch():
    options = PretrainingSettings(batch_size=2, accumulate=2)
    batches = PretrainingBatches(NumberedSequences([20] * 26), PAD_ID, options, 3)
    sizes = [[[len(part) for part in worker] for worker in update_of(batches, step, 3)] for step in range(batches.steps_per_epoch)]
    assert sorted(sizes) == [[[1], [1], []], [[2, 2], [2, 2], [2, 2]], [[2, 2], [2, 2], [2, 2]]]


def test_every_pass_has_dropout_of_its_own():
    options = PretrainingSettings(batch_size=2, accumulate=2, seed=9)
    batches = PretrainingBatches(NumberedSequences([20] * 80), PAD_ID, options, 2)
    for step in (0, 7):
        for rank in (0, 1):
            seeds = [batch.seed for batch in batches.update(step, rank)]
            assert seeds == [dropout_seed(9, step, micro, rank) for micro in (0, 1)]


def test_arrays_say_what_stands_where():
    lengths = some_lengths(50, seed=8)
    batches = PretrainingBatches(NumberedSequences(lengths), PAD_ID, PretrainingSettings(batch_size=10), 1)
    for batch in (batch for step in range(batches.steps_per_epoch) for batch in batches.update(step, 0)):
        assert [array.dtype for array in (batch.input_ids, batch.valid_length, batch.masked_positions, batch.masked_labels)] == [
            np.int32
        ] * 4
        assert batch.masked_weights.dtype == np.float32
        assert batch.input_ids.shape == (10, min(-(-batch.valid_length.max() // 16) * 16, LONGEST))
        assert batch.masked_positions.shape == batch.masked_labels.shape == batch.masked_weights.shape
        assert batch.masked_positions.shape[1] % 4 == 0
        for row, sequence in enumerate(sequences_in(batch)):
            length = lengths[sequence]
            assert batch.valid_length[row] == length
            assert (batch.input_ids[row, :length] == 10 + sequence).all()
            assert (batch.input_ids[row, length:] == PAD_ID).all()
            positions = list(range(1, length - 1, 5))
            unused = [0] * (batch.masked_positions.shape[1] - len(positions))
            assert batch.masked_positions[row].tolist() == positions + unused
            assert batch.masked_labels[row].tolist() == [10 + sequence] * len(positions) + unused
            assert batch.masked_weights[row].tolist() == [1.0] * len(positions) + unused


def test_sequences_without_a_prediction_have_slots_all_the_same():
    """An array without elements is no input for MXNet."""
    batch = PretrainingBatches(NumberedSequences([2, 2]), PAD_ID, PretrainingSettings(), 1).update(0, 0)[0]
    assert batch.masked_weights.tolist() == [[0.0] * 4] * 2


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize(("batch_size", "use_avg_len"), [(4, False), (100, True)])
def test_evaluation_sees_every_sequence_once_with_the_masks_of_epoch_0(workers, batch_size, use_avg_len):
    options = PretrainingSettings(batch_size=batch_size, use_avg_len=use_avg_len)
    batches = PretrainingBatches(NumberedSequences(some_lengths(53)), PAD_ID, options, workers)
    parts = [list(batches.evaluation(rank)) for rank in range(workers)]
    every = [batch for part in parts for batch in part]
    assert sorted(sequence for batch in every for sequence in sequences_in(batch)) == list(range(53))
    assert {batch.masked_positions[row, 0] for batch in every for row in range(len(batch.input_ids))} == {1}
    assert all(batch.input_ids.size <= batch_size if use_avg_len else len(batch.input_ids) <= batch_size for batch in every)
    counts = [sum(len(batch.input_ids) for batch in part) for part in parts]
    assert max(counts) - min(counts) <= 1
    assert all(part[0].valid_length.max() == max(batch.valid_length.max() for batch in part) for part in parts)


def realistic_lengths(count, seed=0):
    """Whole sentences up to 512 tokens fill most sequences; documents end anywhere; one in ten is cut short on purpose."""
    random = np.random.default_rng(seed)
    return np.where(random.random(count) < 0.75, random.integers(470, 513, size=count), random.integers(4, 513, size=count))


@pytest.mark.parametrize(("batch_size", "use_avg_len"), [(8, False), (4096, True)])
def test_buckets_waste_less_than_none(batch_size, use_avg_len):
    sequences = NumberedSequences(realistic_lengths(20_000), max_seq_length=512)
    waste = [
        PretrainingBatches(
            sequences, PAD_ID, PretrainingSettings(batch_size=batch_size, use_avg_len=use_avg_len, num_buckets=num_buckets), 2
        ).padding_waste()
        for num_buckets in (1, 5, 20)
    ]
    assert waste[0] > 0.13
    assert waste[1] < waste[0] / 2
    assert waste[2] < waste[0] / 4


@pytest.mark.parametrize("division", [(1, 1), (2, 1), (3, 2)])
def test_few_sequences_of_very_different_lengths_stay_within_twice_the_budget_and_a_row(division):
    """They share one bucket, whose average says little of an update that holds its longest."""
    workers, accumulate = division
    lengths = np.r_[np.full(700, 12), np.full(10, 512)]
    options = PretrainingSettings(batch_size=4096, use_avg_len=True, accumulate=accumulate, num_buckets=1)
    batches = PretrainingBatches(NumberedSequences(lengths, 512), PAD_ID, options, workers)
    for step in range(batches.steps_per_epoch):
        for batch in (batch for rank in range(workers) for batch in batches.update(step, rank)):
            assert batch.input_ids.size < 2 * 4096 + batch.input_ids.shape[1]


@pytest.mark.parametrize(("workers", "accumulate", "use_avg_len"), [(1, 1, False), (2, 3, False), (3, 2, True)])
def test_the_waste_of_a_plan_is_that_of_its_batches(workers, accumulate, use_avg_len):
    options = PretrainingSettings(batch_size=90 if use_avg_len else 3, accumulate=accumulate, use_avg_len=use_avg_len, num_buckets=3)
    batches = PretrainingBatches(NumberedSequences(some_lengths(331)), PAD_ID, options, workers)
    for epoch in (0, 1):
        tokens, slots = 0, 0
        for place in range(batches.steps_per_epoch):
            for rank in range(workers):
                for batch in batches.update(epoch * batches.steps_per_epoch + place, rank):
                    tokens += batch.valid_length.sum()
                    slots += batch.input_ids.size
        assert batches.padding_waste(epoch) == pytest.approx(1 - tokens / slots, abs=1e-12)


def test_a_batch_of_fewer_tokens_than_the_longest_sequence_is_refused():
    with pytest.raises(BortError, match=r"batch_size 8 counts tokens .* longest sequence has 33; give at least 33"):
        PretrainingBatches(NumberedSequences([33, 7]), PAD_ID, PretrainingSettings(batch_size=8, use_avg_len=True), 1)
