"""Text files to shards on the disk: how fast, on one core and on more, after proof that the shards are right.

Every run is a process of its own, confined to as many cores as it has workers, and ends when its shards are on the disk (fsync included).
Runs with different numbers of workers take turns, so that whatever else the machine does falls on all of them.
"""

from __future__ import annotations

import itertools
import shutil
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bort.bench.data_verification import verify_shard
from bort.bench.processes import Measured, choose_cores, measure
from bort.bench.report import Spread, machine_line, print_table
from bort.byte_pair import Reference
from bort.corpus.compression import is_compressed
from bort.corpus.documents import ReadingReport, read_documents
from bort.corpus.shards import create_shards, shard_names
from bort.errors import BortError
from bort.machine import describe_machine
from bort.parameters import map_safetensors
from bort.settings import ShardSettings
from bort.tokenizer import Tokenizer
from bort.vocabulary_files import find_tokenizer

PACKAGES = ("gigatoken", "tokenizers", "numpy")
VERIFIED_WHOLE = 32_000_000
"""Bytes of text up to which the ids of all sentences are verified."""
_SENTENCES_AT_ONCE = 20_000
_QUIET = 0.1  # cores


@dataclass(frozen=True)
class Vocabulary:
    """Where the vocabulary is, as the command line says it."""

    vocab: str | None
    dataset_name: str | None

    def tokenizer(self) -> Tokenizer:
        return find_tokenizer(self.vocab, self.dataset_name)


def bench_data(
    files: Sequence[Path], vocabulary: Vocabulary, repeats: int, workers: Sequence[int], copies: int, num_outputs: int, show_progress: bool
) -> dict[str, Any]:
    """Verify, then time.

    Args:
        files: plain text, one sentence per line.
        repeats: runs with each number of workers.
        workers: numbers of them, each on so many cores; shards must not depend on it.
        copies: how often the text is read, one after the other.
        num_outputs: shards that are timed.

    Returns:
        What :func:`print_report` prints and what the JSON line holds; times in seconds, speeds in 10^6 bytes of text per second.

    Raises:
        BortError: if a shard is not what the reference makes of the text, or depends on the number of workers; if there are fewer cores
            than workers.
    """
    if min(repeats, copies, num_outputs, *workers) < 1:
        raise BortError("--repeats, --copies, --num_outputs and --workers must be at least 1")
    for file in files:
        if is_compressed(file):
            raise BortError(f"{file}: the benchmark reads plain text, whose bytes it counts; decompress it first")
    cores = {count: choose_cores(count) for count in workers}
    files = list(files) * copies
    size = sum(file.stat().st_size for file in files)
    runs: dict[int, list[Measured]] = {count: [] for count in workers}
    with tempfile.TemporaryDirectory(prefix="bort_bench_") as folder:

        def run(count: int, output: Path, shards: int = num_outputs) -> Measured:
            arguments = {"files": [str(file) for file in files], "output": str(output), "num_workers": count, "num_outputs": shards}
            return measure(f"{__name__}:time_shards", arguments | asdict(vocabulary), cores[count])

        first, *others = [Path(folder) / str(count) for count in workers]
        for count, output in zip(workers, (first, *others), strict=True):
            run(count, output)
        names = shard_names(num_outputs)
        for count, other in zip(workers[1:], others, strict=True):
            if any((first / name).read_bytes() != (other / name).read_bytes() for name in names):
                raise BortError(f"with {count} workers the shards are others than with {workers[0]}; their bytes must not depend on them")
        whole = Path(folder) / "whole"
        run(workers[0], whole, 1)
        _require_same_tokens([first / name for name in names], whole / shard_names(1)[0])
        tokenizer = vocabulary.tokenizer()
        share = min(1.0, VERIFIED_WHOLE / size)
        verification = verify_shard(files, whole / shard_names(1)[0], _reference(tokenizer), share, show_progress)
        # Turns change their order every time, so that no number of workers always runs on a machine that another has warmed.
        turns = [order for number in range(repeats) for order in (workers if number % 2 == 0 else tuple(reversed(workers)))]
        for number, count in enumerate(tqdm(turns, desc="timing", unit="run", disable=None if show_progress else True)):
            output = Path(folder) / f"run_{number}"
            runs[count].append(run(count, output))
            shutil.rmtree(output)
    encoding = measure(f"{__name__}:time_encoding", {"files": [str(file) for file in files], **asdict(vocabulary)}, choose_cores(1))
    return {
        "benchmark": "data",
        "machine": describe_machine(PACKAGES),
        "text": {"files": [str(file) for file in dict.fromkeys(files)], "copies": copies, "bytes": size},
        "vocabulary": {"tokens": len(tokenizer.vocab), "fingerprint": tokenizer.vocab.fingerprint},
        "settings": asdict(ShardSettings(num_outputs=num_outputs)),
        "verification": asdict(verification) | {"share": share, "same_bytes_with_workers": list(workers)},
        "runs": [_summary(count, runs[count], size) for count in workers],
        "speed_up": {str(count): _speed_up(runs[workers[0]], runs[count]) for count in workers[1:]},
        "encoding_alone": {"mb_per_second": encoding.value["bytes"] / 1e6 / encoding.value["seconds"]},
        "reference_alone": {"mb_per_second": verification.bytes_encoded / 1e6 / verification.seconds},
    }


def _require_same_tokens(shards: Sequence[Path], whole: Path) -> None:
    """Shards are stretches of the text, one behind the other, so together they hold the tokens of one shard of all of it."""
    tokens = map_safetensors(whole)[0]["token_ids"]
    start = 0
    for shard in shards:
        own = map_safetensors(shard)[0]["token_ids"]
        if not np.array_equal(own, tokens[start : start + len(own)]):
            raise BortError(f"{shard.name} holds other tokens than its part of the text; nothing was timed")
        start += len(own)
    if start != len(tokens):
        raise BortError(f"{len(shards)} shards hold {start} tokens, the text {len(tokens)}; nothing was timed")


def time_shards(
    files: list[str], output: str, num_workers: int, num_outputs: int, vocab: str | None, dataset_name: str | None
) -> dict[str, float]:
    """Seconds from text files to shards on the disk; the vocabulary is read before."""
    tokenizer = Vocabulary(vocab, dataset_name).tokenizer()
    start = time.perf_counter()
    create_shards([Path(file) for file in files], tokenizer, Path(output), ShardSettings(num_outputs=num_outputs), num_workers)
    return {"seconds": time.perf_counter() - start}


def time_encoding(files: list[str], vocab: str | None, dataset_name: str | None) -> dict[str, float]:
    """Seconds that the fast tokenizer alone takes, and the bytes it encodes in them."""
    tokenizer = Vocabulary(vocab, dataset_name).tokenizer()
    sentences = itertools.chain.from_iterable(read_documents([Path(file) for file in files], ReadingReport()))
    seconds, size = 0.0, 0
    while block := list(itertools.islice(sentences, _SENTENCES_AT_ONCE)):
        start = time.perf_counter()
        tokenizer.encode_ragged(block)
        seconds += time.perf_counter() - start
        size += sum(len(sentence.encode()) for sentence in block)
    return {"seconds": seconds, "bytes": size}


def print_report(record: dict[str, Any]) -> None:
    """Print the table of a record of :func:`bench_data`."""
    text, verification = record["text"], record["verification"]
    rows = [
        [
            f"text to shards, {run['workers']} worker{'s' if run['workers'] > 1 else ''}",
            *(str(Spread.of(run[name]["samples"])) for name in ("seconds", "cpu_seconds", "process_seconds", "mb_per_second")),
        ]
        for run in record["runs"]
    ]
    rows.append(["tokenizer alone, 1 core", "", "", "", f"{record['encoding_alone']['mb_per_second']:.1f}"])
    rows.append(["reference alone, 1 core", "", "", "", f"{record['reference_alone']['mb_per_second']:.1f}"])
    copies = f", {text['copies']} copies" if text["copies"] > 1 else ""
    shards = f"{record['settings']['num_outputs']} shards, {record['vocabulary']['tokens']} tokens"
    title = f"{text['bytes'] / 1e6:.3g} MB of text{copies}, {shards}; median (least–most)"
    checked = f"{verification['sentences_encoded']} of {verification['sentences']} sentences"
    notes = [
        f"{count} workers: {speed_up['ratio_of_medians']:.2f} times as fast (ratio of medians; median of ratios "
        f"{speed_up['median_of_ratios']:.2f}, {speed_up['least']:.2f}–{speed_up['most']:.2f})"
        for count, speed_up in record["speed_up"].items()
    ]
    disturbance = max(run["other_cores"]["median"] for run in record["runs"])
    if disturbance > _QUIET:
        notes.append(f"NOT A QUIET MACHINE: other work kept {disturbance:.2f} cores busy meanwhile; speeds and ratios are too low")
    notes.append(f"verified before: the ids of {checked}, all sentence and document ends; the same bytes with any of these workers")
    notes.append(machine_line(record["machine"]))
    print_table(title, ["", "seconds", "CPU seconds", "whole process, seconds", "MB/s"], rows, notes)


def _reference(tokenizer: Tokenizer) -> Tokenizer:
    """The same vocabulary run by the library that defines what is right; SentencePiece has one library only."""
    return tokenizer if tokenizer.merges is None else Tokenizer(Reference(tokenizer.vocab, tokenizer.merges))


def _summary(count: int, runs: Sequence[Measured], size: int) -> dict[str, Any]:
    seconds = [run.value["seconds"] for run in runs]
    return {
        "workers": count,
        "seconds": asdict(Spread.of(seconds)),
        "cpu_seconds": asdict(Spread.of([run.cpu_seconds for run in runs])),
        "process_seconds": asdict(Spread.of([run.wall_seconds for run in runs])),
        "other_cores": asdict(Spread.of([run.other_cores for run in runs])),
        "mb_per_second": asdict(Spread.of([size / 1e6 / second for second in seconds])),
    }


def _speed_up(one: Sequence[Measured], more: Sequence[Measured]) -> dict[str, float]:
    """How many times faster ``more`` are than ``one``; runs of the same turn are pairs."""
    ratios = [first.value["seconds"] / second.value["seconds"] for first, second in zip(one, more, strict=True)]
    medians = [statistics.median(run.value["seconds"] for run in runs) for runs in (one, more)]
    return {
        "ratio_of_medians": medians[0] / medians[1],
        "median_of_ratios": statistics.median(ratios),
        "least": min(ratios),
        "most": max(ratios),
    }
