"""Speed of a pre-training update: tokens per second, where the time goes, and Hugging Face under PyTorch beside it.

Weights and text are random: only shapes matter. A timed update is what ``bort pretrain`` does, its batch made in the background from
sequences that are masked then and there. Before anything is timed, the first batch's loss is compared with the peer's for the same weights,
or, without a peer, with that of a uniform guess, from which a new model is not far. The two sides take turns, so a machine that slows down
slows both; ratios are those of neighbours.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bort.bench.report import Spread, machine_line, print_table
from bort.config import BortConfig
from bort.corpus.batches import PretrainingBatches
from bort.corpus.masking import Masker
from bort.corpus.prefetch import prefetch
from bort.corpus.sequences import DynamicSequences
from bort.engine import PretrainingBatch
from bort.errors import BortError
from bort.hugging_face_names import to_hugging_face
from bort.machine import describe_machine, num_threads
from bort.model_directory import ModelSource, find_model
from bort.parameters import write_parameters
from bort.settings import DistillationSettings, OptimizerSettings, PretrainingSettings
from bort.vocabulary import Vocab

if TYPE_CHECKING:
    from bort.gluon.pretraining import GluonPretrainingEngine

_LOSS_TOLERANCE = 1e-3
_SEQUENCES = 4096


@dataclass(frozen=True)
class Shape:
    """So many sequences of so many tokens per batch; written ``8x128``."""

    batch_size: int
    length: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """Read ``8x128``.

        Raises:
            BortError: if it is something else.
        """
        size, _, length = text.partition("x")
        if not (size.isdecimal() and length.isdecimal() and int(size) >= 1 and int(length) >= 16):
            raise BortError(f"{text}: not a shape; give sequences x tokens, as 8x128, of at least 16 tokens")
        return cls(int(size), int(length))

    def __str__(self) -> str:
        return f"{self.batch_size}x{self.length}"


class RandomCorpus:
    """Sequences of random tokens, all of full length; what a corpus of shards is to batches."""

    fingerprint = "random"

    def __init__(self, vocab_size: int, length: int) -> None:
        self.max_seq_length, self.vocab_size = length, vocab_size
        self.lengths = np.full(_SEQUENCES, length - 2, dtype=np.int32)

    def __len__(self) -> int:
        return _SEQUENCES

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        return np.random.default_rng(index).integers(4, self.vocab_size - 1, self.max_seq_length - 2).astype(np.int32)

    def sentence_starts(self, index: int) -> NDArray[np.int64]:
        """None but the first token."""
        return np.zeros(1, dtype=np.int64)


def make_batches(shape: Shape, vocab_size: int, world_size: int) -> PretrainingBatches:
    """Batches of random text in ``shape``, masked as in pre-training: 15 %, at most 80 predictions per sequence."""
    *leading, last = Vocab.special_tokens
    vocab = Vocab((*leading, *(f"t{number}" for number in range(vocab_size - len(Vocab.special_tokens))), last))
    settings = PretrainingSettings(batch_size=shape.batch_size)
    masker = Masker(vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, settings.seed)
    sequences = DynamicSequences(RandomCorpus(vocab_size, shape.length), vocab, masker)  # type: ignore[arg-type]
    return PretrainingBatches(sequences, vocab.pad_id, settings, world_size)


def bench_pretrain(
    model: str, teacher: str | None, shapes: Sequence[Shape], repeats: int, against_torch: bool, updates: int = 4
) -> dict[str, Any]:
    """Measure every shape, the student alone and with a teacher.

    Args:
        model, teacher: architectures or ``config.json`` files; their weights are random.
        repeats: turns of each side.
        against_torch: measure the peer too, beside the student alone.
        updates: of a turn.

    Returns:
        The record that is printed as a JSON line.

    Raises:
        BortError: if an argument is unusable, the peer is not installed, or verification fails.
    """
    if repeats < 1 or updates < 1:
        raise BortError("repeats and updates must be at least 1")
    student = replace(find_model(model, None), parameters=None)
    packages = ["mxnet", "gluonnlp", "horovod", "numpy"]
    if against_torch:
        packages += _peer_packages()
    rows = []
    for shape in shapes:
        for name in (None, teacher) if teacher else (None,):
            source = None if name is None else _of_vocabulary(find_model(name, None), student.config.vocab_size)
            rows.append(_measure(student, source, shape, repeats, updates, against_torch and source is None))
    return {
        "benchmark": "pretrain",
        "student": model,
        "teacher": teacher,
        "updates": updates,
        "threads": num_threads(),
        "machine": describe_machine(packages),
        "rows": rows,
    }


def _measure(
    student: ModelSource, teacher: ModelSource | None, shape: Shape, repeats: int, updates: int, against_torch: bool
) -> dict[str, Any]:
    from bort.gluon.pretraining import build_engine
    from bort.gluon.stages import STAGES, time_stages

    config = student.config
    engine = build_engine(student, teacher, DistillationSettings(), OptimizerSettings(), 0, config.vocab_size, shape.length)
    batches = make_batches(shape, config.vocab_size, engine.world_size)
    first = batches.update(0, engine.rank)[0]
    loss = _initial_loss(engine, first)
    if against_torch and engine.world_size > 1:
        raise BortError("--vs torch compares one process with one; start it without horovodrun")
    turns: list[float] = []
    peer_turns: list[float] = []
    record: dict[str, Any] = {"shape": str(shape), "teacher": teacher.name if teacher else None, "workers": engine.world_size}
    record["initial_loss"] = loss
    _forget_peak_memory()
    with tempfile.TemporaryDirectory() as scratch, ExitStack() as stack:
        peer = stack.enter_context(closing(_Peer(engine, config, Path(scratch)))) if against_torch else None
        if peer is None:
            _check(loss, math.log(config.vocab_size), 0.05, "a uniform guess")
        else:
            record["peer"] = peer.about | peer.verify(first, loss)
        # The first updates plan memory and start threads.
        _train(engine, batches, range(2))
        if peer is not None:
            peer.train([first, first])
        waited = 0.0
        for turn in range(repeats):
            steps = range(2 + turn * updates, 2 + (turn + 1) * updates)
            seconds, share = _train(engine, batches, steps)
            turns.append(seconds)
            waited += share / repeats
            if peer is not None:
                peer_turns.append(float(np.mean(peer.train([batches.update(step, engine.rank)[0] for step in steps]))))
        peak_memory = _peak_memory_mb()
    samples = [time_stages(engine, batches.update(10_000 + number, engine.rank)[0], 1e-4) for number in range(3)]
    tokens = shape.batch_size * shape.length * engine.world_size
    record |= {
        "tokens_per_second": _spread([tokens / seconds for seconds in turns]),
        "stages_ms": {name: 1000 * float(np.median([sample[name] for sample in samples])) for name in STAGES},
        "data_wait_share": waited,
        "data_ms": 1000 * _batch_seconds(batches, engine.rank),
        "peak_memory_mb": peak_memory,
    }
    if peer_turns:
        record["peer"]["tokens_per_second"] = _spread([tokens / seconds for seconds in peer_turns])
        record["peer"]["ratio"] = _spread([theirs / ours for ours, theirs in zip(turns, peer_turns, strict=True)])
    return record


def _train(engine: GluonPretrainingEngine, batches: PretrainingBatches, steps: range) -> tuple[float, float]:
    """Run updates as the loop does, waiting only at the end: mean seconds of one, and the share spent waiting for data."""
    start = time.perf_counter()
    with closing(prefetch(lambda step: batches.update(step, engine.rank), steps)) as made:
        for micro_batches in made:
            for batch in micro_batches:
                engine.accumulate(batch)
            engine.update(1e-4)
        engine.drain()
    seconds = time.perf_counter() - start
    return seconds / len(steps), made.waited_seconds / seconds


def _initial_loss(engine: GluonPretrainingEngine, batch: PretrainingBatch) -> float:
    """Mean masked-language-model loss of ``batch`` without dropout."""
    engine.evaluate(batch)
    sums = engine.drain()
    return float(sums["mlm_loss"] / sums["masked_tokens"])


def _batch_seconds(batches: PretrainingBatches, rank: int, count: int = 20) -> float:
    """Median seconds that making an update's batches takes."""
    samples = []
    for step in range(count):
        start = time.perf_counter()
        batches.update(step, rank)
        samples.append(time.perf_counter() - start)
    return float(np.median(samples))


def write_batches(batches: Sequence[PretrainingBatch], path: Path) -> None:
    """Store batches for the peer: ``<number>/<field>``."""
    with path.open("wb") as stream:
        np.savez(
            stream,
            **{
                f"{number}/{name}": value for number, batch in enumerate(batches) for name, value in asdict(batch).items() if name != "seed"
            },
        )


class _Peer:
    """The peer's process, with the engine's weights."""

    def __init__(self, engine: GluonPretrainingEngine, config: BortConfig, scratch: Path) -> None:
        self._scratch = scratch
        write_parameters(scratch / "peer.safetensors", to_hugging_face(engine.parameters()))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bort.bench.torch_peer"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        parameters = str(scratch / "peer.safetensors")
        self.about = self._ask({"do": "load", "config": config.to_dict(), "parameters": parameters, "threads": num_threads()})

    def verify(self, batch: PretrainingBatch, loss: float) -> dict[str, float]:
        """The peer's loss and gradient norm for the same weights and batch.

        Raises:
            BortError: if its loss is another one.
        """
        answer = self._ask({"do": "loss", "batches": self._write([batch])})
        _check(loss, answer["loss"], _LOSS_TOLERANCE, "the peer with the same weights")
        return {"initial_loss": answer["loss"], "initial_gradient_norm": answer["gradient_norm"]}

    def train(self, batches: list[PretrainingBatch]) -> list[float]:
        """Seconds of each update."""
        seconds: list[float] = self._ask({"do": "train", "batches": self._write(batches)})["seconds"]
        return seconds

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()

    def _write(self, batches: list[PretrainingBatch]) -> str:
        path = self._scratch / "batches.npz"
        write_batches(batches, path)
        return str(path)

    def _ask(self, command: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise BortError(f"the PyTorch peer ended with exit status {self._process.wait()}; its message stands above")
        answer: dict[str, Any] = json.loads(line)
        return answer


def print_report(record: dict[str, Any]) -> None:
    """Print the two tables: speed, and where the time goes."""
    names = list(record["rows"][0]["stages_ms"])
    speed, stages = [], []
    for row in record["rows"]:
        name = f"{record['student']}{' + ' + row['teacher'] if row['teacher'] else ''}, {row['shape']}"
        peer = row.get("peer")
        speed.append(
            [
                name,
                _text(row["tokens_per_second"]),
                _text(peer["tokens_per_second"]) if peer else "",
                _text(peer["ratio"]) if peer else "",
                f"{row['peak_memory_mb']:.0f}",
            ]
        )
        stages.append(
            [name, *(f"{row['stages_ms'][stage]:.0f}" for stage in names), f"{row['data_ms']:.1f}", f"{row['data_wait_share']:.2%}"]
        )
    workers = record["rows"][0]["workers"]
    title = f"Pre-training updates, fp32, {workers} worker{'s' if workers > 1 else ''} of {record['threads']} threads: median (least–most)"
    print_table(title, ["model, sequences x tokens", "tokens/s", "PyTorch tokens/s", "ratio", "peak MB"], speed)
    columns = ["milliseconds per update", *names, "data", "waited for data"]
    print_table(
        "Where the time goes: each stage waited for; data are made in the background", columns, stages, [machine_line(record["machine"])]
    )


def _forget_peak_memory() -> None:
    """Let the kernel begin anew, so that each row has a peak of its own."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def _peak_memory_mb() -> float:
    """Peak resident memory of this process since it was last forgotten."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.split("VmHWM:")[1].split()[0]) / 1024


def _peer_packages() -> list[str]:
    import importlib.util

    missing = [name for name in ("torch", "transformers") if importlib.util.find_spec(name) is None]
    if missing:
        raise BortError(f"--vs torch needs {' and '.join(missing)}; install them: pip install torch==2.13.0 transformers==5.23.0")
    return ["torch", "transformers"]


def _of_vocabulary(source: ModelSource, vocab_size: int) -> ModelSource:
    return replace(source, config=replace(source.config, vocab_size=vocab_size), parameters=None)


def _check(found: float, expected: float, tolerance: float, what: str) -> None:
    if not abs(found - expected) <= tolerance * abs(expected):
        raise BortError(f"verification failed: the loss is {found:.5f}, that of {what} {expected:.5f}; nothing was timed")


def _spread(samples: Sequence[float]) -> dict[str, Any]:
    return asdict(Spread.of([float(sample) for sample in samples]))


def _text(spread: dict[str, Any]) -> str:
    return str(Spread(**spread))
