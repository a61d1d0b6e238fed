"""How many times faster Bort is: against the bars it has to clear, and like for like against every peer, from a benchmark's record.

A ratio on a shape is that of the two medians over all runs; its range is that of the rounds' own medians, each against its neighbour's.
Over shapes it is the geometric mean.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bort.bench.inference.rows import BASE, BASE_CLASSIFIER, BORT, BORT_CLASSIFIER, LARGE, PEERS, ROWS, Row

STANDARD_SHAPES = ("1x32", "1x128", "8x128", "1x512")


@dataclass(frozen=True)
class Bar:
    """What a ratio has to reach.

    Attributes:
        ours, theirs: rows; the ratio is how many times longer theirs takes.
        mean: of the geometric mean over the four standard shapes.
        each: of every shape; None asks nothing of one alone.
    """

    ours: Row
    theirs: Row
    mean: float
    each: float | None = None


_INT8, _FP32 = Row(BORT, "openvino", "int8"), Row(BORT, "onnxruntime", "fp32")
BARS = (
    Bar(_INT8, Row(BASE, "torch", "fp32"), 16.0, 10.0),
    Bar(_INT8, Row(LARGE, "torch", "fp32"), 50.0),
    Bar(_FP32, Row(BASE, "torch", "fp32"), 4.5),
)
LIKE_FOR_LIKE = tuple(
    (ours, theirs)
    for ours in ROWS
    for theirs in ROWS
    if ours.model == BORT and theirs.model in PEERS and (ours.runtime, ours.precision) == (theirs.runtime, theirs.precision)
)
"""Pairs of rows of the same runtime and precision."""
AS_DEPLOYED = (Row(BORT_CLASSIFIER, "openvino", "int8"), Row(BASE_CLASSIFIER, "torch", "fp32"))


def compare(record: Mapping[str, Any], ours: Row, theirs: Row) -> dict[str, Any] | None:
    """How many times longer ``theirs`` takes.

    Returns:
        ``ours`` and ``theirs``, ``shapes`` and ``mean``, each ``ratio``, ``least`` and ``most``; None if one of the rows was not measured.
    """
    rows = {row["name"]: row["shapes"] for row in record["rows"]}
    if not {str(ours), str(theirs)} <= rows.keys():
        return None
    ratios: dict[str, list[float]] = {}
    for shape in record["shapes"]:
        one, other = rows[str(ours)][shape], rows[str(theirs)][shape]
        rounds = zip(one["round_medians_ms"], other["round_medians_ms"], strict=True)
        ratios[shape] = [other["from_ids"]["p50_ms"] / one["from_ids"]["p50_ms"], *(slow / fast for fast, slow in rounds)]
    means = [statistics.geometric_mean(column) for column in zip(*ratios.values(), strict=True)]
    return {
        "ours": str(ours),
        "theirs": str(theirs),
        "shapes": {shape: _range(column) for shape, column in ratios.items()},
        "mean": _range(means),
    }


def judge(record: Mapping[str, Any]) -> dict[str, Any]:
    """All comparisons that the measured rows allow.

    Returns:
        ``bars``: each with what it asks and whether it ``holds``, None where other shapes than the standard ones were measured;
        ``like_for_like``; and ``as_deployed``, the two classifiers, or None.
    """
    bars = []
    for bar in BARS:
        found = compare(record, bar.ours, bar.theirs)
        if found is not None:
            ratios = [entry["ratio"] for entry in found["shapes"].values()]
            holds = found["mean"]["ratio"] >= bar.mean and (bar.each is None or min(ratios) >= bar.each)
            is_standard = sorted(record["shapes"]) == sorted(STANDARD_SHAPES)
            bars.append(found | {"asked_mean": bar.mean, "asked_each": bar.each, "holds": holds if is_standard else None})
    pairs = [compare(record, ours, theirs) for ours, theirs in LIKE_FOR_LIKE]
    return {"bars": bars, "like_for_like": [pair for pair in pairs if pair is not None], "as_deployed": compare(record, *AS_DEPLOYED)}


def _range(column: list[float]) -> dict[str, float]:
    """The first value, and the range of the others."""
    return {"ratio": column[0], "least": min(column[1:]), "most": max(column[1:])}
