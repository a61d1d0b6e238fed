"""Masking: its statistics, what it never touches, and that it is a function of (seed, epoch, sequence)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.corpus.masking import Masker

VOCAB_SIZE, MASK_ID = 600, 599
SPECIAL_IDS = (0, 1, 2, 3, MASK_ID)


class SmallVocab:
    """As much of a vocabulary as masking asks for."""

    mask_id = MASK_ID
    special_ids = SPECIAL_IDS

    def __len__(self):
        return VOCAB_SIZE


def masker(probability=0.15, most=80, seed=0):
    return Masker(SmallVocab(), probability, most, seed)


def sequences(count, length, seed=1):
    return np.random.default_rng(seed).integers(4, MASK_ID, size=(count, length)).astype(np.int32)


def test_four_in_five_become_the_mask_one_in_ten_a_random_token_one_in_ten_stays():
    tokens = sequences(2000, 200)
    masked, random, kept, total = 0, 0, 0, 0
    for index, row in enumerate(tokens):
        out, positions = masker().mask(row, 0, index)
        total += len(positions)
        masked += (out[positions] == MASK_ID).sum()
        kept += (out[positions] == row[positions]).sum()
        random += ((out[positions] != MASK_ID) & (out[positions] != row[positions])).sum()
    assert total == 2000 * 30
    # A random token is the original one in 595 draws; four standard deviations of a share of 60000 are under 0.007.
    assert abs(masked / total - 0.8) < 0.007
    assert abs(random / total - 0.1) < 0.005
    assert abs(kept / total - 0.1) < 0.005


def test_every_position_and_every_ordinary_token_is_drawn_and_no_special_one():
    tokens = sequences(4000, 40)
    chosen, drawn = np.zeros(40), np.zeros(VOCAB_SIZE)
    for index, row in enumerate(tokens):
        out, positions = masker(0.5).mask(row, 3, index)
        chosen[positions] += 1
        changed = positions[(out[positions] != MASK_ID) & (out[positions] != row[positions])]
        np.add.at(drawn, out[changed], 1)
    assert not drawn[list(SPECIAL_IDS)].any()
    assert np.delete(drawn, SPECIAL_IDS).min() > 0
    assert np.abs(chosen / 4000 - 0.5).max() < 0.04


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 300), st.floats(0.01, 1.0), st.integers(1, 40), st.integers(0, 3), st.integers(0, 10**9))
def test_the_number_of_predictions_and_untouched_tokens(length, probability, most, epoch, sequence):
    row = sequences(1, length)[0]
    before = row.copy()
    out, positions = masker(probability, most).mask(row, epoch, sequence)
    assert len(positions) == min(most, max(1, round(length * probability)))
    assert (np.diff(positions) > 0).all()
    untouched = np.setdiff1d(np.arange(length), positions)
    np.testing.assert_array_equal(out[untouched], row[untouched])
    np.testing.assert_array_equal(row, before)


def test_masks_depend_on_seed_epoch_and_sequence_alone():
    row = sequences(1, 200)[0]
    reference = masker(seed=5).mask(row, 2, 7)[1]
    np.testing.assert_array_equal(masker(seed=5).mask(row, 2, 7)[1], reference)
    for other in (masker(seed=6).mask(row, 2, 7), masker(seed=5).mask(row, 3, 7), masker(seed=5).mask(row, 2, 8)):
        assert len(np.intersect1d(other[1], reference)) < 20


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_sequences_have_one_prediction(length):
    assert len(masker().mask(sequences(1, length)[0], 0, 0)[1]) == 1
