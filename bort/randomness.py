"""Randomness as a function of where one is, not of how long a process has lived.

Every draw of the project comes from a generator that is made for one place: a purpose and a few coordinates such as (seed, epoch,
sequence). Two purposes never share a stream. So a run resumes without saved generator state, and order and masks do not depend on the
number of workers; dropout does, since each worker draws its own.
"""

from __future__ import annotations

from enum import IntEnum
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


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
