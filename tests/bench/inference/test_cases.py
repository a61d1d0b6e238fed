"""Ids that all rows get, and how outputs are compared: closed forms, and what must not pass."""

from __future__ import annotations

import math

import numpy as np
import pytest

from bort import BortError
from bort.bench.inference.cases import PADDED, Difference, difference, digest, make_batches, read_batches, require_close, write_batches


@pytest.fixture
def batch():
    return {"input_ids": np.full((2, 3), 7), "attention_mask": np.array([[1, 1, 1], [1, 0, 0]])}


def test_batches_have_their_shapes_and_ids_that_every_model_knows(tmp_path):
    batches = make_batches([(1, 32), (8, 16)], 400, 40)
    assert {name: batch["input_ids"].shape for name, batch in batches.items()} == {"1x32": (1, 32), "8x16": (8, 16), PADDED: (3, 40)}
    for batch in batches.values():
        assert batch["input_ids"].dtype == batch["attention_mask"].dtype == np.int64
        real = batch["input_ids"][batch["attention_mask"] == 1]
        assert real.min() >= 5
        assert real.max() < 400
    assert batches[PADDED]["attention_mask"].sum(axis=1).tolist() == [40, 26, 3]
    write_batches(tmp_path / "cases.npz", batches)
    assert digest(list(read_batches(tmp_path / "cases.npz").values())) == digest(list(batches.values()))


def test_the_same_shape_has_the_same_ids_whatever_else_is_measured():
    one, other = make_batches([(1, 32)], 50265, 512), make_batches([(2, 16), (1, 32)], 30522, 512)
    assert np.array_equal(one["1x32"]["input_ids"], other["1x32"]["input_ids"])


def test_the_digest_sees_ids_masks_and_shapes(batch):
    changed_id, changed_mask = (batch | {name: batch[name].copy()} for name in ("input_ids", "attention_mask"))
    changed_id["input_ids"][1, 2] = 8
    changed_mask["attention_mask"][1, 1] = 1
    flat = {name: ids.reshape(3, 2) for name, ids in batch.items()}
    assert len({digest([each]) for each in (batch, changed_id, changed_mask, flat)}) == 4


def test_a_difference_is_in_units_of_what_is_right_and_leaves_padding_out(batch):
    expected = np.full((2, 3, 4), 2.0, dtype=np.float32)
    found = expected.copy()
    found[0, 0, 0] += 1.0
    found[1, 1:] = 1e6
    compared = 4 * 4
    assert difference(batch, found, expected) == Difference(
        pytest.approx(0.5),
        pytest.approx(0.5 / math.sqrt(compared)),
        pytest.approx((4 * compared + 2) / (math.sqrt(4 * compared) * math.sqrt(4 * (compared - 1) + 9))),
    )
    assert difference(batch, -expected, expected).cosine == pytest.approx(-1.0)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused_even_in_padding(batch, value):
    expected = np.ones((2, 3, 4), dtype=np.float32)
    found = expected.copy()
    found[1, 2, 0] = value
    with pytest.raises(BortError, match="not finite"):
        difference(batch, found, expected)


def test_another_shape_is_refused(batch):
    with pytest.raises(BortError, match=r"shape \(2, 2\) in place of \(2, 3\)"):
        difference(batch, np.zeros((2, 2)), np.zeros((2, 3)))


@pytest.mark.parametrize(
    ("precision", "found", "passes"),
    [
        ("fp32", Difference(0.9e-4, 1e-6, 1.0), True),
        ("fp32", Difference(1.1e-4, 1e-6, 1.0), False),
        ("bf16", Difference(0.5, 0.019, 1.0), True),
        ("bf16", Difference(0.5, 0.021, 1.0), False),
        ("int8", Difference(0.5, 0.099, 1.0), True),
        ("int8", Difference(0.5, 0.101, 1.0), False),
        ("int8", Difference(0.5, math.nan, 1.0), False),
    ],
)
def test_each_precision_has_a_bound(precision, found, passes):
    if passes:
        require_close(found, precision)
    else:
        with pytest.raises(BortError, match="from the right outputs is"):
            require_close(found, precision)
