"""Speed of fine-tuning and of prediction on a task's rows: rows and tokens per second, padding, tokenising, and memory.

Weights are random: only shapes matter. Lengths do too, so the rows are a task's own. Before anything is timed, the logits that batches
give, padded and sorted by length, are compared with those of each row alone and without padding, and plans are searched for rows that come
twice or never. Updates with length buckets and updates in a plain shuffle take turns, so a machine that slows down slows both.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bort.bench.prediction_memory import predict_in_processes
from bort.bench.report import Spread, machine_line, print_table
from bort.config import BortConfig
from bort.engine import Predictor
from bort.errors import BortError
from bort.machine import describe_machine, num_threads
from bort.model_directory import find_model
from bort.randomness import dropout_seed
from bort.settings import FinetuningSettings, OptimizerSettings
from bort.tasks import Example, Task
from bort.tasks.batches import EncodedRows, TrainingPlan, prediction_batches
from bort.tasks.cache import encode_segment
from bort.tasks.recipes import Recipe, recipe
from bort.tokenizer import Tokenizer

if TYPE_CHECKING:
    from bort.gluon.finetuning import GluonFinetuningEngine

_LOGIT_TOLERANCE = 1e-5
_PREDICTION_BATCH = 32
_SEGMENT = "train"


@dataclass(frozen=True)
class Turns:
    """What is timed of each task.

    Attributes:
        repeats: turns, each with every side.
        updates: of a turn of training.
        rows: of a turn of prediction and of the comparison of logits, spread over the training rows; all where there are fewer.
    """

    repeats: int = 5
    updates: int = 20
    rows: int = 256

    def __post_init__(self) -> None:
        if min(self.repeats, self.updates, self.rows) < 1:
            raise BortError("--repeats, --updates and --rows must be at least 1")


def bench_finetune(
    tasks: Sequence[Task], model: str, tokenizer: Tokenizer, turns: Turns, memory_rows: Sequence[int] = ()
) -> dict[str, Any]:
    """Verify, then measure the training rows of each task with its recipe.

    Args:
        model: an architecture, a ``config.json`` or a model folder, of which only the sizes are taken, but for the vocabulary's.
        memory_rows: lengths of files that ``bort predict`` labels, each in a process of its own whose memory is measured.

    Returns:
        What :func:`print_report` prints and what the JSON line holds; times in seconds, memory in 2**20 bytes.

    Raises:
        BortError: if a file is missing or damaged, a task has no training rows, verification fails, or Horovod workers were started.
    """
    config = replace(find_model(model).config, vocab_size=len(tokenizer.vocab))
    return {
        "benchmark": "finetune",
        "model": model,
        "threads": num_threads(),
        "machine": describe_machine(["mxnet", "gluonnlp", "gigatoken", "numpy"]),
        "turns": asdict(turns),
        "tasks": [_measure(task, config, tokenizer, turns, memory_rows) for task in tasks],
    }


def _measure(task: Task, config: BortConfig, tokenizer: Tokenizer, turns: Turns, memory_rows: Sequence[int]) -> dict[str, Any]:
    from bort.gluon.finetuning import build_engine

    own = recipe(task.name)
    own = replace(own, max_len=min(own.max_len, config.max_position_embeddings))
    examples = task.examples(_SEGMENT)
    cold, cached, rows = _time_tokenising(task, examples, tokenizer, own.max_len, turns.repeats)
    engine = build_engine(config, task.num_classes, task.is_regression, FinetuningSettings().dropout, OptimizerSettings(), 0, None)
    if engine.world_size > 1:
        raise BortError("bort bench finetune measures one process; start it without horovodrun")
    plans = {name: _plan(rows, own, buckets) for name, buckets in (("buckets", FinetuningSettings().num_buckets), ("shuffle", 1))}
    for plan in plans.values():
        _require_each_once(itertools.chain(*(plan.rows(step, 0, 0) for step in range(plan.steps_per_epoch))), len(rows), "training")
    chosen = _spread_rows(rows, turns.rows)
    _require_each_once(itertools.chain(*(numbers for numbers, _ in prediction_batches(rows, _PREDICTION_BATCH))), len(rows), "prediction")
    difference = largest_difference(engine, chosen)
    if not difference <= _LOGIT_TOLERANCE:
        raise BortError(
            f"verification failed: {task.name}: logits of batches differ from those of rows alone by {difference:.3g}, more than "
            f"{_LOGIT_TOLERANCE:g}; nothing was timed"
        )
    # What is run first plans memory and starts threads.
    for plan in plans.values():
        _time_training(engine, rows, plan, own.batch_size, range(2))
    _time_prediction(engine, chosen)
    samples: dict[str, list[tuple[float, float]]] = {name: [] for name in plans}
    predicting = []
    for turn in range(turns.repeats):
        steps = range(2 + turn * turns.updates, 2 + (turn + 1) * turns.updates)
        for name, plan in plans.items():
            samples[name].append(_time_training(engine, rows, plan, own.batch_size, steps))
        predicting.append(_time_prediction(engine, chosen))
    record = {
        "task": task.name,
        "rows": len(rows),
        "mean_tokens": float(rows.lengths.mean()),
        "settings": {"batch_size": own.batch_size, "max_len": own.max_len, "num_buckets": FinetuningSettings().num_buckets},
        "verification": {"rows_compared": len(chosen), "largest_difference": difference, "tolerance": _LOGIT_TOLERANCE},
        "tokenising": {"rows": len(rows), "cold_seconds": _spread(cold), "cached_seconds": _spread(cached)},
        "training": {name: _speeds(samples[name]) | {"padding": plan.padding()} for name, plan in plans.items()},
        "prediction": _speeds(predicting) | {"padding": _padding(rows), "batch_size": _PREDICTION_BATCH},
    }
    if memory_rows:
        record["memory"] = predict_in_processes(engine.parameters(), config, tokenizer, task, examples, own.max_len, memory_rows)
    return record


def _plan(rows: EncodedRows, own: Recipe, num_buckets: int) -> TrainingPlan:
    return TrainingPlan(rows.lengths, own.batch_size, 1, 1, num_buckets, 0)


def _time_tokenising(
    task: Task, examples: list[Example], tokenizer: Tokenizer, max_len: int, repeats: int
) -> tuple[list[float], list[float], EncodedRows]:
    """Seconds of each turn without and with a cache file, and the rows."""
    cold, cached = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="bort_bench_") as folder:
            seconds = []
            for _ in range(2):
                start = time.perf_counter()
                rows = encode_segment(task, _SEGMENT, examples, tokenizer, max_len, False, Path(folder))
                seconds.append(time.perf_counter() - start)
        cold.append(seconds[0])
        cached.append(seconds[1])
    return cold, cached, rows


def _spread_rows(rows: EncodedRows, count: int) -> EncodedRows:
    """At most ``count`` rows at equal distances in the order of length, so that lengths are those of all rows."""
    by_length = np.argsort(rows.lengths, kind="stable")
    places = np.linspace(0, len(rows) - 1, min(count, len(rows))).round().astype(np.int64)
    chosen = by_length[places]
    return EncodedRows([rows.input_ids[row] for row in chosen], rows.labels[chosen], rows.pad_id, rows.max_len)


def _require_each_once(found: Iterable[int], num_rows: int, what: str) -> None:
    if not np.array_equal(np.sort(np.fromiter(found, np.int64)), np.arange(num_rows)):
        raise BortError(f"verification failed: {what} does not see each of {num_rows} rows once; nothing was timed")


def largest_difference(predictor: Predictor, rows: EncodedRows) -> float:
    """Largest absolute difference between a row's logits in a batch by length and alone, in a batch of one without padding."""
    largest = 0.0
    for numbers, batch in prediction_batches(rows, _PREDICTION_BATCH):
        together = predictor.predict(batch)
        for number, logits in zip(numbers, together, strict=False):
            ids = rows.input_ids[number]
            # A limit of its own length keeps the width from being rounded up.
            alone = EncodedRows([ids], rows.labels[[number]], rows.pad_id, len(ids))
            # NaN must not be lost in a maximum.
            largest = float(np.maximum(largest, np.abs(predictor.predict(alone.batch([0], 1))[0] - logits).max()))
    return largest


def _time_training(
    engine: GluonFinetuningEngine, rows: EncodedRows, plan: TrainingPlan, batch_size: int, steps: range
) -> tuple[float, float]:
    """Rows and tokens per second of updates made as the loop makes them, waiting only at the end."""
    engine.drain()
    num_rows = tokens = 0
    start = time.perf_counter()
    for step in steps:
        chosen = plan.rows(step, 0, 0)
        engine.accumulate(rows.batch(chosen, batch_size, dropout_seed(0, step, 0, 0)))
        engine.update(1e-5)
        num_rows += len(chosen)
        tokens += int(rows.lengths[chosen].sum())
    engine.drain()
    seconds = time.perf_counter() - start
    return num_rows / seconds, tokens / seconds


def _time_prediction(predictor: Predictor, rows: EncodedRows) -> tuple[float, float]:
    """Rows and tokens per second."""
    start = time.perf_counter()
    for _, batch in prediction_batches(rows, _PREDICTION_BATCH):
        predictor.predict(batch)
    seconds = time.perf_counter() - start
    return len(rows) / seconds, float(rows.lengths.sum()) / seconds


def _padding(rows: EncodedRows) -> float:
    """Share of the positions of all prediction batches that hold no token of a row."""
    slots = sum(batch.input_ids.size for _, batch in prediction_batches(rows, _PREDICTION_BATCH))
    return 1.0 - float(rows.lengths.sum()) / slots


def print_report(record: dict[str, Any]) -> None:
    """Print a table of speeds, one of tokenising, and one of memory if that was measured."""
    speeds, tokenising, memory = [], [], []
    for task in record["tasks"]:
        buckets, shuffle, prediction = task["training"]["buckets"], task["training"]["shuffle"], task["prediction"]
        for name, side in (("training", buckets), ("training, plain shuffle", shuffle), ("prediction", prediction)):
            speeds.append(
                [f"{task['task']}, {name}", _text(side["rows_per_second"]), _text(side["tokens_per_second"]), f"{side['padding']:.1%}"]
            )
        seconds = task["tokenising"]
        tokenising.append(
            [task["task"], str(seconds["rows"]), _milliseconds(seconds["cold_seconds"]), _milliseconds(seconds["cached_seconds"])]
        )
        memory += [
            [f"{task['task']}, {row['rows']:,} rows", f"{row['peak_mb']:.0f}", f"{row['seconds']:.0f}"] for row in task.get("memory", ())
        ]
    title = f"Fine-tuning {record['model']}, fp32, {record['threads']} threads: median (least–most)"
    print_table(title, ["task", "rows/s", "tokens/s", "padding"], speeds)
    print_table("Tokenising the training rows, milliseconds", ["task", "rows", "first time", "from the cache"], tokenising)
    if memory:
        print_table("bort predict --input, one process per file", ["file", "peak MB", "seconds"], memory)
    worst = max(task["verification"]["largest_difference"] for task in record["tasks"])
    print(f"logits of padded batches and of rows alone differ by at most {worst:.2g}")
    print(machine_line(record["machine"]))


def _speeds(samples: Sequence[tuple[float, float]]) -> dict[str, Any]:
    return {name: _spread([sample[number] for sample in samples]) for number, name in enumerate(("rows_per_second", "tokens_per_second"))}


def _spread(samples: Sequence[float]) -> dict[str, Any]:
    return asdict(Spread.of([float(sample) for sample in samples]))


def _text(spread: dict[str, Any]) -> str:
    return str(Spread(**spread))


def _milliseconds(spread: dict[str, Any]) -> str:
    return _text(_spread([1000 * sample for sample in spread["samples"]]))
