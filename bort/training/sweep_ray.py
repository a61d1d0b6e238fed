"""Programs on the machines of a Ray cluster: the same places as bort/training/sweep_processes.py has on this one.

Notable: Ray chooses the machine, and the program there is guarded by the Ray worker that started it: a cancelled task or a lost driver ends
it too. After a lost machine Ray starts the task again on another, where the run resumes from its last checkpoint. All machines need Bort,
and the run's folders under the same paths.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from bort.errors import BortError
from bort.training.sweep_processes import check_jobs, run_guarded

RAY_VERSION = "2.60.0"
_PATIENCE = 10.0  # seconds for an answer from a cluster


class RayWorkers:
    """Places for programs on a Ray cluster; to be used as a context, at whose end whatever runs is ended.

    Args:
        address: ``local`` starts Ray on this machine alone; ``auto`` or ``host:port`` joins a cluster that this machine is part of.
        jobs: programs at once; None for as many as there are places, one per core or one per GPU.
        use_gpu: give each program a GPU of its own.

    Attributes:
        at_once: programs given to Ray at once; those that have no place wait there.
        lost: what a future raises if a program was lost with its machine.

    Raises:
        BortError: if Ray is not installed, ``jobs`` is below 1, nothing answers at the address, or no machine there has what a program
            needs.
    """

    def __init__(self, address: str, jobs: int | None = None, use_gpu: bool = False) -> None:
        check_jobs(jobs)
        # Ray reports its use to its makers unless told not to.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        try:
            import ray
            from ray.exceptions import RayError
        except ImportError:
            raise BortError(f"--ray needs Ray, which is not installed: pip install ray=={RAY_VERSION}") from None
        self._ray: Any = ray
        self._address, self._jobs, self._use_gpu = address, jobs, use_gpu
        self.at_once = jobs or sys.maxsize
        self.lost: tuple[type[Exception], ...] = (RayError,)
        self._tasks: list[Any] = []

    def __enter__(self) -> RayWorkers:
        cores = len(os.sched_getaffinity(0))
        here = {"num_cpus": max(cores, self._jobs or 0), "include_dashboard": False} if self._address == "local" else {}
        if not here and self._address != "auto":
            self._check_that_it_answers()
        try:
            self._ray.init(address=self._address, log_to_driver=False, logging_level="ERROR", **here)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            reason = " ".join(str(error).split())
            raise BortError(f"--ray {self._address}: {reason}; give local, or start a cluster: ray start --head") from None
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        needed = "GPU" if self._use_gpu else "CPU"
        if not any(machine.get(needed, 0) >= 1 for machine in machines):
            self._ray.shutdown()
            raise BortError(
                f"--ray {self._address}: no machine of the cluster has a {needed} to give; add one that has: ray start --address …"
            )
        cores_of = [int(machine["CPU"]) for machine in machines if machine.get("CPU", 0) >= 1] or [1]
        # A program must find a place on the smallest machine.
        self._threads = max(1, min(sum(cores_of) // self._jobs, *cores_of)) if self._jobs else 1
        self._run = self._ray.remote(num_cpus=self._threads, num_gpus=1 if self._use_gpu else 0)(_run)
        return self

    def __exit__(self, *_: object) -> None:
        for task in self._tasks:
            self._ray.cancel(task, force=True)
        self._ray.shutdown()

    def submit(self, words: Sequence[str], folder: Path) -> Future[int]:
        """Start a program as soon as Ray has a place for it; see :func:`bort.training.sweep_processes.run_guarded`."""
        task = self._run.remote(list(words), str(folder.resolve()), os.getcwd(), {"OMP_NUM_THREADS": str(self._threads)})
        self._tasks.append(task)
        future: Future[int] = task.future()
        return future

    def _check_that_it_answers(self) -> None:
        """Ray itself would keep trying for ten minutes."""
        host, _, port = self._address.removeprefix("ray://").rpartition(":")
        try:
            socket.create_connection((host, int(port)), _PATIENCE).close()
        except (OSError, ValueError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or "not host:port"
            raise BortError(f"--ray {self._address}: {reason}; give local, or start a cluster: ray start --head --port=…") from None


def _run(words: list[str], folder: str, working_directory: str, environment: Mapping[str, str]) -> int:
    """A task of Ray's: run a program where this worker is."""
    os.chdir(working_directory)
    life_line, end_of_life_line = os.pipe()
    try:
        return run_guarded(words, Path(folder), {**os.environ, **environment}, life_line)
    finally:
        os.close(end_of_life_line)
        os.close(life_line)
