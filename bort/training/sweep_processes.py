"""Programs that run beside each other on this machine, none of which outlives the process that started them.

Notable: each is watched over by a small guard that holds the read end of a pipe. When the write end closes, because its holder ended it or
was itself killed with -9, the guard ends its program with everything that the program started: with an interruption first, then for good.
Nor does the program outlive its guard. The guard's lock on the run's folder is inherited by the program, so a run never begins while an
earlier one still has hold of its folder.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from threading import Thread

from bort.errors import BortError

LOG_FILE = "log.txt"
SIGNALLED = 128  # and the signal's number: the exit status of a program that a signal ended
_LOCK_FILE = ".lock"
_PR_SET_PDEATHSIG = 1  # of <sys/prctl.h>
_GRACE = 5.0  # seconds between an interruption and the end


class LocalWorkers:
    """Places for programs on this machine; to be used as a context, at whose end nothing runs any more.

    Args:
        jobs: programs at once; None for one per GPU, or one per core.
        use_gpu: give each place a GPU, in turn, through CUDA_VISIBLE_DEVICES. Cores are shared out through OMP_NUM_THREADS, unless that is
            set.

    Attributes:
        at_once: programs at once.
        lost: what a future may raise if a program was lost with its machine; never here.

    Raises:
        BortError: if ``jobs`` is below 1, or a GPU is wanted and there is none.
    """

    lost: tuple[type[Exception], ...] = ()

    def __init__(self, jobs: int | None = None, use_gpu: bool = False) -> None:
        check_jobs(jobs)
        gpus = visible_gpus() if use_gpu else []
        if use_gpu and not gpus:
            raise BortError(
                "--gpu: no GPU here that nvidia-smi knows of; leave --gpu out, or give the GPUs' numbers: CUDA_VISIBLE_DEVICES=0,1"
            )
        cores = len(os.sched_getaffinity(0))
        self.at_once = jobs or len(gpus) or cores
        self._places: SimpleQueue[dict[str, str]] = SimpleQueue()
        for place in range(self.at_once):
            threads = {"OMP_NUM_THREADS": str(max(1, cores // self.at_once))}
            devices = {"CUDA_VISIBLE_DEVICES": gpus[place % len(gpus)]} if gpus else {}
            self._places.put(threads | dict(os.environ) | devices)

    def __enter__(self) -> LocalWorkers:
        self._life_line, self._end_of_life_line = os.pipe()
        self._threads = ThreadPoolExecutor(self.at_once)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._end_of_life_line)
        self._threads.shutdown(cancel_futures=True)
        os.close(self._life_line)

    def submit(self, words: Sequence[str], folder: Path) -> Future[int]:
        """Start a program as soon as there is a place for it; see :func:`run_guarded`."""
        return self._threads.submit(self._run, words, folder)

    def _run(self, words: Sequence[str], folder: Path) -> int:
        place = self._places.get()
        try:
            return run_guarded(words, folder, place, self._life_line)
        finally:
            self._places.put(place)


def run_guarded(words: Sequence[str], folder: Path, environment: Mapping[str, str], life_line: int) -> int:
    """Run a Python program to its end; what it prints is added to ``folder/log.txt``.

    Args:
        words: of the command, behind the interpreter's name.
        folder: of the run; made if it is not there.
        life_line: read end of a pipe; when nobody holds the write end any more, the program is ended.

    Returns:
        The exit status; 128 and the signal's number for one that a signal ended.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOG_FILE).open("ab") as log:
        # A session of its own: an interruption from the keyboard reaches this process alone, which then closes the life line.
        status = subprocess.run(
            [sys.executable, "-m", __name__, str(folder), *words],
            stdin=life_line, stdout=log, stderr=subprocess.STDOUT, env=environment, start_new_session=True, check=False,
        ).returncode  # fmt: skip
    return _as_shells_do(status)


def last_line(log: Path, begin: int) -> str:
    """The last line that is not blank, of what was added to a log from byte ``begin`` on; empty if there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(begin, log.stat().st_size - 2**16))
            lines = file.read().decode("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def check_jobs(jobs: int | None) -> None:
    """Refuse a number of programs at once below 1.

    Raises:
        BortError: if it is below 1.
    """
    if jobs is not None and jobs < 1:
        raise BortError(f"--jobs must be at least 1, got {jobs}")


def visible_gpus() -> list[str]:
    """Names by which CUDA_VISIBLE_DEVICES can choose from the GPUs that this process may use."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        return [name for name in chosen.split(",") if name]
    try:
        listed = subprocess.run(["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return []
    return listed.stdout.split()


def _guard(folder: Path, words: Sequence[str]) -> int:
    """Run a program as :func:`run_guarded` wants it, in the process that watches over it."""
    # Where the whole was started with interruptions ignored, as shells do in the background, the program would never notice one.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    lock = os.open(folder / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o666)
    fcntl.flock(lock, fcntl.LOCK_EX)
    if select.select([0], [], [], 0)[0]:
        return SIGNALLED + signal.SIGKILL
    guard, libc = os.getpid(), ctypes.CDLL(None)

    def end_with_guard() -> None:
        # A guard can be killed too: Ray does so with every child of a worker that ends.
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            os._exit(1)

    # Between fork and exec Python is safe here: this process has no other thread yet.
    program = subprocess.Popen(
        [sys.executable, *words], stdin=subprocess.DEVNULL, start_new_session=True, pass_fds=(lock,), preexec_fn=end_with_guard
    )
    Thread(target=_end_with_line, args=(program.pid,), daemon=True).start()
    status = program.wait()
    _signal_group(program.pid, signal.SIGKILL)
    return _as_shells_do(status)


def _as_shells_do(status: int) -> int:
    """An exit status as shells give it: Python has the negative number of the signal for a process that one ended."""
    return status if status >= 0 else SIGNALLED - status


def _end_with_line(group: int) -> None:
    # Nobody writes into the pipe, so the only thing that can be read is its end.
    os.read(0, 1)
    _signal_group(group, signal.SIGINT)
    time.sleep(_GRACE)
    _signal_group(group, signal.SIGKILL)


def _signal_group(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        os.killpg(group, number)


if __name__ == "__main__":
    # Without the finalisation of an interpreter that has a thread waiting for its standard input.
    os._exit(_guard(Path(sys.argv[1]), sys.argv[2:]))
