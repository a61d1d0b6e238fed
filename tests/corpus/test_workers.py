"""Tasks on forked processes: each result once, errors as they are raised, and a worker that dies."""

from __future__ import annotations

import os
import signal

import pytest

from bort import BortError
from bort.corpus.workers import run_tasks


def square(shared, number):
    return shared["offset"] + number**2, os.getpid()


def fail(_, text):
    raise BortError(text)


def die(_):
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_each_task_has_its_result(workers):
    # What cannot be pickled reaches the workers all the same.
    shared = {"offset": 1000, "unpicklable": lambda: None}
    numbers = iter(range(50))
    found = {}
    for (_, (number,)), (result, process) in run_tasks(shared, lambda: next(((square, (n,)) for n in numbers), None), workers):
        found[number] = result
        assert (process == os.getpid()) == (workers == 1)
    assert found == {number: 1000 + number**2 for number in range(50)}


@pytest.mark.parametrize("workers", [1, 2])
def test_a_task_may_follow_from_a_result(workers):
    to_do = [(square, (2,))]
    found = []
    for _, (result, _) in run_tasks({"offset": 0}, lambda: to_do.pop() if to_do else None, workers):
        found.append(result)
        if result < 1000:
            to_do.append((square, (result,)))
    assert found == [4, 16, 256, 65536]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_arrives(workers):
    tasks = [(fail, ("one line",))]
    with pytest.raises(BortError, match=r"^one line$"):
        list(run_tasks(None, lambda: tasks.pop() if tasks else None, workers))


def test_a_worker_that_dies_is_an_error():
    tasks = [(die, ())]
    with pytest.raises(BortError, match=r"^a worker process ended abruptly"):
        list(run_tasks(None, lambda: tasks.pop() if tasks else None, 2))
