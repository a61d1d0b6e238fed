"""Horovod with two real processes: the same training as one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

WORKER = "tests.gluon.two_workers"


@pytest.fixture(scope="module")
def states(tmp_path_factory, repository):
    """What one process, and each of two, had after three steps."""
    output = tmp_path_factory.mktemp("workers")
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for launcher in ([], ["horovodrun", "--gloo", "-np", "2"]):
        command = [*launcher, sys.executable, "-m", WORKER, str(output)]
        result = subprocess.run(command, env=environment, cwd=repository, capture_output=True, text=True, timeout=120, check=False)
        assert result.returncode == 0, result.stdout + result.stderr
    return {path.stem: dict(np.load(path)) for path in output.glob("*.npz")}


def test_two_workers_are_one_worker_with_the_whole_batch(states):
    one, two = states["rank0_of_1"], states["rank0_of_2"]
    parameters = [name for name in one if ":" not in name and "/" not in name]
    assert len(parameters) == 42
    assert max(np.abs(one[name] - two[name]).max() for name in parameters) < 1e-5
    moments = [name for name in one if "/" in name]
    assert max(np.abs(one[name] - two[name]).max() for name in moments) < 1e-5


def test_both_workers_hold_the_same_bits(states):
    first, second = states["rank0_of_2"], states["rank1_of_2"]
    assert all(np.array_equal(first[name], second[name]) for name in first)


def test_sums_are_over_all_workers(states):
    one, two = states["rank0_of_1"], states["rank0_of_2"]
    for name in ("masked_tokens", "mlm_loss", "kd_loss", "updates", "gradient_norm"):
        assert two[f"sum:{name}"] == pytest.approx(one[f"sum:{name}"], rel=1e-5), name
    assert two["sum:evaluation_masked_tokens"] > one["sum:evaluation_masked_tokens"]


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_launcher_that_horovod_does_not_know_is_refused(variable, repository):
    """Otherwise every process would train alone, into the same folder."""
    program = "from bort.gluon.distributed import join_workers; join_workers()"
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, env=os.environ | {variable: "2"}, cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )
    assert "the launcher started 2 workers, Horovod sees 1; start them with horovodrun" in result.stderr
