"""Horovod with two real processes: the same training as one process with the whole batch."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest

from ..real_runs import module_on, one_thread


@pytest.fixture(scope="module")
def states(tmp_path_factory, repository):
    """What one process, and each of two, had after three steps."""
    output = tmp_path_factory.mktemp("workers")
    for workers in (1, 2):
        command = module_on(workers, "tests.gluon.two_workers", output)
        result = subprocess.run(command, env=one_thread(), cwd=repository, capture_output=True, text=True, timeout=300, check=False)
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


def test_two_workers_with_half_the_rows_each_are_one_with_all(states):
    """In the second of the three updates none of the second worker's rows counts."""
    one, two = states["classifier0_of_1"], states["classifier0_of_2"]
    learned = [name for name in one if "." in name]
    assert len(learned) == 3 * 40
    assert max(np.abs(one[name] - two[name]).max() for name in learned) < 1e-5
    assert one["sum:updates"] == 3
    assert 24 < one["sum:rows"] < 36
    for name in one:
        if name.startswith("sum:"):
            assert two[name] == pytest.approx(one[name], rel=1e-5), name


def test_sums_over_workers_are_exact_and_alike_on_all(states):
    one, first, second = (states[f"classifier{name}"] for name in ("0_of_1", "0_of_2", "1_of_2"))
    assert all(first[name].tobytes() == second[name].tobytes() for name in first)
    for result in (one, first):
        np.testing.assert_allclose(result["logits"], result["all_logits"], atol=1e-6)
        assert np.abs(result["logits"]).min() > 0
        assert result["nothing"].shape == (0, 3)
    assert one["logits"].tobytes() == one["all_logits"].tobytes()
    assert first["ranks"].shape == (2, 1, 3)
    assert (first["ranks"] == np.float32(0.1) + np.float32(1.1)).all()
    assert (one["scalar"].shape, float(one["scalar"]), float(first["scalar"])) == ((), 1.0, 3.0)


@pytest.mark.parametrize("variable", ["OMPI_COMM_WORLD_SIZE", "PMI_SIZE"])
def test_a_launcher_that_horovod_does_not_know_is_refused(variable, repository):
    """Otherwise every process would train alone, into the same folder."""
    program = "from bort.gluon.distributed import join_workers; join_workers()"
    command = [sys.executable, "-c", program]
    result = subprocess.run(
        command, env=os.environ | {variable: "2"}, cwd=repository, capture_output=True, text=True, timeout=60, check=False
    )
    assert "the launcher started 2 workers, Horovod sees 1; start them with horovodrun" in result.stderr
