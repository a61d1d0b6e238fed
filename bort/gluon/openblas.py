"""Tells OpenBLAS which processor this is, where it would take it for one of 2004.

MXNet 1.9.1's wheel carries OpenBLAS 0.3.13. A processor newer than itself it calls a "Prescott" and uses SSE3 on it: measured here, 40
GFLOP/s of a core where its code for "Haswell" (AVX2) gives 100. It reads ``OPENBLAS_CORETYPE`` when it is loaded, which must come first.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

_ASK = """
import ctypes, sys
ask = ctypes.CDLL(sys.argv[1]).openblas_get_corename
ask.restype = ctypes.c_char_p
print(ask().decode())
"""


def choose_core_type() -> None:
    """Set ``OPENBLAS_CORETYPE`` for this process and its children, unless it is set, OpenBLAS knows better, or there is no AVX2."""
    library = find_library()
    if "OPENBLAS_CORETYPE" in os.environ or library is None or not _has_avx2():
        return
    # Asking means loading, and what is loaded does not change its mind; so another process asks.
    answer = subprocess.run([sys.executable, "-S", "-E", "-c", _ASK, str(library)], capture_output=True, text=True, check=False)
    if answer.stdout.strip() == "Prescott":
        os.environ["OPENBLAS_CORETYPE"] = "Haswell"


def find_library() -> Path | None:
    """OpenBLAS as MXNet's wheel carries it; None where there is no such file."""
    spec = importlib.util.find_spec("mxnet")
    folders = spec.submodule_search_locations if spec else None
    library = Path(folders[0]) / "libopenblas.so.0" if folders else None
    return library if library is not None and library.exists() else None


def _has_avx2() -> bool:
    cpuinfo = Path("/proc/cpuinfo")
    return cpuinfo.exists() and " avx2 " in cpuinfo.read_text(encoding="utf-8", errors="replace")
