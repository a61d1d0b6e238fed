"""One row in a process of its own, so that thread pools do not meet and memory is the row's: it loads, shows its outputs, runs when told.

It reads one JSON object per line from standard input and answers each with another. The first says what to load; what follows names a
method of :class:`Worker` in ``do``, and its arguments. What libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from bort.bench.inference.cases import digest, read_batches
from bort.bench.inference.rows import BORT, BORT_CLASSIFIER, Row
from bort.bench.inference.runners import open_runner
from bort.bench.inference.texts import open_library, open_own, read_texts
from bort.errors import BortError

# Before a group of runs: one at least, so that caches hold this row's weights and no other's. Where a run takes so long that this hardly
# matters, the smallest batch does, which reads the same weights.
_WARM_UP_SECONDS, _LONG_SECONDS = 0.03, 1.0


class Worker:
    """A loaded row.

    Args:
        row: model, runtime, precision.
        folder: of the model's files.
        texts: folder of its vocabulary and texts.
        cases: file of batches.
        threads: to compute with.
    """

    def __init__(self, row: list[str], folder: str, texts: str, cases: str, threads: int) -> None:
        self.row = Row(*row)
        self.run, self.computes_in = open_runner(self.row, Path(folder), threads)
        self.encode = (open_own if self.row.model in (BORT, BORT_CLASSIFIER) else open_library)(Path(texts))
        self.texts, _ = read_texts(Path(texts))
        self.batches = read_batches(Path(cases))
        self.smallest = min(self.batches.values(), key=lambda batch: batch["input_ids"].size)
        self.is_long: set[str] = set()

    def outputs(self, file: str) -> dict[str, Any]:
        """Write the outputs of every batch."""
        np.savez(file, **{name: self.run(batch) for name, batch in self.batches.items()})
        return {"ids": digest(list(self.batches.values()))}

    def tokenise(self) -> dict[str, Any]:
        """What the texts of each shape become."""
        return {"ids": {shape: digest([self.encode(batch) for batch in batches]) for shape, batches in self.texts.items()}}

    def time(self, shape: str, seconds: float, with_text: bool) -> dict[str, Any]:
        """Run one shape from ids on until so much time is over, at least once; and then from texts on, if that is asked for."""
        batch, texts = self.batches[shape], self.texts[shape]
        warm_up = self.smallest if shape in self.is_long else batch
        start = time.perf_counter()
        self.run(warm_up)
        while time.perf_counter() - start < _WARM_UP_SECONDS:
            self.run(warm_up)
        from_ids = _time(lambda number: self.run(batch), seconds)
        if min(from_ids) > _LONG_SECONDS:
            self.is_long.add(shape)
        from_text = _time(lambda number: self.run(self.encode(texts[number % len(texts)])), seconds) if with_text else []
        return {"from_ids": from_ids, "from_text": from_text}

    def memory(self) -> dict[str, Any]:
        """Resident memory now and at its peak, in 2**20 bytes."""
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        now, peak = (int(status.split(name)[1].split()[0]) / 1024 for name in ("VmRSS:", "VmHWM:"))
        return {"resident_mb": now, "peak_mb": peak}


def _time(call: Callable[[int], Any], seconds: float) -> list[float]:
    """Seconds of each call; ``call`` is told its number."""
    samples: list[float] = []
    start = time.perf_counter()
    while not samples or time.perf_counter() - start < seconds:
        before = time.perf_counter()
        call(len(samples))
        samples.append(time.perf_counter() - before)
    return samples


def main(cores: list[int], answers: TextIO) -> None:
    """Answer commands until standard input ends."""
    os.sched_setaffinity(0, cores)
    worker: Worker | None = None
    for line in sys.stdin:
        command = json.loads(line)
        try:
            if worker is None:
                worker = Worker(**command)
                answer = {"computes_in": worker.computes_in}
            else:
                answer = getattr(worker, command.pop("do"))(**command)
        except BortError as error:
            answer = {"error": str(error)}
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    with os.fdopen(os.dup(1), "w", encoding="utf-8") as channel:
        os.dup2(2, 1)
        main([int(core) for core in sys.argv[1].split(",")], channel)
