"""The ids that all rows are given, and how far outputs may lie from those that are right.

Notable: what is compared is every shape that is timed, and a batch of rows of different lengths whose padding must change nothing. Outputs
behind a row's end mean nothing and are left out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError

PADDED = "padded"
Ids = NDArray[np.int64]
Batch = dict[str, Ids]
"""``input_ids`` and ``attention_mask``, (B, T) int64."""

# Transformers' RoBERTa finds positions by this id; the other models do not look at what is masked.
_PAD_ID = 1
_FIRST_ID, _LAST_ID = 5, 30_000
_PADDED_LENGTH = 48
# Of float32, the largest difference in units of the root mean square of what is right; of the others, root mean squares.
_LARGEST_FP32 = 1e-4
_RELATIVE_RMS = {"bf16": 0.02, "int8": 0.1}


def make_batches(shapes: Sequence[tuple[int, int]], vocab_size: int, longest: int) -> dict[str, Batch]:
    """A batch of random ids for each shape, named as ``8x128``, and :data:`PADDED`.

    Args:
        shapes: (B, T).
        vocab_size: of the smallest vocabulary among the models, so that all can take the same ids.
        longest: tokens of the longest row that all of them take.
    """
    batches = {}
    top = min(vocab_size, _LAST_ID)
    for size, length in shapes:
        ids = np.random.default_rng([size, length]).integers(_FIRST_ID, top, (size, length))
        batches[f"{size}x{length}"] = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    width = min(_PADDED_LENGTH, longest)
    mask = (np.arange(width) < np.array([[width], [2 * width // 3], [3]])).astype(np.int64)
    ids = np.random.default_rng(width).integers(_FIRST_ID, top, mask.shape)
    batches[PADDED] = {"input_ids": np.where(mask == 1, ids, _PAD_ID), "attention_mask": mask}
    return batches


def write_batches(path: Path, batches: Mapping[str, Batch]) -> None:
    """Store batches: ``<name>/<input>``."""
    np.savez(path, **{f"{name}/{part}": ids for name, batch in batches.items() for part, ids in batch.items()})


def read_batches(path: Path) -> dict[str, Batch]:
    """What :func:`write_batches` stored."""
    batches: dict[str, Batch] = {}
    with np.load(path) as arrays:
        for key in arrays.files:
            name, _, part = key.partition("/")
            batches.setdefault(name, {})[part] = arrays[key]
    return batches


def digest(batches: Sequence[Batch]) -> str:
    """SHA-256 of ids and masks, shapes included, in hexadecimal."""
    total = hashlib.sha256()
    for batch in batches:
        for part in ("input_ids", "attention_mask"):
            total.update(f"{part} {batch[part].dtype} {batch[part].shape}".encode())
            total.update(np.ascontiguousarray(batch[part]).tobytes())
    return total.hexdigest()


@dataclass(frozen=True)
class Difference:
    """How outputs differ from those that are right.

    Attributes:
        largest: largest absolute difference, divided by the root mean square of what is right.
        relative_rms: root mean square of the differences, likewise divided.
        cosine: of the angle between the two as vectors.
    """

    largest: float
    relative_rms: float
    cosine: float


def difference(batch: Batch, found: NDArray[np.float32], expected: NDArray[np.float32]) -> Difference:
    """Compare outputs (B, T, hidden_size) where the mask is 1, or logits (B, classes).

    Raises:
        BortError: if their shapes differ, or what was found is not finite.
    """
    if found.shape != expected.shape:
        raise BortError(f"outputs of shape {found.shape} in place of {expected.shape}")
    if not np.isfinite(found).all():
        raise BortError("outputs that are not finite")
    one, other = (array.astype(np.float64) for array in (found, expected))
    if found.ndim == 3:
        one, other = one[batch["attention_mask"] == 1], other[batch["attention_mask"] == 1]
    scale = float(np.sqrt(np.mean(other**2)))
    cosine = float((one * other).sum() / max(np.linalg.norm(one) * np.linalg.norm(other), 1e-300))
    return Difference(float(np.abs(one - other).max()) / scale, float(np.sqrt(np.mean((one - other) ** 2))) / scale, cosine)


def require_close(found: Difference, precision: str) -> None:
    """Refuse outputs that the precision does not account for.

    Raises:
        BortError: with both numbers.
    """
    if precision == "fp32":
        name, value, bound = "the largest difference", found.largest, _LARGEST_FP32
    else:
        name, value, bound = "the root mean square of the differences", found.relative_rms, _RELATIVE_RMS[precision]
    if not value <= bound:
        raise BortError(f"{name} from the right outputs is {value:.3g} of their root mean square, more than {bound:g}")
