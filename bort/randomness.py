"""Randomness as a function of where one is, not of how long a process has lived.

Every draw of the project comes from a generator that is made for one place: a purpose and a few coordinates such as (seed, epoch,
sequence). Two purposes never share a stream. So a run resumes without saved generator state, and the number of workers changes nothing.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


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


def dropout_seed(seed: int, step: int, micro_batch: int, rank: int) -> int:
    """A seed in [0, 2**31) for the dropout of one forward pass."""
    return int(generator(Purpose.DROPOUT, seed, step, micro_batch, rank).integers(2**31))
