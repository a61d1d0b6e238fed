"""How fast Bort in INT8 could be at best on this machine, and what share of that is reached.

Notable: the peaks are measured here and now, on the threads that the rows have, by a small C++ library. The least time of a shape is the
longer of two: all multiply-adds at the INT8 peak, and all weights read once, at the rate at which this machine reads so many bytes again
and again, be it from its caches or from memory. Everything else (norms, softmax, moving hidden states, what is not INT8) counts as nothing,
so no program can reach it in full. It is the roofline of Williams et al. (2009).
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bort.bench.inference.rows import BORT, Row
from bort.bench.pretrain import Shape
from bort.bench.processes import measure
from bort.config import BortConfig
from bort.errors import BortError
from bort.files import whole_file
from bort.machine import cpu_flags, describe_machine, has_vnni

_SOURCE = Path(__file__).with_name("peaks.cc")
_FLAGS = ("-std=c++17", "-O3", "-march=native", "-pthread", "-shared", "-fPIC")
_RATES = ("fp32", "bf16", "int8", "weights", "memory")
ROW = Row(BORT, "openvino", "int8")


def multiply_adds(config: BortConfig, shape: Shape) -> int:
    """Multiply-adds of the encoder on one batch: of its matrices of weights, and of queries with keys and weights with values."""
    tokens = shape.batch_size * shape.length
    return config.num_hidden_layers * tokens * (_weights_of_a_layer(config) + 2 * shape.length * config.hidden_size)


def weight_bytes(config: BortConfig) -> int:
    """Bytes of the encoder's matrices in INT8, without embeddings, of which a batch reads a few rows."""
    return config.num_hidden_layers * _weights_of_a_layer(config)


def measure_roofline(config: BortConfig, rows: Sequence[Mapping[str, Any]], shapes: Sequence[str], cores: Sequence[int]) -> dict[str, Any]:
    """The least time on each shape, and the share of it that was reached.

    Args:
        config: Bort's sizes.
        rows: of a benchmark's record.
        cores: to measure on, one thread on each.

    Returns:
        ``row``, ``gmacs_per_second`` by kind of number, ``weight_bytes``, ``weight_gb_per_second``, ``memory_gb_per_second``, and
        ``shapes``: of each ``gmacs``, ``products_ms``, ``weights_ms``, ``least_ms``, ``measured_ms`` and ``reached``. Or, where that cannot
        be found out, the ``reason`` alone.
    """
    measured = next((row for row in rows if row["name"] == str(ROW)), None)
    if measured is None:
        return {"reason": f"{ROW} was not measured"}
    try:
        peaks = measure_peaks(weight_bytes(config), cores)
    except BortError as error:
        return {"reason": str(error)}
    weights_ms = weight_bytes(config) / peaks["weights"] / 1e6
    described = {}
    for name in shapes:
        total = multiply_adds(config, Shape.parse(name))
        products_ms, measured_ms = total / peaks["int8"] / 1e6, measured["shapes"][name]["from_ids"]["p50_ms"]
        least_ms = max(products_ms, weights_ms)
        described[name] = {
            "gmacs": total / 1e9,
            "products_ms": products_ms,
            "weights_ms": weights_ms,
            "least_ms": least_ms,
            "measured_ms": measured_ms,
            "reached": least_ms / measured_ms,
        }
    return {
        "row": str(ROW),
        "gmacs_per_second": {name: rate for name, rate in peaks.items() if name not in ("weights", "memory")},
        "weight_bytes": weight_bytes(config),
        "weight_gb_per_second": peaks["weights"],
        "memory_gb_per_second": peaks["memory"],
        "shapes": described,
    }


def measure_peaks(weights: int, cores: Sequence[int]) -> dict[str, float]:
    """What these cores can do at most, one thread on each.

    Args:
        weights: bytes to read again and again.

    Returns:
        10^9 multiply-adds per second of ``fp32``, ``bf16`` and ``int8``, 0 for what has no instruction of its own; 10^9 bytes per second of
        ``weights``, and of ``memory`` far beyond any cache.

    Raises:
        BortError: if there is no compiler, or no VNNI, with the reason.
    """
    flags = cpu_flags()
    if "amx_int8" in flags:
        raise BortError("this CPU multiplies INT8 in tiles (AMX), whose peak is not measured here")
    if not has_vnni(flags):
        raise BortError("this CPU has no VNNI, so INT8 has no instruction of its own")
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(compiler[0]) is None:
        raise BortError(f"no C++ compiler ({compiler[0]})")
    try:
        library = _compiled(compiler)
    except subprocess.CalledProcessError as error:
        said = next((line for line in error.stderr.splitlines() if "error" in line), f"exit status {error.returncode}")
        raise BortError(f"{compiler[0]} cannot compile {_SOURCE.name} ({said})") from None
    except OSError as error:
        raise BortError(f"{error.filename}: {error.strerror}; set XDG_CACHE_HOME to a folder that can be written") from None
    rates: dict[str, float] = measure(
        f"{__name__}:call_library", {"library": str(library), "threads": len(cores), "weights": weights}, cores
    ).value
    return rates


def call_library(library: str, threads: int, weights: int) -> dict[str, float]:
    """The rates that the compiled library finds; what :func:`measure_peaks` calls in a process of its own."""
    rates = (ctypes.c_double * len(_RATES))()
    ctypes.CDLL(library).measure_peaks(ctypes.c_int(threads), ctypes.c_size_t(weights), rates)
    return dict(zip(_RATES, rates, strict=True))


def _weights_of_a_layer(config: BortConfig) -> int:
    return 4 * config.hidden_size**2 + 2 * config.hidden_size * config.intermediate_size


def _compiled(compiler: list[str]) -> Path:
    """The library, compiled unless an earlier process has done so from the same source, compiler and processor."""
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    processor = "\0".join([describe_machine([])["cpu"], *sorted(cpu_flags())])
    identity = "\0".join([_SOURCE.read_text(encoding="utf-8"), *_FLAGS, version, processor])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bort"
    library = cache / f"peaks-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        with whole_file(library) as partial:
            subprocess.run([*compiler, *_FLAGS, str(_SOURCE), "-o", str(partial)], capture_output=True, text=True, check=True)
    return library
