"""Speed of inference on a CPU: Bort and models of published shapes, in every runtime, in one run whose rows take turns.

Weights and text are random: only shapes matter. Every row is a process of its own, and its outputs are compared with those that are right
before anything is timed. Then rows run in rounds: within a round and a shape each row once, alone, for a group of runs behind one that
does not count, every other round in reverse. So whatever else the machine does meets all rows alike, and ratios are those of
neighbours. Every fourth round measures from the text on as well.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from bort.bench.inference.bars import judge
from bort.bench.inference.preparation import models_of, prepare
from bort.bench.inference.processes import size_on_disk
from bort.bench.inference.roofline import measure_roofline
from bort.bench.inference.rounds import Measured, Samples, measure_rows
from bort.bench.inference.rows import Row
from bort.bench.pretrain import Shape
from bort.bench.processes import choose_cores
from bort.errors import BortError
from bort.machine import describe_machine
from bort.model_directory import find_model

_PACKAGES = {
    "gluon": ("mxnet",),
    "torch": ("torch", "transformers"),
    "onnxruntime": ("onnx", "onnxruntime"),
    "openvino": ("onnx", "openvino", "nncf"),
}


def bench_inference(
    model: str,
    rows: Sequence[Row],
    shapes: Sequence[Shape],
    repeats: int,
    threads: int,
    show_progress: bool = False,
    fields: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Make the models, verify every row, then measure.

    Args:
        model: Bort: an architecture, a ``config.json``, or a model folder, whose weights are taken; else they are random.
        shapes: of the batches.
        repeats: rounds.
        threads: of each row, on as many cores.
        fields: of peers' configurations, by name, in place of those that are published.

    Returns:
        The record that is printed as a JSON line; times in milliseconds, memory and files in 2**20 bytes.

    Raises:
        BortError: if an argument is unusable, something is not installed, or verification fails.
    """
    if repeats < 1 or threads < 1:
        raise BortError("--repeats and --threads must be at least 1")
    if threads > len(os.sched_getaffinity(0)):
        raise BortError(f"--threads {threads}: this process may use {len(os.sched_getaffinity(0))} cores, one for each thread; give fewer")
    packages, cores, distinct = _require_packages(rows), choose_cores(threads), list(dict.fromkeys(shapes))
    names = [str(shape) for shape in distinct]
    with tempfile.TemporaryDirectory(prefix="bort_bench_") as scratch:
        places, vocabularies = prepare(Path(scratch), models_of(rows, model, fields or {}), distinct, cores, show_progress)
        measured, packs = measure_rows(rows, places, names, repeats, cores, show_progress)
        sizes = [size_on_disk(row, places[row.model].folder) for row in rows]
    record: dict[str, Any] = {
        "benchmark": "inference",
        "model": model,
        "shapes": names,
        "repeats": repeats,
        "threads": threads,
        "packs": packs,
        "machine": describe_machine(packages),
        "vocabularies": vocabularies,
        "rows": [_describe(found, size) for found, size in zip(measured, sizes, strict=True)],
    }
    roofline = measure_roofline(find_model(model).config, record["rows"], names, cores)
    return record | {"ratios": judge(record), "roofline": roofline}


def _require_packages(rows: Sequence[Row]) -> list[str]:
    """The distributions that these rows run on; Bort in Gluon and the peers in PyTorch say what is right, so both are always among them."""
    needed = dict.fromkeys(name for row in rows for runtime in (row.runtime, row.reference) for name in _PACKAGES[runtime])
    missing = [name for name in needed if importlib.util.find_spec(name) is None]
    if missing:
        raise BortError(f"these rows need {', '.join(missing)}; pip install .[onnx,openvino,peers], or leave them out by --rows")
    return [*needed, "tokenizers", "gigatoken", "numpy"]


def _describe(found: Measured, size: int) -> dict[str, Any]:
    """A row of the record."""
    return {
        "name": str(found.row),
        "model": found.row.model,
        "runtime": found.row.runtime,
        "precision": found.row.precision,
        "computes_in": found.computes_in,
        "disk_mb": size / 2**20,
        **found.memory,
        "differences": {name: asdict(difference) for name, difference in found.differences.items()},
        "shapes": {shape: _speeds(int(shape.partition("x")[0]), samples) for shape, samples in found.samples.items()},
    }


def _speeds(batch_size: int, samples: Samples) -> dict[str, Any]:
    return {
        "from_ids": _speed(batch_size, samples.from_ids),
        "from_text": _speed(batch_size, samples.from_text),
        "round_medians_ms": [1000 * float(np.median(group)) for group in samples.from_ids],
    }


def _speed(batch_size: int, groups: Sequence[Sequence[float]]) -> dict[str, float]:
    """Latency of one run over all rounds, and how many sequences one run after another gives in a second at the median."""
    seconds = np.concatenate(groups)
    median, slow = np.percentile(seconds, [50, 95])
    return {"p50_ms": 1000 * median, "p95_ms": 1000 * slow, "sequences_per_second": batch_size / median, "runs": len(seconds)}
