"""A measurement in a process of its own: confined, timed as a whole, its errors the caller's."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bort import BortError
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


def test_work_of_others_is_noticed():
    others = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        measured = measure("subprocess:getoutput", {"cmd": "sleep 0.5"}, choose_cores(1))
    finally:
        others.kill()
        others.wait()
    assert measured.other_cores > 0.3


def test_errors_of_the_user_come_back_and_others_are_failures(capfd):
    with pytest.raises(BortError, match=r"nowhere\.txt: no such text file"):
        measure("bort.corpus.documents:find_text_files", {"inputs": ["nowhere.txt"]}, choose_cores(1))
    with pytest.raises(RuntimeError, match="exit status 1"):
        measure("os:listdir", {"path": "/nowhere"}, choose_cores(1))
    assert "FileNotFoundError" in capfd.readouterr().err


def test_more_workers_than_cores_are_refused():
    with pytest.raises(BortError, match="give fewer --workers"):
        choose_cores(len(os.sched_getaffinity(0)) + 1)
