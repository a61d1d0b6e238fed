"""One measurement in one fresh process on stated cores.

Nothing that one measurement leaves behind (warm caches of a library, threads, memory) reaches the next one, and a process that may use one
core does so whatever its libraries think of the machine: the kernel sees to it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bort.errors import BortError


@dataclass(frozen=True)
class Measured:
    """What a process returned and what it took.

    Attributes:
        value: what its function returned.
        wall_seconds: from before the process was started until it had ended.
        cpu_seconds: of it and of the processes it started.
        other_cores: how many cores the rest of the machine kept busy meanwhile, on average; figures count where that is near 0.
    """

    value: Any
    wall_seconds: float
    cpu_seconds: float
    other_cores: float


def choose_cores(count: int) -> list[int]:
    """The first ``count`` cores this process may use.

    Raises:
        BortError: if there are fewer.
    """
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise BortError(f"{count} workers need {count} cores to be timed, this process may use {len(cores)}; give fewer --workers")
    return cores[:count]


def measure(function: str, arguments: dict[str, Any], cores: Sequence[int]) -> Measured:
    """Call a function in a new process that may use these cores only.

    Args:
        function: "module:name".
        arguments: keywords of the call; JSON carries them and what it returns.

    Raises:
        BortError: what the function raised as such.
        RuntimeError: if the process failed otherwise; its error output has been shown.
    """
    call = json.dumps({"function": function, "arguments": arguments})
    with tempfile.TemporaryFile("w+", encoding="utf-8") as answer:
        start, busy = time.perf_counter(), _busy_seconds()
        with _confined(cores):
            child = subprocess.Popen([sys.executable, "-m", __name__, call], stdout=answer)
        _, status, usage = os.wait4(child.pid, 0)
        wall_seconds, busy = time.perf_counter() - start, _busy_seconds() - busy
        child.returncode = os.waitstatus_to_exitcode(status)
        answer.seek(0)
        lines = answer.read().splitlines()
    if child.returncode != 0 or not lines:
        raise RuntimeError(f"{function} failed in a process of its own, exit status {child.returncode}")
    outcome = json.loads(lines[-1])
    if "error" in outcome:
        raise BortError(outcome["error"])
    cpu_seconds = usage.ru_utime + usage.ru_stime
    # The machine counts in ticks of 10 ms, so the difference may come out below 0.
    return Measured(outcome["value"], wall_seconds, cpu_seconds, max(busy - cpu_seconds, 0.0) / wall_seconds)


def _busy_seconds() -> float:
    """What all cores have worked since the machine was started, time taken by other guests of its host included."""
    user, nice, system, _, _, interrupts, soft_interrupts, stolen = map(int, Path("/proc/stat").read_text().split(maxsplit=9)[1:9])
    return (user + nice + system + interrupts + soft_interrupts + stolen) / os.sysconf("SC_CLK_TCK")


@contextmanager
def _confined(cores: Sequence[int]) -> Iterator[None]:
    """What is started here inherits these cores, before any of its threads can have others."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _main(call: str) -> None:
    wanted = json.loads(call)
    module, _, name = wanted["function"].partition(":")
    try:
        outcome = {"value": getattr(importlib.import_module(module), name)(**wanted["arguments"])}
    except BortError as error:
        outcome = {"error": str(error)}
    print(json.dumps(outcome))


if __name__ == "__main__":
    _main(sys.argv[1])
