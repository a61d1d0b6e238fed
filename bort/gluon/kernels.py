"""Compiles and loads ``kernels.cc``: operators for the CPU where MXNet's own leave most of the machine unused.

On two AVX-512 cores MXNet 1.9.1 needs 16 ms for the backward pass of a LayerNorm that 1 ms suffices for, and 300 ms for an Adam step that
memory allows in 30; ``docs/experiments.md`` has the figures. The library is compiled once for this processor, compiler and MXNet, and kept
in ``$XDG_CACHE_HOME/bort`` (``~/.cache/bort``). Without a C++ compiler, on a GPU, or with ``BORT_KERNELS=off`` MXNet's own operators do the
same work; results then differ by rounding.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import mxnet as mx

from bort.files import whole_file

_SOURCE = Path(__file__).with_name("kernels.cc")
_FLAGS = (
    "-std=c++17",
    "-O3",
    "-march=native",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fopenmp",
    "-shared",
    "-fPIC",
    "-fno-gnu-unique",
    "-Wl,-Bsymbolic",
)


def are_available(ctx: mx.Context) -> bool:
    """Whether the kernels run on ``ctx``; the first call in a process loads them, the first on a machine compiles them (10 s)."""
    return ctx.device_type == "cpu" and _load()


@functools.cache
def _load() -> bool:
    if os.environ.get("BORT_KERNELS") == "off":
        return False
    compiler = shlex.split(os.environ.get("CXX", "")) or ["c++"]
    if shutil.which(compiler[0]) is None:
        return _without(f"no C++ compiler ({compiler[0]})")
    try:
        library = _compiled(compiler)
        mx.library.load(str(library), verbose=False)
    except subprocess.CalledProcessError as error:
        reason = next((line for line in error.stderr.splitlines() if "error" in line), f"exit status {error.returncode}")
        return _without(f"{compiler[0]} cannot compile {_SOURCE.name} ({reason})")
    except OSError as error:
        return _without(f"{error.filename}: {error.strerror}; set XDG_CACHE_HOME to a folder that can be written")
    except mx.MXNetError as error:
        return _without(f"MXNet cannot load {library} ({str(error).splitlines()[-1]}); remove it to have it compiled again")
    return True


def _without(reason: str) -> bool:
    warnings.warn(f"{reason}, so training uses MXNet's own operators, which are slower", stacklevel=4)
    return False


def _compiled(compiler: list[str]) -> Path:
    """The library, compiled unless an earlier process has done so from the same source, compiler, MXNet and processor."""
    mxnet = Path(mx.__file__).parent
    command = [*compiler, *_FLAGS, f"-I{mxnet / 'include'}", f"-I{mxnet / 'src'}", str(_SOURCE), str(mxnet / "libopenblas.so.0")]
    version = subprocess.run([*compiler, "--version"], capture_output=True, text=True, check=True).stdout
    identity = "\0".join([_SOURCE.read_text(encoding="utf-8"), *_FLAGS, version, mx.__version__, _processor()])
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bort"
    library = cache / f"kernels-{hashlib.sha256(identity.encode()).hexdigest()[:16]}.so"
    if not library.exists():
        with whole_file(library) as partial:
            subprocess.run([*command, "-o", str(partial)], capture_output=True, text=True, check=True)
    return library


def _processor() -> str:
    """What the code is compiled for: model and instruction sets of this machine's processor."""
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    return "\n".join(sorted({line for line in lines if line.startswith(("model name", "flags"))}))


if __name__ == "__main__":
    loaded = are_available(mx.cpu())
    print("bort's CPU kernels: " + ("compiled and loaded" if loaded else "not available"))
    sys.exit(0 if loaded else 1)
