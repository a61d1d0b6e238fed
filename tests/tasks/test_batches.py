"""Batches of a task's rows: each row counts once an epoch, and arrays say what stands where."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.tasks.batches import EncodedRows, prediction_batches, steps_per_epoch, training_rows

PAD = 1


@pytest.fixture
def rows():
    """Row i holds 3 + 7i mod 40 tokens, each 100 + i."""
    input_ids = [np.full(3 + 7 * row % 40, 100 + row, np.int32) for row in range(23)]
    return EncodedRows(input_ids, np.arange(23, dtype=np.float32), PAD)


def test_a_batch_holds_its_rows_padded_to_one_length(rows):
    batch = rows.batch([4, 0, 9], 3, dropout_seed=77)
    assert batch.seed == 77
    assert batch.input_ids.shape == (3, 32)
    assert batch.valid_length.tolist() == [3 + 28, 3, 3 + 63 % 40]
    assert batch.labels.tolist() == [4, 0, 9]
    assert batch.weights.tolist() == [1, 1, 1]
    for ids, length, row in zip(batch.input_ids, batch.valid_length, (4, 0, 9), strict=True):
        assert (ids[:length] == 100 + row).all()
        assert (ids[length:] == PAD).all()


@pytest.mark.parametrize("chosen", [[], [5], [5, 6, 7]])
def test_a_batch_that_is_not_full_is_filled_with_rows_that_do_not_count(rows, chosen):
    batch = rows.batch(chosen, 4)
    assert batch.input_ids.shape[0] == 4
    assert batch.weights.tolist() == [1.0] * len(chosen) + [0.0] * (4 - len(chosen))
    assert batch.labels[: len(chosen)].tolist() == chosen
    assert batch.valid_length.min() >= 1


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 200), st.integers(1, 64), st.integers(0, 3), st.integers(0, 5))
def test_an_epoch_holds_every_row_once(num_rows, global_batch, epoch, seed):
    steps = steps_per_epoch(num_rows, global_batch)
    parts = [training_rows(num_rows, global_batch, epoch * steps + step, seed) for step in range(steps)]
    assert sorted(np.concatenate(parts)) == list(range(num_rows))
    assert all(len(part) == global_batch for part in parts[:-1])
    assert 1 <= len(parts[-1]) <= global_batch


def test_the_order_changes_with_epoch_and_seed_alone():
    reference = training_rows(100, 100, 0, 0)
    np.testing.assert_array_equal(training_rows(100, 100, 0, 0), reference)
    assert not np.array_equal(training_rows(100, 100, 1, 0), reference)
    assert not np.array_equal(training_rows(100, 100, 0, 1), reference)


@pytest.mark.parametrize("batch_size", [1, 4, 23, 50])
def test_prediction_sees_every_row_once_with_little_padding(rows, batch_size):
    batches = list(prediction_batches(rows, batch_size))
    assert sorted(row for chosen, _ in batches for row in chosen) == list(range(23))
    for chosen, batch in batches:
        assert batch.labels[: len(chosen)].tolist() == list(chosen)
        assert batch.weights.sum() == len(chosen)
    longest = [max(len(rows.input_ids[row]) for row in chosen) for chosen, _ in batches]
    assert longest == sorted(longest)
