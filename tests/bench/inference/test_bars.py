"""Ratios from made-up records: closed forms, and the bars."""

from __future__ import annotations

import pytest

from bort.bench.inference.bars import AS_DEPLOYED, BARS, LIKE_FOR_LIKE, STANDARD_SHAPES, compare, judge
from bort.bench.inference.rows import Row

BORT, BASE, LARGE = Row("bort", "openvino", "int8"), Row("bert-base", "torch", "fp32"), Row("bert-large", "torch", "fp32")


def record_of(shapes, **latencies):
    """Rows by name with ``/`` as ``_of_``: for each shape the median and the rounds' medians, in milliseconds."""
    rows = [
        {
            "name": name,
            "shapes": {
                shape: {"from_ids": {"p50_ms": values[0]}, "round_medians_ms": values[1:]}
                for shape, values in zip(shapes, row, strict=True)
            },
        }
        for name, row in latencies.items()
    ]
    return {"shapes": list(shapes), "rows": rows}


def test_a_ratio_is_of_medians_its_range_of_neighbours_and_the_mean_geometric():
    record = record_of(("1x16", "1x32"), **{str(BORT): [[1.0, 1.0, 2.0], [4.0, 4.0, 4.0]], str(BASE): [[8.0, 6.0, 8.0], [8.0, 8.0, 4.0]]})
    found = compare(record, BORT, BASE)
    assert found["shapes"]["1x16"] == {"ratio": 8.0, "least": 4.0, "most": 6.0}
    assert found["shapes"]["1x32"] == {"ratio": 2.0, "least": 1.0, "most": 2.0}
    # The square roots of 8 * 2, and of each round's 6 * 2 and 4 * 1.
    assert found["mean"] == {"ratio": pytest.approx(4.0), "least": pytest.approx(2.0), "most": pytest.approx(12**0.5)}


def test_a_row_that_was_not_measured_gives_no_ratio():
    record = record_of(("1x16",), **{str(BORT): [[1.0, 1.0]]})
    assert compare(record, BORT, BASE) is None
    assert judge(record) == {"bars": [], "like_for_like": [], "as_deployed": None}


@pytest.mark.parametrize(
    ("base", "holds"),
    [
        ((16.1, 16.1, 16.1, 16.1), True),
        ((40.0, 10.0, 16.0, 16.0), True),
        ((40.0, 40.0, 40.0, 9.9), False),
        ((16.0, 16.0, 16.0, 15.9), False),
    ],
)
def test_a_bar_asks_for_the_mean_and_for_each_shape(base, holds):
    record = record_of(STANDARD_SHAPES, **{str(BORT): [[1.0, 1.0]] * 4, str(BASE): [[value, value] for value in base]})
    (bar,) = judge(record)["bars"]
    assert (bar["asked_mean"], bar["asked_each"], bar["holds"]) == (16.0, 10.0, holds)


def test_a_bar_without_a_demand_on_each_shape_asks_for_the_mean_alone():
    record = record_of(
        STANDARD_SHAPES, **{str(BORT): [[1.0, 1.0]] * 4, str(LARGE): [[value, value] for value in (5.0, 5000.0, 50.0, 50.0)]}
    )
    (bar,) = judge(record)["bars"]
    assert (bar["asked_mean"], bar["holds"]) == (50.0, True)


def test_other_shapes_decide_nothing():
    record = record_of(("1x64",), **{str(BORT): [[1.0, 1.0]], str(BASE): [[100.0, 100.0]]})
    (bar,) = judge(record)["bars"]
    assert bar["holds"] is None


def test_the_bars_are_those_of_the_headline():
    assert [(str(bar.ours), str(bar.theirs), bar.mean, bar.each) for bar in BARS] == [
        ("bort/openvino/int8", "bert-base/torch/fp32", 16.0, 10.0),
        ("bort/openvino/int8", "bert-large/torch/fp32", 50.0, None),
        ("bort/onnxruntime/fp32", "bert-base/torch/fp32", 4.5, None),
    ]


def test_like_for_like_compares_the_same_runtime_and_precision_and_no_classifiers():
    assert LIKE_FOR_LIKE
    for ours, theirs in LIKE_FOR_LIKE:
        assert (ours.runtime, ours.precision) == (theirs.runtime, theirs.precision)
        assert ours.model == "bort" != theirs.model
        assert not theirs.is_classifier
    assert all(row.is_classifier for row in AS_DEPLOYED)
