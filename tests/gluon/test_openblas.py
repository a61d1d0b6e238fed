"""OpenBLAS is told its processor before it is loaded, and only where it does not know it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bort.gluon.openblas import find_library

CODE = """
import ctypes, os
import bort.gluon, mxnet
from bort.gluon.openblas import find_library
name = ctypes.CDLL(str(find_library())).openblas_get_corename
name.restype = ctypes.c_char_p
print(name().decode(), os.environ.get("OPENBLAS_CORETYPE"))
"""


def core_type(**environment):
    variables = {name: value for name, value in os.environ.items() if name != "OPENBLAS_CORETYPE"} | environment
    return subprocess.run([sys.executable, "-c", CODE], env=variables, capture_output=True, text=True, check=True).stdout.split()


@pytest.mark.skipif(find_library() is None, reason="this MXNet carries no OpenBLAS")
def test_no_processor_with_avx2_is_taken_for_one_of_2004():
    with open("/proc/cpuinfo", encoding="utf-8") as cpuinfo:
        if " avx2 " not in cpuinfo.read():
            pytest.skip("this processor has no AVX2, so there is nothing to choose")
    name, chosen = core_type()
    assert name != "Prescott"
    # What OpenBLAS knows better is left to it.
    assert chosen in ("None", name)


@pytest.mark.skipif(find_library() is None, reason="this MXNet carries no OpenBLAS")
def test_a_choice_of_the_user_stands():
    assert core_type(OPENBLAS_CORETYPE="Nehalem") == ["Nehalem", "Nehalem"]
