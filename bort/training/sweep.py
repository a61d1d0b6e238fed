"""Sweeps: one task trained at every point of a grid, each run a process of its own, and all of it gone on with after any end.

Notable: what is done is known from the runs' folders alone: a run with ``result.json`` is complete and kept, any other goes on from its own
checkpoint. A run that fails does not stop the others. While a sweep goes on, of the classifiers of complete runs only the best is kept.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from pathlib import Path
from signal import Signals
from statistics import fmean
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from bort.errors import BortError
from bort.files import write_text
from bort.training.best import BEST_FOLDER
from bort.training.checkpoint import remove_whole
from bort.training.finetuning_result import RESULT_FILE
from bort.training.grid import Point
from bort.training.sweep_processes import LOG_FILE, SIGNALLED, last_line
from bort.training.sweep_report import RUNS_FOLDER, SWEEP_FILE, read_score, read_sweep

_LOCK_FILE = ".sweep.lock"

WorkersT = TypeVar("WorkersT", bound="Workers")


class Workers(Protocol):
    """Where runs are carried out: bort/training/sweep_processes.py and sweep_ray.py have one each.

    Attributes:
        at_once: runs that are given out at a time.
        lost: what a future may raise where a run was lost with its machine.
    """

    at_once: int
    lost: tuple[type[Exception], ...]

    def __enter__(self: WorkersT) -> WorkersT: ...

    def __exit__(self, *_: object) -> None: ...

    def submit(self, words: Sequence[str], folder: Path) -> Future[int]:
        """Run ``python WORDS`` with its output in ``folder/log.txt``; the future has its exit status."""


@contextmanager
def only_sweep(output: Path) -> Iterator[None]:
    """Hold a sweep's folder, which is made if it is not there, so that no second process works on it.

    Raises:
        BortError: if one does.
    """
    output.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(output / _LOCK_FILE, os.O_CREAT | os.O_RDWR, 0o666)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BortError(f"{output}: another sweep is at work there; wait for its end, or give another --output_dir") from None
        yield
    finally:
        os.close(descriptor)


def remember_sweep(output: Path, options: Mapping[str, Any], points: Sequence[Point]) -> list[Point]:
    """Write down what a sweep is, beside what it was: points may be added, all else must be as before.

    Args:
        output: its folder.
        options: of every run, by name; those that decide the outcome.
        points: that are asked for now.

    Returns:
        All points that were ever asked for.

    Raises:
        BortError: naming the first difference, if the folder holds a sweep of other options, or one that varies other settings.
    """
    known: list[Point] = []
    if (output / SWEEP_FILE).exists():
        earlier, known = read_sweep(output)
        different = sorted(name for name in earlier.keys() | options.keys() if earlier.get(name) != options.get(name))
        remedy = "give the same options, or another --output_dir"
        if different:
            was, wanted = (repr(of[different[0]]) if different[0] in of else "its default" for of in (earlier, options))
            raise BortError(f"{output}: the sweep there has {different[0]} {was}, this one {wanted}; {remedy}")
        varied, wanted = (", ".join(sorted(each[0].values)) for each in (known, points))
        if varied != wanted:
            raise BortError(f"{output}: the sweep there varies {varied}, this one {wanted}; {remedy}")
    names = {point.name for point in known}
    known += [point for point in points if point.name not in names]
    text = json.dumps({"options": dict(options), "points": [dict(point.values) for point in known]}, indent=1)
    write_text(output / SWEEP_FILE, text + "\n")
    return known


def run_sweep(
    points: Sequence[Point],
    command_of: Callable[[Point, Path], Sequence[str]],
    output: Path,
    workers: Workers,
    keep_models: str = "best",
    description: str = "sweep",
) -> dict[str, str]:
    """Carry out the runs that are not complete, and say of each how it ended.

    Args:
        points: one a run.
        command_of: the words, behind the interpreter's name, that run a point in a folder and write ``result.json`` there last.
        output: folder of the sweep; runs are in ``runs/`` in it.
        keep_models: ``best`` keeps ``best/`` of the best of all complete runs in ``output`` alone, the first by name of several; ``all``
            keeps all of them.
        description: before the progress bar.

    Returns:
        Why each run that failed did, by the point's name.

    Raises:
        BortError: if a result is damaged.
        KeyboardInterrupt: also on SIGTERM, when all runs have been ended.
    """
    folders = {point.name: output / RUNS_FOLDER / point.name for point in points}
    scores = {name: read_score(folder) for name, folder in folders.items() if (folder / RESULT_FILE).exists()}
    waiting = deque(point for point in points if point.name not in scores)
    running: dict[Future[int], tuple[str, int]] = {}
    failed: dict[str, str] = {}
    if keep_models == "best":
        _keep_best_model(output)
    if not waiting:
        return failed
    bar = tqdm(total=len(points), initial=len(scores), desc=description, unit="run", disable=None, leave=False)
    with bar, workers, _termination_is_interruption():
        while waiting or running:
            while waiting and len(running) < workers.at_once:
                point = waiting.popleft()
                folder = folders[point.name]
                log = folder / LOG_FILE
                begin = log.stat().st_size if log.exists() else 0
                running[workers.submit(command_of(point, folder), folder)] = point.name, begin
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, begin = running.pop(future)
                reason = _reason(future, workers.lost, folders[name], begin)
                bar.update()
                if reason is not None:
                    failed[name] = reason
                    bar.write(f"{name}  failed: {reason}")
                    continue
                scores[name] = read_score(folders[name])
                bar.set_postfix(mean=f"{fmean(scores.values()):.4f}", failed=len(failed))
                done = f"{len(scores) + len(failed)}/{len(points)}"
                bar.write(f"{name}  score {scores[name]:.4f}  ({done}, mean {fmean(scores.values()):.4f})")
                if keep_models == "best":
                    _keep_best_model(output)
    return failed


def best_run(output: Path) -> Path | None:
    """Folder of the complete run with the highest score in a sweep's folder, the first by name of several; None if there is none."""
    complete = sorted(path.parent for path in (output / RUNS_FOLDER).glob(f"*/{RESULT_FILE}"))
    return max(complete, key=read_score, default=None)


def _keep_best_model(output: Path) -> None:
    best = best_run(output)
    for result in (output / RUNS_FOLDER).glob(f"*/{RESULT_FILE}"):
        if result.parent != best and (result.parent / BEST_FOLDER).is_dir():
            remove_whole(result.parent / BEST_FOLDER)


def _reason(future: Future[int], lost: tuple[type[Exception], ...], folder: Path, begin: int) -> str | None:
    """Why a run failed that has ended; None if it did not."""
    try:
        status = future.result()
    except lost as error:
        return " ".join(str(error).split()) or type(error).__name__
    if (folder / RESULT_FILE).exists():
        return None
    said = last_line(folder / LOG_FILE, begin)
    if status > SIGNALLED:
        return f"ended by {_signal_name(status - SIGNALLED)}" + (f", after: {said}" if said else "")
    return said or f"exit status {status} and no {RESULT_FILE}"


def _signal_name(number: int) -> str:
    try:
        return Signals(number).name
    except ValueError:
        return f"signal {number}"


@contextmanager
def _termination_is_interruption() -> Iterator[None]:
    """SIGTERM raises KeyboardInterrupt here, so that runs are ended in order."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
