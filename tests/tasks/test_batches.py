"""Batches of a task's rows: each row counts once an epoch, workers only divide, and rows of like length stand together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort import BortError
from bort.tasks.batches import EncodedRows, TrainingPlan, prediction_batches

PAD = 1


def rows_of(lengths, max_len=512):
    """Row i holds as many tokens as ``lengths`` says, each 100 + i."""
    input_ids = [np.full(length, 100 + row, np.int32) for row, length in enumerate(lengths)]
    return EncodedRows(input_ids, np.arange(len(input_ids), dtype=np.float32), PAD, max_len)


@pytest.fixture
def rows():
    return rows_of([3 + 7 * row % 40 for row in range(23)])


@pytest.fixture
def skewed():
    """Lengths of 2000 rows, most short and a few long, as those of real tasks are."""
    return np.clip(np.random.default_rng(0).lognormal(3.0, 0.6, 2000), 3, 512).astype(np.int32)


def update(plan, step, accumulate, world_size):
    """All rows of an update, over micro-batches and workers."""
    return np.concatenate([plan.rows(step, micro, rank) for micro in range(accumulate) for rank in range(world_size)])


def test_a_batch_holds_its_rows_padded_to_one_length(rows):
    batch = rows.batch([4, 0, 9], 3, dropout_seed=77)
    assert batch.seed == 77
    assert batch.input_ids.shape == (3, 32)
    assert batch.valid_length.tolist() == [3 + 28, 3, 3 + 63 % 40]
    assert batch.labels.tolist() == [4, 0, 9]
    assert batch.weights.tolist() == [1, 1, 1]
    assert [array.dtype for array in (batch.input_ids, batch.valid_length, batch.labels, batch.weights)] == [np.int32] * 2 + [
        np.float32
    ] * 2
    for ids, length, row in zip(batch.input_ids, batch.valid_length, (4, 0, 9), strict=True):
        assert (ids[:length] == 100 + row).all()
        assert (ids[length:] == PAD).all()


@pytest.mark.parametrize("chosen", [[], [5], [5, 6, 7]])
def test_a_batch_that_is_not_full_is_filled_with_rows_that_do_not_count(rows, chosen):
    batch = rows.batch(chosen, 4)
    assert batch.input_ids.shape == (4, 40 if chosen else 8)
    assert batch.weights.tolist() == [1.0] * len(chosen) + [0.0] * (4 - len(chosen))
    assert batch.labels.tolist() == chosen + [0.0] * (4 - len(chosen))
    assert batch.valid_length.tolist() == [len(rows.input_ids[row]) for row in chosen] + [1] * (4 - len(chosen))
    assert (batch.input_ids[len(chosen) :] == PAD).all()


def test_no_batch_is_wider_than_the_model_has_positions():
    rows = rows_of([3, 20, 38], max_len=38)
    assert rows.batch([0], 1).input_ids.shape == (1, 8)
    assert rows.batch([1], 1).input_ids.shape == (1, 24)
    assert rows.batch([0, 2], 2).input_ids.shape == (2, 38)


@settings(derandomize=True, deadline=None, max_examples=200)
@given(
    st.lists(st.integers(3, 200), min_size=1, max_size=150),
    st.integers(1, 9),
    st.integers(1, 3),
    st.integers(1, 3),
    st.integers(1, 12),
    st.integers(0, 3),
)
def test_an_epoch_holds_every_row_once_in_full_updates_but_the_last(lengths, batch_size, accumulate, world_size, num_buckets, epoch):
    plan = TrainingPlan(np.array(lengths, np.int32), batch_size, accumulate, world_size, num_buckets, 5)
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    updates = [update(plan, step, accumulate, world_size) for step in steps]
    assert sorted(np.concatenate(updates)) == list(range(len(lengths)))
    assert {len(rows) for rows in updates[:-1]} <= {batch_size * accumulate * world_size}
    assert 1 <= len(updates[-1]) <= batch_size * accumulate * world_size
    parts = [plan.rows(step, micro, rank) for step in steps for micro in range(accumulate) for rank in range(world_size)]
    assert max(len(part) for part in parts) <= batch_size


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.integers(3, 200), min_size=1, max_size=150), st.integers(1, 12), st.integers(0, 40))
def test_workers_and_micro_batches_divide_the_same_updates(lengths, num_buckets, step):
    splits = [(16, 1, 1), (8, 1, 2), (8, 2, 1), (4, 2, 2), (2, 1, 8), (1, 16, 1)]
    plans = [TrainingPlan(np.array(lengths, np.int32), *split, num_buckets, 0) for split in splits]
    first, *others = [update(plan, step, *split[1:]) for plan, split in zip(plans, splits, strict=True)]
    for other in others:
        np.testing.assert_array_equal(other, first)
    assert len({plan.steps_per_epoch for plan in plans}) == 1


@pytest.mark.parametrize("num_buckets", [1, 8])
def test_the_order_is_a_function_of_seed_and_epoch_alone(skewed, num_buckets):
    def epoch(number, seed, plan=None):
        plan = plan or TrainingPlan(skewed, 8, 1, 2, num_buckets, seed)
        return [update(plan, number * plan.steps_per_epoch + step, 1, 2) for step in range(plan.steps_per_epoch)]

    reference = epoch(1, 0)
    wandering = TrainingPlan(skewed, 8, 1, 2, num_buckets, 0)
    for number in (4, 0, 1):
        again = epoch(number, 0, wandering)
    assert all(np.array_equal(one, other) for one, other in zip(reference, again, strict=True))
    for other in (epoch(2, 0), epoch(1, 1)):
        partners = {frozenset(rows.tolist()) for rows in reference} & {frozenset(rows.tolist()) for rows in other}
        assert not partners


def test_the_order_of_updates_says_nothing_about_length(skewed):
    """An update's mean length and its place in the epoch are as uncorrelated as chance would have it, and epochs begin differently."""
    plan = TrainingPlan(skewed, 8, 1, 1, 10, 0)
    correlations, firsts = [], []
    for epoch in range(20):
        means = [skewed[plan.rows(epoch * 250 + step, 0, 0)].mean() for step in range(250)]
        correlations.append(np.corrcoef(means, np.arange(250))[0, 1])
        firsts.append(means[0])
    assert abs(np.mean(correlations)) < 3 / np.sqrt(250 * 20)
    assert np.max(np.abs(correlations)) < 4 / np.sqrt(250)
    assert np.std(firsts) > 5


def test_one_bucket_is_a_plain_shuffle(skewed):
    """Updates of a plain shuffle have means whose variance is that of the rows divided by their number; buckets exceed it by far."""
    means = {}
    for num_buckets in (1, 10):
        plan = TrainingPlan(skewed, 8, 1, 1, num_buckets, 0)
        means[num_buckets] = [skewed[plan.rows(step, 0, 0)].mean() for step in range(20 * 250)]
    assert np.var(means[1]) == pytest.approx(np.var(skewed) / 8, rel=0.1)
    assert np.var(means[10]) > 4 * np.var(means[1])


def test_the_rows_that_do_not_fill_an_update_come_from_all_lengths():
    lengths = np.repeat(np.array([10, 100], np.int32), [51, 51])
    plan = TrainingPlan(lengths, 4, 1, 1, 5, 0)
    last = [lengths[plan.rows(epoch * 26 + 25, 0, 0)] for epoch in range(300)]
    assert all(len(rows) == 2 for rows in last)
    assert np.mean(np.concatenate(last) == 100) == pytest.approx(0.5, abs=0.08)


def test_padding_is_what_the_batches_hold(skewed):
    rows = rows_of(skewed)
    for split in ((8, 2, 2), (7, 1, 1), (500, 3, 2)):
        plan = TrainingPlan(skewed, *split, 6, 3)
        slots = 0
        for step in range(plan.steps_per_epoch):
            for micro in range(split[1]):
                for rank in range(split[2]):
                    chosen = plan.rows(step, micro, rank)
                    slots += rows.batch(chosen, split[0]).input_ids.size if len(chosen) else 0
        assert plan.padding() == pytest.approx(1 - skewed.sum() / slots, abs=1e-12)


@settings(derandomize=True, deadline=None, max_examples=30)
@given(st.integers(0, 10_000), st.integers(8, 32), st.floats(0.3, 1.0))
def test_buckets_pad_less_than_a_plain_shuffle(seed, batch_size, skew):
    lengths = np.clip(np.random.default_rng(seed).lognormal(3.0, skew, 3000), 3, 512).astype(np.int32)
    paddings = [TrainingPlan(lengths, batch_size, 1, 1, num_buckets, 0).padding() for num_buckets in (1, 4, 16)]
    assert paddings[0] > paddings[1] > paddings[2]


def test_equal_lengths_that_fill_their_positions_need_no_padding():
    assert TrainingPlan(np.full(64, 32, np.int32), 8, 2, 2, 4, 0).padding() == 0
    assert TrainingPlan(np.full(64, 4, np.int32), 8, 2, 2, 4, 0).padding() == 0.5


def test_no_rows_are_refused():
    with pytest.raises(BortError, match="no rows"):
        TrainingPlan(np.empty(0, np.int32), 8, 1, 1, 1, 0)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=120), st.integers(1, 40), st.integers(1, 5))
def test_prediction_sees_every_row_once_over_all_workers_in_equal_shares(lengths, batch_size, world_size):
    rows = rows_of(lengths)
    shares = [list(prediction_batches(rows, batch_size, rank, world_size)) for rank in range(world_size)]
    batches = [batch for share in shares for batch in share]
    assert sorted(row for chosen, _ in batches for row in chosen) == list(range(len(lengths)))
    for chosen, batch in batches:
        assert batch.labels[: len(chosen)].tolist() == list(chosen)
        assert batch.weights.sum() == len(chosen)
    loads = [sum(batch.input_ids.size for _, batch in share) for share in shares]
    assert max(loads) - min(loads) <= max(batch.input_ids.size for _, batch in batches)


def test_prediction_pads_little(skewed):
    batches = [batch for _, batch in prediction_batches(rows_of(skewed), 16)]
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)
    slots = sum(batch.input_ids.size for batch in batches)
    # At most 7 positions a row for the rounding, and per batch what the order of length leaves.
    assert skewed.sum() / slots > 0.8


def test_a_batch_goes_to_the_worker_that_has_the_least_to_do():
    rows = rows_of([48, 24, 24])
    shares = [[chosen.tolist() for chosen, _ in prediction_batches(rows, 1, rank, 2)] for rank in range(2)]
    assert shares == [[[0]], [[1], [2]]]
