"""The machine: what a reader of figures needs, whatever MXNet's distribution is called, and as many threads as OpenMP starts."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from bort.machine import cpu_flags, describe_machine, has_bfloat16, has_vnni, num_threads


def test_the_machine_says_what_a_reader_of_figures_needs():
    machine = describe_machine(["numpy"])
    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert machine["memory_gb"] > 0.5
    assert set(machine["versions"]) == {"bort", "numpy"}
    assert machine["versions"]["numpy"] == np.__version__
    assert machine["cpu"]


def test_a_module_of_a_distribution_of_another_name_has_its_version(tmp_path, monkeypatch):
    """As MXNet's builds for GPUs have, mxnet-cu112 for one; a module without a distribution is no reason to fail."""
    (tmp_path / "engine").mkdir()
    (tmp_path / "engine/__init__.py").write_text("")
    description = tmp_path / "engine_cu112-1.9.1.dist-info"
    description.mkdir()
    (description / "METADATA").write_text("Metadata-Version: 2.1\nName: engine-cu112\nVersion: 1.9.1\n")
    (description / "top_level.txt").write_text("engine\n")
    monkeypatch.syspath_prepend(tmp_path)
    versions = describe_machine(["numpy", "engine", "nowhere"])["versions"]
    assert versions | {"bort": ""} == {"bort": "", "numpy": np.__version__, "engine": "1.9.1", "nowhere": "unknown"}


@pytest.mark.parametrize("value", ["3", "4,2", " 2 , 1 ", "+5", "08", "0", "-1", "many", "", None])
def test_there_are_as_many_threads_as_openmp_starts(value):
    program = "import ctypes; from bort.machine import num_threads; print(num_threads(), ctypes.CDLL('libgomp.so.1').omp_get_max_threads())"
    environment = {name: text for name, text in os.environ.items() if not name.startswith("OMP_")}
    environment |= {} if value is None else {"OMP_NUM_THREADS": value}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    ours, theirs = result.stdout.split()
    assert ours == theirs


def test_without_a_number_there_is_a_thread_per_core(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert num_threads() == len(os.sched_getaffinity(0))


def test_what_a_cpu_can_do_is_told_by_its_flags():
    assert cpu_flags() >= set(describe_machine([])["cpu_flags"])
    assert [has_vnni(frozenset({flag})) for flag in ("avx2", "avx512f", "avx512_bf16", "avx_vnni", "avx512_vnni", "amx_int8")] == [
        False,
        False,
        False,
        True,
        True,
        True,
    ]
    assert [has_bfloat16(frozenset({flag})) for flag in ("avx512_vnni", "avx512_bf16", "amx_bf16")] == [False, True, True]
