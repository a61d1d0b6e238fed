"""Plans: every sequence once an epoch, updates of like length, and an order that is a function of (seed, epoch)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.corpus.plan import UpdatePlan, cut_buckets

SOME_LENGTHS = st.integers(1, 3000).flatmap(
    lambda count: st.tuples(st.integers(0, 99), st.sampled_from([3, 20, 128, 512])).map(
        lambda drawn: np.random.default_rng(drawn[0]).integers(3, drawn[1] + 1, size=count).astype(np.int32)
    )
)


def updates(plan, epoch):
    steps = range(epoch * plan.steps_per_epoch, (epoch + 1) * plan.steps_per_epoch)
    return [plan.update(step)[1] for step in steps]


@settings(derandomize=True, deadline=None, max_examples=150)
@given(SOME_LENGTHS, st.integers(1, 60), st.booleans(), st.integers(1, 30))
def test_buckets_divide_the_order_of_length_and_only_the_last_update_is_partial(lengths, update_size, use_avg_len, num_buckets):
    if use_avg_len:
        update_size *= 100
    buckets = cut_buckets(lengths, update_size, use_avg_len, num_buckets)
    assert [buckets[0].first, *(bucket.end for bucket in buckets)] == [*(bucket.first for bucket in buckets), len(lengths)]
    assert len(buckets) <= num_buckets
    for bucket in buckets[:-1]:
        assert (bucket.end - bucket.first) % bucket.sequences_per_update == 0
    if len(buckets) > 1:
        assert all(bucket.end - bucket.first >= 8 * bucket.sequences_per_update for bucket in buckets)
    if not use_avg_len:
        assert {bucket.sequences_per_update for bucket in buckets} == {update_size}


@settings(derandomize=True, deadline=None, max_examples=100)
@given(SOME_LENGTHS, st.integers(1, 60), st.booleans(), st.integers(1, 30), st.integers(0, 3))
def test_an_epoch_holds_every_sequence_once_and_an_update_lies_in_one_bucket(lengths, update_size, use_avg_len, num_buckets, epoch):
    plan = UpdatePlan(lengths, update_size * (100 if use_avg_len else 1), use_avg_len, num_buckets, seed=1)
    parts = updates(plan, epoch)
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(lengths)))
    ordered = np.sort(lengths)
    spans = [(ordered[bucket.first], ordered[bucket.end - 1]) for bucket in plan.buckets]
    assert all(any(low <= lengths[part].min() and lengths[part].max() <= high for low, high in spans) for part in parts)


def test_few_sequences_have_one_bucket_and_many_have_narrow_ones():
    lengths = np.random.default_rng(0).integers(3, 129, size=4000).astype(np.int32)
    assert [len(cut_buckets(lengths[:count], 32, False, 20)) for count in (1, 256, 511)] == [1, 1, 1]
    buckets = cut_buckets(lengths, 8, False, 20)
    ordered = np.sort(lengths)
    # 129 lengths round up to eight multiples of 16; what does not fill an update of its bucket goes one further.
    assert len(buckets) == 8
    assert max(ordered[bucket.end - 1] - ordered[bucket.first] for bucket in buckets) <= 16


def test_too_many_groups_are_joined_where_that_adds_least_padding():
    lengths = np.repeat([16, 32, 48, 512], [1000, 100, 1000, 1000]).astype(np.int32)
    buckets = cut_buckets(lengths, 4, False, 3)
    assert [(bucket.first, bucket.end) for bucket in buckets] == [(0, 1000), (1000, 2100), (2100, 3100)]


def test_a_budget_of_tokens_is_spent_on_more_of_the_shorter_sequences():
    lengths = np.random.default_rng(2).integers(3, 513, size=30_000).astype(np.int32)
    plan = UpdatePlan(lengths, 8192, True, 20, seed=0)
    tokens = np.array([lengths[update].sum() for update in updates(plan, 0)])
    ordered = np.sort(lengths)
    for bucket in plan.buckets:
        average = ordered[bucket.first : bucket.end].mean()
        # What a bucket passes on is its longest, so its average, and with it an update's tokens, fall a little short.
        assert 0.9 * 8192 < average * bucket.sequences_per_update <= 8192
    assert np.mean(tokens) == pytest.approx(8192, rel=0.03)
    assert np.abs(tokens / 8192 - 1).mean() < 0.05
    assert plan.buckets[0].sequences_per_update >= 20 * plan.buckets[-1].sequences_per_update


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(1, 3000), st.integers(1, 50), st.integers(512, 9000), st.integers(1, 30))
def test_no_update_by_tokens_holds_more_than_twice_its_tokens_with_padding(short, long, update_size, num_buckets):
    lengths = np.repeat([12, 512], [short, long]).astype(np.int32)
    plan = UpdatePlan(lengths, update_size, True, num_buckets, seed=0)
    assert all(lengths[update].max() * len(update) <= 2 * update_size for update in updates(plan, 0))


def test_the_order_is_a_function_of_seed_and_epoch_whatever_was_asked_before():
    lengths = np.random.default_rng(0).integers(3, 100, size=1000).astype(np.int32)
    straight, jumping, other_seed = (UpdatePlan(lengths, 8, False, 20, seed) for seed in (5, 5, 6))
    count = straight.steps_per_epoch
    assert count == 125
    wanted = {step: straight.update(step) for step in range(3 * count)}
    for step in np.random.default_rng(1).permutation(3 * count).tolist():
        epoch, sequences = jumping.update(step)
        assert epoch == wanted[step][0] == step // count
        np.testing.assert_array_equal(sequences, wanted[step][1])
    assert all(set(wanted[step][1].tolist()) != set(wanted[step + count][1].tolist()) for step in range(count))
    assert any(not np.array_equal(other_seed.update(step)[1], wanted[step][1]) for step in range(count))


def test_updates_of_all_lengths_are_mixed_over_an_epoch():
    lengths = np.random.default_rng(0).integers(3, 513, size=8000).astype(np.int32)
    means = np.array([lengths[update].mean() for update in updates(UpdatePlan(lengths, 8, False, 20, seed=0), 0)])
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.1
    assert means.std() > 100


def test_a_recorded_plan():
    """A run begun with one release must be resumable with the next."""
    lengths = (np.arange(200) * 37 % 90 + 3).astype(np.int32)
    plan = UpdatePlan(lengths, 4, False, 20, seed=7)
    assert [bucket.end for bucket in plan.buckets] == [64, 100, 136, 200]
    assert plan.update(0)[1].tolist() == [24, 92, 70, 124]
    assert plan.update(2 * plan.steps_per_epoch + 3)[1].tolist() == [18, 108, 23, 35]
