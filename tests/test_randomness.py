"""Streams of random numbers: fixed by purpose and place, and unlike each other."""

from __future__ import annotations

import numpy as np

from bort.randomness import Purpose, dropout_seed, epoch_order, generator


def test_a_place_always_gives_the_same_numbers():
    """Recorded values: a run begun with one release must be resumable with the next."""
    assert generator(Purpose.MASKS, 1, 2, 3).integers(1000, size=4).tolist() == [735, 795, 106, 590]
    assert dropout_seed(0, 5, 1, 2) == 682430681


def test_no_two_places_share_a_stream():
    draws = {
        tuple(generator(purpose, first, second).integers(2**31, size=3))
        for purpose in Purpose
        for first in range(10)
        for second in range(10)
    }
    assert len(draws) == 100 * len(Purpose)


def test_dropout_seeds_fit_an_engine_and_differ():
    seeds = [dropout_seed(0, step, micro, rank) for step in range(50) for micro in range(4) for rank in range(4)]
    assert 0 <= min(seeds) <= max(seeds) < 2**31
    assert len(set(seeds)) == len(seeds)
    assert np.mean(seeds) > 2**29


def test_the_order_is_a_permutation_fixed_by_seed_and_epoch():
    assert sorted(epoch_order(1, 0, 100)) == list(range(100))
    np.testing.assert_array_equal(epoch_order(1, 0, 100), epoch_order(1, 0, 100))
    assert not np.array_equal(epoch_order(1, 0, 100), epoch_order(2, 0, 100))
    assert not np.array_equal(epoch_order(1, 0, 100), epoch_order(1, 1, 100))
