"""Peak memory of ``bort predict --input`` on files of different lengths, each labelled by a process of its own."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bort.bench.processes import choose_cores, measure
from bort.config import BortConfig
from bort.errors import BortError
from bort.model_directory import TrainedTask, write_model_directory
from bort.tasks import Example, Task
from bort.tokenizer import Tokenizer


def predict_in_processes(
    parameters: Mapping[str, np.ndarray],
    config: BortConfig,
    tokenizer: Tokenizer,
    task: Task,
    examples: Sequence[Example],
    max_len: int,
    memory_rows: Sequence[int],
) -> list[dict[str, Any]]:
    """Label files that repeat the task's rows, one for each length asked for.

    Args:
        parameters: of the classifier, under published names.
        config: sizes of its encoder.
        max_len: longest input, special tokens included.
        memory_rows: lengths of the files.

    Returns:
        For each file its ``rows``, ``peak_mb`` (2**20 bytes) and ``seconds``.

    Raises:
        BortError: if a prediction fails, or does not give every row back in order.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="bort_bench_") as name:
        folder = Path(name)
        write_model_directory(folder / "model", config, parameters, tokenizer, TrainedTask(task.name, task.labels, max_len))
        for count in memory_rows:
            lines = ("\t".join(" ".join(text.split()) for text in example.texts) + "\n" for example in itertools.cycle(examples))
            with (folder / "rows.tsv").open("w", encoding="utf-8") as stream:
                stream.writelines(itertools.islice(lines, count))
            arguments = {"model": str(folder / "model"), "rows": str(folder / "rows.tsv"), "output": str(folder / "predictions.tsv")}
            measured = measure(f"{__name__}:predict_and_weigh", arguments, choose_cores(len(os.sched_getaffinity(0))))
            with (folder / "predictions.tsv").open(encoding="utf-8") as stream:
                ids = [line.partition("\t")[0] for line in stream][1:]
            if ids != [str(number) for number in range(count)]:
                raise BortError(f"verification failed: {count} rows were given to bort predict, {len(ids)} came back, or not in order")
            results.append({"rows": count, "peak_mb": measured.value, "seconds": measured.wall_seconds})
    return results


def predict_and_weigh(model: str, rows: str, output: str) -> float:
    """Run ``bort predict`` and return its peak resident memory in 2**20 bytes; the calling process is small and starts no other.

    Raises:
        BortError: if it failed; its message stands above.
    """
    command = [sys.executable, "-m", "bort", "predict", "--checkpoint", model, "--input", rows, "--output", output]
    status = subprocess.run(command, stdout=sys.stderr, check=False).returncode
    if status != 0:
        raise BortError(f"bort predict ended with exit status {status}; its message stands above")
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
