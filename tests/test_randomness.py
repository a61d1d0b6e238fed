"""Streams of random numbers: fixed by purpose and place, and unlike each other."""

from __future__ import annotations

import numpy as np

from bort.randomness import Purpose, dropout_seed, epoch_order, generator, hashed, unit_interval


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


def test_hashed_words_are_those_of_splitmix64():
    """The first outputs of the published generator for the seed 1234567."""
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821]
    assert [hashed(1234567, number) for number in range(5)] == expected
    assert hashed(1234567, np.arange(5, dtype=np.uint64)).tolist() == expected


def test_hashed_words_of_arrays_are_those_of_numbers_up_to_the_largest():
    places = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    assert hashed(places, 2**40).tolist() == [hashed(int(place), 2**40) for place in places]
    assert unit_interval(hashed(places, 5)).tolist() == [unit_interval(hashed(int(place), 5)) for place in places]
    assert unit_interval(2**64 - 1) < 1.0


def test_hashed_words_of_neighbouring_places_are_uniform_and_unlike_each_other():
    """Places are byte offsets, so nearly alike; 256 cells of 1,000 draws each: chi-square's deviation is 22.6, five of them allowed."""
    offsets = np.arange(256_000, dtype=np.uint64) * np.uint64(100)
    draws = [hashed(hashed(hashed(Purpose.PACKING, seed), file), offsets) for seed in range(2) for file in range(2)]
    for words in [*draws, hashed(draws[0], 0), hashed(draws[0], 1), draws[0][1:] ^ draws[0][:-1], draws[0] ^ draws[1]]:
        for cells in (words >> np.uint64(56), words & np.uint64(255)):
            counts = np.bincount(cells.astype(np.int64), minlength=256)
            assert abs(((counts - counts.mean()) ** 2).sum() / counts.mean() - 255) < 5 * 22.6
    assert len(np.unique(np.concatenate(draws))) == 4 * 256_000
    assert abs(np.corrcoef(unit_interval(draws[0]), unit_interval(hashed(draws[0], 0)))[0, 1]) < 0.01
