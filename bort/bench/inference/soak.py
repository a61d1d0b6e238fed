"""An exported model as a server uses it: several threads send texts of mixed lengths for minutes, and every answer is looked at.

Notable: what the answer to each text is was found out before, alone; under load it must be the same. Latency and memory are reported minute
by minute, so that a leak or a slow drift shows. Nothing is kept of an answer but its time, until the minute is over.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bort.bench.report import machine_line, print_table
from bort.errors import BortError
from bort.export.exported_model import ExportedModel
from bort.machine import describe_machine

_ROWS = 500
# Tokens of a text: most are short, a few as long as the model reads.
_MEDIAN_TOKENS, _SPREAD = 40, 0.9
_CANDIDATES = 5000
_LEAST_WINDOWS = 5
_TOLERANCE = 1e-4
_SHORTEST_WAIT = 0.05


@dataclass(frozen=True)
class Window:
    """A minute of the soak, or a fifth of a shorter one.

    Attributes:
        seconds: since the start, at its end.
        answers: given, and all right.
        p50_ms, p99_ms: of an answer, waiting for others included.
        resident_mb: memory of the process at the end, in 2**20 bytes.
    """

    seconds: float
    answers: int
    p50_ms: float
    p99_ms: float
    resident_mb: float


@dataclass
class _Load:
    """What the threads share.

    Attributes:
        failure: of the first thread that failed.
    """

    lock: threading.Lock = field(default_factory=threading.Lock)
    stop: threading.Event = field(default_factory=threading.Event)
    latencies: list[float] = field(default_factory=list)
    failure: BaseException | None = None


def soak(exported: Path, minutes: float, threads: int, clients: int, show_progress: bool = False) -> dict[str, Any]:
    """Keep a model busy.

    Args:
        exported: folder that ``bort export --format onnx`` wrote.
        minutes: how long.
        threads: of the runtime.
        clients: threads that send texts, each one after another.

    Returns:
        The record that is printed as a JSON line.

    Raises:
        BortError: if an argument is unusable, the folder is not whole, or an answer is another one than without load.
    """
    if not 0 < minutes <= 1e5 or threads < 1 or clients < 1:
        raise BortError("--minutes must lie above 0 and be at most 100000, --threads and --clients must be at least 1")
    model = ExportedModel.from_directory(exported, threads=threads)
    rows = make_rows(model)
    expected = [answer(model, row) for row in rows]
    windows = _run(model, rows, expected, 60.0 * minutes, clients, show_progress)
    return {
        "benchmark": "soak",
        "exported": str(exported),
        "kind": model.folder.kind,
        "precision": model.folder.precision,
        "runtime": model.session.runtime,
        "minutes": minutes,
        "threads": threads,
        "clients": clients,
        "machine": describe_machine([model.session.runtime, "numpy"]),
        "windows": [asdict(window) for window in windows],
        "answers": sum(window.answers for window in windows),
        # The first minute still makes what later ones use again.
        "growth_mb": windows[-1].resident_mb - windows[0].resident_mb,
        "growth_mb_per_minute": _slope(windows[1:]),
    }


def make_rows(model: ExportedModel) -> list[tuple[str, ...]]:
    """Texts, or pairs of them where the model's task has pairs, of ordinary tokens and mixed lengths."""
    random, tokenizer = np.random.default_rng(0), model.tokenizer
    drawn = random.integers(0, len(tokenizer.vocab), _CANDIDATES)
    pieces = [text for text in map(tokenizer.decode, drawn[:, None]) if text.strip() and text.isascii() and text.isprintable()]
    longest, parts = model.folder.config.max_position_embeddings, 2 if model.task is not None and model.task.is_pair else 1
    lengths = np.clip(random.lognormal(np.log(_MEDIAN_TOKENS), _SPREAD, _ROWS), 1, longest).astype(int)
    return [tuple("".join(random.choice(pieces, max(1, length // parts))) for _ in range(parts)) for length in lengths.tolist()]


def answer(model: ExportedModel, row: tuple[str, ...]) -> NDArray[np.float32]:
    """What the model says of one row: probabilities of the classes, a score, or the hidden state of the first token."""
    if model.task is None:
        first: NDArray[np.float32] = model.encode([row])[0]
        return first
    (prediction,) = model.predict([row])
    return np.array([prediction.score, *prediction.probabilities.values()], dtype=np.float32)


def _run(
    model: ExportedModel,
    rows: Sequence[tuple[str, ...]],
    expected: Sequence[NDArray[np.float32]],
    seconds: float,
    clients: int,
    show_progress: bool,
) -> list[Window]:
    load = _Load()
    group = [threading.Thread(target=_send, args=(model, rows, expected, load, number), daemon=True) for number in range(clients)]
    length = min(60.0, seconds / _LEAST_WINDOWS)
    windows: list[Window] = []
    start = time.perf_counter()
    for thread in group:
        thread.start()
    try:
        with tqdm(total=round(seconds / length), desc="soak", leave=False, disable=not show_progress) as bar:
            while not load.stop.is_set() and len(windows) < round(seconds / length):
                load.stop.wait(max(_SHORTEST_WAIT, start + length * (len(windows) + 1) - time.perf_counter()))
                with load.lock:
                    taken, load.latencies = load.latencies, []
                if taken:
                    middle, slow = np.percentile(taken, [50, 99])
                    now = time.perf_counter() - start
                    windows.append(Window(now, len(taken), 1000 * float(middle), 1000 * float(slow), _resident_mb()))
                    bar.update()
    finally:
        load.stop.set()
        for thread in group:
            thread.join()
    if load.failure is not None:
        raise load.failure
    return windows


def _send(model: ExportedModel, rows: Sequence[tuple[str, ...]], expected: Sequence[NDArray[np.float32]], load: _Load, number: int) -> None:
    """Send rows until it is time to stop, or an answer is wrong."""
    random = np.random.default_rng([1, number])
    try:
        while not load.stop.is_set():
            row = int(random.integers(len(rows)))
            start = time.perf_counter()
            found = answer(model, rows[row])
            seconds = time.perf_counter() - start
            if not np.allclose(found, expected[row], rtol=_TOLERANCE, atol=_TOLERANCE):
                raise BortError(f"row {row} of {len(rows[row][0])} characters is answered otherwise under load than alone; report this")
            with load.lock:
                load.latencies.append(seconds)
    except BaseException as error:
        load.failure = load.failure or error
        load.stop.set()


def print_report(record: dict[str, Any]) -> None:
    """Print a line for each minute, and what it comes to."""
    rows = [
        [f"{window['seconds'] / 60:.1f}", str(window["answers"]), *(f"{window[name]:.2f}" for name in ("p50_ms", "p99_ms", "resident_mb"))]
        for window in record["windows"]
    ]
    title = f"{record['kind']} in {record['precision']} by {record['runtime']}, {record['clients']} clients, {record['threads']} threads"
    growth = f"{record['growth_mb']:+.1f} MB behind the first line, {record['growth_mb_per_minute']:+.2f} MB a minute"
    print_table(
        title, ["minutes", "answers", "p50 ms", "p99 ms", "resident MB"], rows, [f"all {record['answers']} answers right; {growth}"]
    )
    print(machine_line(record["machine"]))


def _slope(windows: Sequence[Window]) -> float:
    """Memory gained per minute, by least squares; 0 where there are too few points."""
    if len(windows) < 2:
        return 0.0
    minutes = np.array([window.seconds / 60 for window in windows])
    return float(np.polyfit(minutes, [window.resident_mb for window in windows], 1)[0])


def _resident_mb() -> float:
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
