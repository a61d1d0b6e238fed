"""What a reader of a figure must know of where it was measured: the machine and the versions of what ran on it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bort

_TELLING_FLAGS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_bf16", "amx_int8")
_VNNI_FLAGS = {"avx_vnni", "avx512_vnni", "amx_int8"}
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}


def describe_machine(packages: Sequence[str]) -> dict[str, Any]:
    """Processor, cores that this process may use, memory, system, Python, and versions of Bort and ``packages``.

    Args:
        packages: names of distributions, or of modules where several distributions provide one, as those of MXNet do.

    Returns:
        ``cpu``, ``cpu_flags``, ``cores``, ``memory_gb`` (10^9 bytes), ``system``, ``python`` and ``versions``, which maps each name to its
        version; ``unknown`` stands for what was not installed as a distribution.
    """
    processor, flags = _processor(), cpu_flags()
    return {
        "cpu": processor.get("model name", platform.processor() or platform.machine()),
        "cpu_flags": [flag for flag in _TELLING_FLAGS if flag in flags],
        "cores": _cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": {"bort": bort.__version__} | {name: _version(name) for name in packages},
    }


def cpu_flags() -> frozenset[str]:
    """What the first core can do, in Linux's words; nothing elsewhere."""
    return frozenset(_processor().get("flags", "").split())


def has_vnni(flags: frozenset[str]) -> bool:
    """Whether a CPU with these flags adds products of 8-bit numbers into 32 bits; others do so by way of 16, which can overflow."""
    return bool(_VNNI_FLAGS & flags)


def has_bfloat16(flags: frozenset[str]) -> bool:
    """Whether a CPU with these flags multiplies in bfloat16."""
    return bool(_BFLOAT16_FLAGS & flags)


def num_threads() -> int:
    """Threads of an OpenMP region that is not nested: the first number of ``OMP_NUM_THREADS``, which may be a list; else one per core."""
    first = re.match(r"\s*\+?0*([1-9]\d*)\s*(,|$)", os.environ.get("OMP_NUM_THREADS", ""))
    return int(first[1]) if first else _cores()


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _version(name: str) -> str:
    """Version of the distribution called ``name``, else of the first that provides a module of that name, such as mxnet-cu112."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        # Looks into every distribution, which takes time.
        providers = importlib.metadata.packages_distributions().get(name)
        return importlib.metadata.version(providers[0]) if providers else "unknown"


def _processor() -> dict[str, str]:
    """What Linux says of the first core; nothing elsewhere."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return dict(re.findall(r"^([^\t:]+)\t*: (.*)$", text.split("\n\n")[0], flags=re.MULTILINE))
