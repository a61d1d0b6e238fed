"""Processes that share what the parent had before they were forked, such as a tokenizer.

Notable: a worker that dies is an error and not a wait without end, and no worker outlives its parent, however that ended.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from bort.errors import BortError

Task = tuple[Callable[..., Any], tuple[Any, ...]]
_PARENT_CHECK = 0.5  # seconds
_shared: Any = None


def run_tasks(shared: object, next_task: Callable[[], Task | None], num_workers: int) -> Iterator[tuple[Task, Any]]:
    """Run tasks and yield each with its result as it is done.

    Args:
        shared: first argument of each task's function; it reaches the workers without being pickled.
        next_task: gives the next function and its other arguments, or None if there is none before another task is done.
        num_workers: processes; 1 runs the tasks in this one.

    Raises:
        BortError: if a worker dies.
    """
    executor: Executor
    if num_workers == 1:
        executor = _InThisProcess(shared)
    else:
        context = multiprocessing.get_context("fork")
        executor = ProcessPoolExecutor(num_workers, context, initializer=_begin, initargs=(shared, os.getpid()))
    # One task more than there are workers, so that none waits for this process to take a result.
    at_once = 1 if num_workers == 1 else num_workers + 1
    running: dict[Future[Any], Task] = {}
    try:
        while True:
            while len(running) < at_once and (task := next_task()) is not None:
                running[executor.submit(_run, *task)] = task
            if not running:
                break
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise BortError("a worker process ended abruptly: killed, or out of memory; run again to go on where it stopped") from None
    finally:
        executor.shutdown(cancel_futures=True)


class _InThisProcess(Executor):
    """Runs each task at once."""

    def __init__(self, shared: object) -> None:
        self._shared = shared

    def submit(self, function: Callable[..., Any], /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        task, task_arguments = arguments
        future.set_result(task(self._shared, *task_arguments))
        return future


def _run(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    return function(_shared, *arguments)


def _begin(shared: object, parent: int) -> None:
    global _shared
    _shared = shared
    # What came from the parent is left in the pages that it shares with us: the collector would write to all of them.
    gc.freeze()
    # An interruption from the keyboard reaches the parent too, which then ends the workers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_PARENT_CHECK)
    os._exit(1)
