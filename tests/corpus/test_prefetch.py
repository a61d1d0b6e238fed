"""Prefetching: order, how far ahead, exceptions at their place, and a thread that always ends."""

from __future__ import annotations

import gc
import signal
import subprocess
import sys
import threading
import time

import pytest

from bort.corpus.prefetch import prefetch


def alive():
    return [thread for thread in threading.enumerate() if thread.name.startswith("prefetch")]


def wait_until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_everything_comes_in_order_from_another_thread():
    made_by = set()

    def make(number):
        made_by.add(threading.get_ident())
        return number * number

    assert list(prefetch(make, range(100))) == [number * number for number in range(100)]
    assert len(made_by) == 1
    assert threading.get_ident() not in made_by
    assert list(prefetch(make, [])) == []
    assert not alive()


@pytest.mark.parametrize("depth", [1, 3])
def test_it_runs_ahead_by_its_depth_and_no_further(depth):
    made = []
    results = prefetch(made.append, range(100), depth)
    wait_until(lambda: len(made) == depth)
    next(results)
    wait_until(lambda: len(made) == depth + 1)
    time.sleep(0.05)
    assert made == list(range(depth + 1))
    results.close()


def test_what_is_raised_is_raised_at_its_place_and_ends_it():
    def make(number):
        if number == 3:
            raise ValueError("three")
        return number

    results = prefetch(make, range(10), depth=5)
    assert [next(results) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(ValueError, match="three"):
        next(results)
    assert list(results) == []
    assert not alive()


def test_the_numbers_may_raise_too():
    def numbers():
        yield 1
        raise OSError("no more")

    results = prefetch(str, numbers(), depth=1)
    with pytest.raises(OSError, match="no more"):
        next(results)
    assert not alive()


def test_closing_early_ends_the_thread_and_forgets_what_was_made():
    made = []
    results = prefetch(made.append, range(1000), depth=50)
    next(results)
    results.close()
    count = len(made)
    assert not alive()
    assert list(results) == []
    results.close()
    assert len(made) == count


def test_forgetting_the_iterator_ends_the_thread():
    results = prefetch(str, range(1000))
    assert next(results) == "0"
    assert alive()
    del results
    gc.collect()
    wait_until(lambda: not alive())


def test_time_is_counted_only_while_waiting():
    slow_maker = prefetch(lambda number: time.sleep(0.05), range(4))
    list(slow_maker)
    assert slow_maker.waited_seconds > 0.15
    made = []
    slow_user = prefetch(made.append, range(4), depth=4)
    wait_until(lambda: len(made) == 4)
    for _ in slow_user:
        time.sleep(0.03)
    assert slow_user.waited_seconds < 0.06


def test_a_depth_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least 1, got 0"):
        prefetch(str, range(3), depth=0)


# A parent that ignores interrupts, such as a shell's background job, would hand that down.
SCRIPT = """
import signal, time
from bort.corpus.prefetch import prefetch
signal.signal(signal.SIGINT, signal.default_int_handler)
results = prefetch(lambda number: time.sleep({seconds}) or number, range(10**9))
print(next(results), flush=True)
{then}
"""


def start(seconds, then, repository):
    script = SCRIPT.format(seconds=seconds, then=then)
    return subprocess.Popen([sys.executable, "-c", script], cwd=repository, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize(("then", "status"), [("", 0), ("raise SystemExit(3)", 3), ("raise KeyError", 1), ("for _ in results: 1/0", 1)])
def test_a_process_ends_with_an_open_iterator(then, status, repository):
    process = start(0.01, then, repository)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == status
    assert ("Traceback" in errors) == (status == 1)


def test_a_process_that_waits_can_be_interrupted(repository):
    process = start(0.2, "for number in results: print(number, flush=True)", repository)
    assert process.stdout.readline() == "0\n"
    assert process.stdout.readline() == "1\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=10)
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")
