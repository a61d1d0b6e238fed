"""The rows' processes, as the one that times them sees them: started with fixed threads, verified, told to run, weighed, ended."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.bench.inference.cases import Difference, difference, digest, read_batches, require_close
from bort.bench.inference.models import EXPECTED_FILE, files_of
from bort.bench.inference.rows import Row
from bort.bench.inference.texts import read_texts
from bort.errors import BortError, on_one_line

_SECONDS_TO_END = 60


@dataclass(frozen=True)
class Place:
    """Where a row finds what it needs.

    Attributes:
        folder: of its model's files.
        texts: of its vocabulary and texts.
        cases: file of the batches that all rows are given.
    """

    folder: Path
    texts: Path
    cases: Path


class RowProcess:
    """A row that is loaded and waits.

    Args:
        cores: that it may use, one thread on each.

    Raises:
        BortError: if it cannot be loaded.
    """

    def __init__(self, row: Row, place: Place, cores: Sequence[int]) -> None:
        self.row, self.place = row, place
        threads = str(len(cores))
        settings = {"OMP_NUM_THREADS": threads, "RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "true", "HF_HUB_OFFLINE": "1"}
        self._errors = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 (closed with the process)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bort.bench.inference.worker", ",".join(map(str, cores))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=os.environ | settings,
        )
        try:
            paths = {name: str(path) for name, path in asdict(place).items()}
            names = [row.model, row.runtime, row.precision]
            self.computes_in: str = self._ask({"row": names, "threads": len(cores)} | paths)["computes_in"]
        except BaseException:
            self.close()
            raise

    def verify(self) -> dict[str, Difference]:
        """Compare ids, outputs of every batch, and ids of texts with those that are right.

        Returns:
            How far the outputs of each batch lie from the right ones.

        Raises:
            BortError: if ids differ, or outputs by more than the row's precision accounts for.
        """
        batches = read_batches(self.place.cases)
        with tempfile.TemporaryDirectory(prefix="bort_bench_") as scratch:
            file = Path(scratch, "outputs.npz")
            if self._ask({"do": "outputs", "file": str(file)})["ids"] != digest(list(batches.values())):
                raise BortError(f"verification failed: {self.row} was given other ids than the others; nothing was timed")
            found, expected = _read_arrays(file), _read_arrays(self.place.folder / EXPECTED_FILE)
        differences = {}
        for name, batch in batches.items():
            try:
                differences[name] = difference(batch, found[name], expected[name])
                require_close(differences[name], self.row.precision)
            except BortError as error:
                raise BortError(f"verification failed: {self.row}, {name}: {error}; nothing was timed") from None
        if self._ask({"do": "tokenise"})["ids"] != read_texts(self.place.texts)[1]:
            raise BortError(f"verification failed: {self.row}: its tokenizer makes other ids of the texts; nothing was timed")
        return differences

    def time(self, shape: str, seconds: float, with_text: bool) -> tuple[list[float], list[float]]:
        """Seconds of each run of a group of runs from ids on, and of one from text on, if that is asked for."""
        answer = self._ask({"do": "time", "shape": shape, "seconds": seconds, "with_text": with_text})
        return answer["from_ids"], answer["from_text"]

    def memory(self) -> dict[str, float]:
        """``resident_mb`` and ``peak_mb``."""
        return self._ask({"do": "memory"})

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(_SECONDS_TO_END)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def _ask(self, command: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(command) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            status = self._process.wait()
            self._errors.seek(0)
            said = [text for text in self._errors.read().splitlines() if text.strip()] or ["without a word"]
            raise BortError(f"{self.row}: its process ended with exit status {status}: {on_one_line(said[-1]):.300}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise BortError(f"{self.row}: {answer['error']}")
        return answer


def size_on_disk(row: Row, folder: Path) -> int:
    """Bytes of what a row loads."""
    return sum(path.stat().st_size for path in files_of(row, folder))


def available_memory() -> int:
    """Bytes that new processes can have without swapping, as Linux estimates them."""
    fields = dict(line.split(":") for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines())
    return int(fields["MemAvailable"].split()[0]) * 1024


def _read_arrays(file: Path) -> dict[str, NDArray[np.float32]]:
    with np.load(file) as arrays:
        return dict(arrays)
