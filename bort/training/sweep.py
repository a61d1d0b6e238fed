"""Sweeps: one task trained at every point of a grid, each run a process of its own; the same sweep resumes after any end.

Notable: what is done is known from the runs' folders alone: a run with ``result.json`` is complete and kept, any other resumes from its own
checkpoint. A run that fails does not stop the others; one that turns out to have learnt from other data than they did stops all. Even
while a sweep is running, only the best of the classifiers of complete runs is kept.
"""

from __future__ import annotations

import json
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from signal import Signals
from statistics import fmean
from typing import Any, Protocol, TypeVar

from tqdm import tqdm

from bort.errors import BortError
from bort.files import write_text
from bort.training.best import BEST_FOLDER
from bort.training.checkpoint import remove_checkpoints, remove_partials, remove_whole
from bort.training.finetuning_result import RESULT_FILE, FinetuningResult
from bort.training.grid import Point
from bort.training.lock import only_process
from bort.training.sweep_folder import RUNS_FOLDER, SWEEP_FILE, read_runs, read_sweep
from bort.training.sweep_processes import LOG_FILE, SIGNALLED, last_line

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


def remember_sweep(output: Path, options: Mapping[str, Any], points: Sequence[Point]) -> tuple[list[Point], list[Point]]:
    """Write ``sweep.json``, or add points to the one that is there, where all else must be as it was.

    A sweep of which no run has got as far as a checkpoint may be replaced by any other.

    Args:
        output: its folder.
        options: of every run, by name; those that decide the outcome.
        points: that are asked for now.

    Returns:
        Those points, with the names that they have in this sweep; and all points that were ever asked for.

    Raises:
        BortError: naming the first difference, if the folder holds a sweep of other options, or one that varies other settings.
    """
    known: list[Point] = []
    if (output / SWEEP_FILE).exists():
        earlier, known = read_sweep(output)
        if difference := _difference(earlier, known, options, points):
            if _has_work(output):
                raise BortError(f"{output}: the sweep there {difference}; give the same options, or another --output_dir")
            known = []
    asked = [replace(point, fixed=known[0].fixed) for point in points] if known else list(points)
    names = {point.name for point in known}
    known += [point for point in asked if point.name not in names]
    described = {"options": dict(options), "fixed": dict(known[0].fixed), "points": [dict(point.values) for point in known]}
    output.mkdir(parents=True, exist_ok=True)
    write_text(output / SWEEP_FILE, json.dumps(described, indent=1) + "\n")
    return asked, known


def run_sweep(
    points: Sequence[Point],
    command_of: Callable[[Point, Path], Sequence[str]],
    output: Path,
    workers: Workers,
    keep_models: str = "best",
    keep_checkpoints: bool = False,
    description: str = "sweep",
) -> dict[str, str]:
    """Carry out the runs that are not complete, and say of each how it ended.

    Args:
        points: one per run.
        command_of: the words, behind the interpreter's name, that run a point in a folder and write ``result.json`` there last.
        output: folder of the sweep; runs are in ``runs/`` in it.
        keep_models: ``best`` keeps ``best/`` of the best of all complete runs in ``output`` alone, the first by name of several; ``all``
            keeps all of them.
        keep_checkpoints: of complete runs too; else what a kill has left of them is removed.
        description: before the progress bar.

    Returns:
        Why each run that failed did, by the point's name.

    Raises:
        BortError: if a result is damaged, or made with other settings than the others in what the points do not vary.
        KeyboardInterrupt: also on SIGTERM, when all runs have been ended.
    """
    folders = {point.name: output / RUNS_FOLDER / point.name for point in points}
    varied = points[0].values
    results = read_runs(output, varied)
    waiting = deque(point for point in points if point.name not in results)
    running: dict[Future[int], tuple[str, int]] = {}
    failed: dict[str, str] = {}
    for name in results:
        _clean(output / RUNS_FOLDER / name, keep_checkpoints)
    if keep_models == "best":
        _keep_best_model(output, results)
    if not waiting:
        return failed
    bar = tqdm(total=len(points), initial=len(points) - len(waiting), desc=description, unit="run", disable=None, leave=False)
    with bar, workers, _termination_is_interruption():
        while waiting or running:
            while waiting and len(running) < workers.at_once:
                point = waiting.popleft()
                folder = folders[point.name]
                running[workers.submit(command_of(point, folder), folder)] = point.name, _size(folder / LOG_FILE)
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                name, begin = running.pop(future)
                reason = _reason(future, workers.lost, folders[name], begin)
                bar.update()
                if reason is not None:
                    failed[name] = reason
                    bar.write(f"{name}  failed: {reason}")
                    continue
                results = read_runs(output, varied)
                scores = [results[each].score for each in folders if each in results]
                bar.set_postfix(mean=f"{fmean(scores):.4f}", failed=len(failed))
                done = f"{len(scores) + len(failed)}/{len(points)}"
                bar.write(f"{name}  score {results[name].score:.4f}  ({done}, mean {fmean(scores):.4f})")
                if keep_models == "best":
                    _keep_best_model(output, results)
    return failed


def best_run(output: Path, results: Mapping[str, FinetuningResult]) -> Path | None:
    """Folder of the run with the highest score, the first by name of several; None if there is none.

    Args:
        results: of a sweep's complete runs, as :func:`bort.training.sweep_folder.read_runs` has them.
    """
    name = max(results, key=lambda name: results[name].score, default=None)
    return None if name is None else output / RUNS_FOLDER / name


def _difference(earlier: Mapping[str, Any], known: Sequence[Point], options: Mapping[str, Any], points: Sequence[Point]) -> str:
    """In what two sweeps differ, said of the earlier one; empty if the later one can resume it."""
    different = sorted(name for name in earlier.keys() | options.keys() if earlier.get(name) != options.get(name))
    if different:
        was, wanted = (repr(of[different[0]]) if different[0] in of else "its default" for of in (earlier, options))
        return f"has {different[0]} {was}, this one {wanted}"
    varied, wanted = (", ".join(sorted(each[0].values)) for each in (known, points))
    return "" if varied == wanted else f"varies {varied}, this one {wanted}"


def _has_work(output: Path) -> bool:
    """Whether a run of a sweep is complete or can be resumed."""
    return any(next((output / RUNS_FOLDER).glob(f"*/{name}"), None) for name in (RESULT_FILE, "checkpoint_*"))


def _keep_best_model(output: Path, results: Mapping[str, FinetuningResult]) -> None:
    best = best_run(output, results)
    for folder in (output / RUNS_FOLDER / name for name in results):
        if folder != best and (folder / BEST_FOLDER).is_dir():
            remove_whole(folder / BEST_FOLDER)


def _clean(run: Path, keep_checkpoints: bool) -> None:
    """Remove what a kill left of a complete run, unless it is still about to end, or cannot be written any more."""
    with suppress(BortError, OSError), only_process(run, "run"):
        remove_partials(run)
        if not keep_checkpoints:
            remove_checkpoints(run, after=-1)


def _size(file: Path) -> int:
    """Bytes of a file, 0 if there is none."""
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _reason(future: Future[int], lost: tuple[type[Exception], ...], folder: Path, begin: int) -> str | None:
    """Why a run that has ended failed; None if it did not fail."""
    try:
        status = future.result()
        if (folder / RESULT_FILE).exists():
            return None
    except lost as error:
        return " ".join(str(error).split()) or type(error).__name__
    except OSError as error:
        return f"{error.filename or folder}: {error.strerror or error}"
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
