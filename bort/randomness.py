"""Randomness as a function of where one is, not of how long a process has lived.

Every draw of the project comes from a generator that is made for one place: a purpose and a few coordinates such as (seed, epoch,
sequence). Two purposes never share a stream. So a run resumes without saved generator state, and order and masks do not depend on the
number of workers; dropout does, since each worker draws its own.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

Words = NDArray[np.uint64]
_WORD = 2**64 - 1


class Purpose(IntEnum):
    """What a stream is for; the numbers are part of the file format of a run and never change."""

    PACKING = 1
    ORDER = 2
    MASKS = 3
    DROPOUT = 4
    WEIGHTS = 5


def generator(purpose: Purpose, *coordinates: int) -> np.random.Generator:
    """The generator of ``purpose`` at ``coordinates``, each at least 0."""
    return np.random.default_rng([int(purpose), *coordinates])


@lru_cache(maxsize=4)
def epoch_order(seed: int, epoch: int, size: int) -> NDArray[np.int64]:
    """The shuffle of an epoch of ``size`` things: (size,), each number once; not to be written to."""
    return generator(Purpose.ORDER, seed, epoch).permutation(size)


def dropout_seed(seed: int, step: int, micro_batch: int, rank: int) -> int:
    """A seed in [0, 2**31) for the dropout of one forward pass."""
    return int(generator(Purpose.DROPOUT, seed, step, micro_batch, rank).integers(2**31))


@overload
def hashed(place: int, number: int) -> int: ...
@overload
def hashed(place: int, number: Words) -> Words: ...
@overload
def hashed(place: Words, number: int) -> Words: ...
def hashed(place: int | Words, number: int | Words) -> int | Words:
    """64 random bits: word ``number`` of the SplitMix64 stream of a place, for draws too many and too small for generators.

    The words are themselves places, so several coordinates are hashed one after the other, a purpose first. Source: Steele, Lea and Flood,
    "Fast splittable pseudorandom number generators", 2014, with the constants of David Stafford's thirteenth variant.

    Args:
        place: in [0, 2**64), or (n,) of them.
        number: likewise; one of the two is an int.
    """
    word: Any = (place + ((number + 1) * 0x9E3779B97F4A7C15 & _WORD)) & _WORD
    word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
    word = (word ^ (word >> 27)) * 0x94D049BB133111EB & _WORD
    mixed: int | Words = word ^ (word >> 31)
    return mixed


@overload
def unit_interval(words: int) -> float: ...
@overload
def unit_interval(words: Words) -> NDArray[np.float64]: ...
def unit_interval(words: int | Words) -> float | NDArray[np.float64]:
    """Random words of 64 bits as numbers in [0, 1), from their upper 53 bits."""
    numbers: float | NDArray[np.float64] = (words >> 11) * 2.0**-53
    return numbers
