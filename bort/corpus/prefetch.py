"""Things made in the background while the last one is in use.

Notable: the thread belongs to the standard library's executor, which ends it when the iterator is closed, is forgotten, or the interpreter
exits, so nothing can hang on it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class prefetch(Iterator[T]):
    """``make`` of each of ``numbers``, in their order, made by one background thread.

    What ``make`` raises is raised where its result would have come, and ends the iterator.

    Args:
        make: called in the background thread.
        numbers: its arguments; drawn from in the caller's thread.
        depth: results made ahead of the one asked for, at least 1.

    Attributes:
        waited_seconds: how long callers have waited for results so far.

    Raises:
        ValueError: if ``depth`` is less than 1.
    """

    def __init__(self, make: Callable[[int], T], numbers: Iterable[int], depth: int = 2) -> None:
        if depth < 1:
            raise ValueError(f"depth must be at least 1, got {depth}")
        self.waited_seconds = 0.0
        self._make = make
        self._numbers = iter(numbers)
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="prefetch")
        self._pending: deque[Future[T]] = deque()
        for _ in range(depth):
            self._submit_next()

    def __next__(self) -> T:
        if not self._pending:
            self.close()
            raise StopIteration
        started = time.perf_counter()
        try:
            result = self._pending[0].result()
            self._pending.popleft()
            self._submit_next()
        except BaseException:
            self.close()
            raise
        finally:
            self.waited_seconds += time.perf_counter() - started
        return result

    def close(self) -> None:
        """End the iterator and its thread, once what is being made is made; may be called again."""
        self._pending.clear()
        self._numbers = iter(())
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _submit_next(self) -> None:
        for number in self._numbers:
            self._pending.append(self._executor.submit(self._make, number))
            break
