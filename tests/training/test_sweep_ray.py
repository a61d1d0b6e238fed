"""Sweeps on a real Ray of two workers on this machine; skipped where Ray is not installed."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from bort.errors import BortError
from bort.training.sweep_ray import RAY_VERSION, RayWorkers
from tests.training.test_sweep import PROGRAM, results, running, sweep, wait_for

needs_ray = pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason=f"Ray is not installed: pip install ray=={RAY_VERSION}")


def start(output, jobs, seconds, seeds, kind="finish", address="local"):
    """In a process of its own, as Ray starts threads and changes signal handlers."""
    words = [str(PROGRAM), str(output), str(jobs), str(seconds), seeds, kind, address]
    return subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@needs_ray
def test_two_nodes_of_a_cluster_run_a_sweep_at_the_same_time(tmp_path):
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    try:
        cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()
        process = start(tmp_path, 2, 0.0, "0,1,2", "meet_2", cluster.address)
        printed, errors = process.communicate(timeout=90)
    finally:
        cluster.shutdown()
    assert process.returncode == 0, errors
    assert json.loads(printed.splitlines()[-1]) == {}
    assert results(tmp_path) == {f"seed={seed}": (seed * 37 % 10) / 20 for seed in range(3)}
    begins = sorted(float(line.split()[2]) for line in (tmp_path / "started.txt").read_text().splitlines())
    ends = sorted(float(path.read_text()) for path in tmp_path.glob("runs/*/finished"))
    assert begins[1] < ends[0] < begins[2]


@needs_ray
def test_kill_minus_9_leaves_no_run_and_the_sweep_resumes(tmp_path):
    process = start(tmp_path, 2, 10.0, "0,1")
    wait_for(lambda: len(list(tmp_path.glob("runs/*/checkpoint"))) == 2, 60)
    process.kill()
    process.communicate()
    wait_for(lambda: not running(tmp_path), 40)
    assert results(tmp_path) == {}
    assert sweep(tmp_path, [0, 1]) == {}
    assert len(results(tmp_path)) == 2


@needs_ray
@pytest.mark.parametrize(
    ("address", "message"),
    [("auto", "any running Ray instance"), ("127.0.0.1:1", "Connection refused"), ("nonsense", "not host:port"), ("a:b", "not host:port")],
)
def test_where_nothing_answers_the_error_says_so(address, message, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(BortError, match=f"--ray {address}: .*{message}.*ray start --head"), RayWorkers(address):
        pass


def test_without_ray_the_error_says_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BortError, match=f"which is not installed: pip install ray=={RAY_VERSION}"):
        RayWorkers("local")
