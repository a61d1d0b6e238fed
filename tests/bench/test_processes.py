"""A measurement in a process of its own: confined, timed as a whole, its errors the caller's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bort import BortError
from bort.bench import processes
from bort.bench.processes import choose_cores, measure


def test_the_process_runs_on_the_given_core_alone():
    (core,) = choose_cores(1)
    before = os.sched_getaffinity(0)
    measured = measure("subprocess:getoutput", {"cmd": "nproc"}, [core])
    assert measured.value == "1"
    assert os.sched_getaffinity(0) == before


def test_processor_time_counts_the_processes_that_it_starts():
    program = "python3 -c 'import time\nwhile time.process_time() < 0.3: pass'"
    measured = measure("subprocess:getoutput", {"cmd": program}, choose_cores(1))
    assert measured.cpu_seconds > 0.3
    assert measured.wall_seconds > 0.3


def test_work_of_others_is_what_the_machine_did_beyond_ours(monkeypatch):
    busy = iter([100.0, 107.0])
    monkeypatch.setattr(processes, "_busy_seconds", lambda: next(busy))
    measured = measure("os:getpid", {}, choose_cores(1))
    assert measured.other_cores == pytest.approx((7.0 - measured.cpu_seconds) / measured.wall_seconds)


def test_the_work_of_the_machine_counts_every_process():
    before = processes._busy_seconds()
    subprocess.run([sys.executable, "-c", "import time\nwhile time.process_time() < 0.5: pass"], check=True)
    assert processes._busy_seconds() - before > 0.4


def test_errors_of_the_user_come_back_and_others_are_failures(capfd):
    with pytest.raises(BortError, match=r"nowhere\.txt: no such text file"):
        measure("bort.corpus.documents:find_text_files", {"inputs": ["nowhere.txt"]}, choose_cores(1))
    with pytest.raises(RuntimeError, match="exit status 1"):
        measure("os:listdir", {"path": "/nowhere"}, choose_cores(1))
    assert "FileNotFoundError" in capfd.readouterr().err


def test_more_workers_than_cores_are_refused():
    with pytest.raises(BortError, match="give fewer --workers"):
        choose_cores(len(os.sched_getaffinity(0)) + 1)
