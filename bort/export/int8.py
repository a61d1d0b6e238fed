"""INT8 by measurement: every way to quantise a model is tried, what loses too much is dropped, and of the rest the fastest is kept.

Notable: nothing is assumed of a model or a machine. The scores are those of real models on a task's dev rows, next to that of the float32
model; the speed is that of this machine, on rows of the same kind. What was measured stays with the model, in ``export.json``.
"""

from __future__ import annotations

import importlib.util
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from bort.errors import BortError
from bort.export.exported_folder import MODEL_FILE, ExportedFolder, write_exported_folder
from bort.export.exported_model import ExportedModel
from bort.export.int8_candidates import Candidate
from bort.export.int8_check import Check, agreement, decide
from bort.export.int8_latency import median_latencies
from bort.export.int8_rows import Inputs
from bort.export.onnx_graph import build_graph, kind_of
from bort.export.runtimes import open_session
from bort.export.source import Source
from bort.machine import describe_machine, num_threads

_FLOAT32 = "float32"
# Times this close are the same, and the smaller model is better.
_SAME_SPEED = 1.05
# Losses are differences of floating point numbers, and one on the limit is not above it.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Trial:
    """How to choose.

    Attributes:
        candidates: what to make.
        calibration: rows to calibrate with; empty where no candidate needs them.
        timed: rows to measure the speed on, and without a check the agreement.
        check: rows that scores are taken on; None checks nothing.
        max_loss: points that a candidate may lose of the float32 model's score.
        reduced_range: whether weights have 7 of their 8 bits.
        origins: what the rows are, for the report: ``calibration`` and ``timed``.
    """

    candidates: Sequence[Candidate]
    calibration: Sequence[Inputs]
    timed: Sequence[Inputs]
    check: Check | None
    max_loss: float
    reduced_range: bool
    origins: Mapping[str, str]


@dataclass(frozen=True)
class Measured:
    """What was measured of a model.

    Attributes:
        name: what a reader calls it.
        precision: of what is not INT8 in it.
        points: the task's score, times 100; None without a check.
        loss: points below the float32 model's.
        agreement: share of decisions that are those of the float32 model, from 0 to 1; of scores their correlation.
        megabytes: 10^6 bytes of the model's files.
        milliseconds: median time of one row.
    """

    name: str
    precision: str
    points: float | None
    loss: float | None
    agreement: float
    megabytes: float
    milliseconds: float


def write_int8(folder: Path, source: Source, trial: Trial) -> dict[str, Any]:
    """Write the best INT8 model to an exported folder, whole or not at all.

    Returns:
        The report that stands in its description: ``check``, ``max_loss``, ``origins``, ``machine``, ``threads``, ``models`` (one
        :class:`Measured` each, the float32 model first), ``written`` (the name of one).

    Raises:
        BortError: if every candidate loses too much, a runtime is missing, or a library that quantises fails.
    """
    with tempfile.TemporaryDirectory(prefix="bort_export_") as scratch:
        places = _make(source, trial, Path(scratch))
        measured = _measure(source, trial, places)
        chosen = choose(measured[1:], trial.max_loss, trial.check.task.name if trial.check else "")
        report = {
            "check": None if trial.check is None else trial.check.task.name,
            "max_loss": trial.max_loss,
            "origins": dict(trial.origins),
            "machine": describe_machine(["onnxruntime", "openvino", "nncf"]),
            "threads": num_threads(),
            "models": [asdict(each) for each in measured],
            "written": chosen.name,
        }
        place = next(place for place in places if place.name == chosen.name)
        write_exported_folder(
            folder,
            lambda target: _copy(place.folder, target),
            source.config,
            kind_of(source.parameters),
            source.tokenizer,
            source.task,
            source.labels,
            "int8",
            trial.reduced_range,
            report,
        )
    return report


@dataclass(frozen=True)
class _Place:
    """Where a model's files are."""

    name: str
    folder: Path
    precision: str


def _make(source: Source, trial: Trial, scratch: Path) -> list[_Place]:
    """Every model in a folder of its own, the float32 model first."""
    import onnx

    places, graphs = [_Place(_FLOAT32, scratch / _FLOAT32, _FLOAT32)], {}
    for int8_embeddings in (False, True):
        folder = scratch / (f"{_FLOAT32}_int8_embeddings" if int8_embeddings else _FLOAT32)
        folder.mkdir()
        graphs[int8_embeddings] = folder / MODEL_FILE
        onnx.save(build_graph(source.config, source.parameters, int8_embeddings=int8_embeddings), graphs[int8_embeddings])
    for number, candidate in enumerate(tqdm(trial.candidates, desc="quantise", unit="model", leave=False, disable=None)):
        place = _Place(candidate.name, scratch / str(number), "int8")
        place.folder.mkdir()
        candidate.make(graphs, trial.calibration, trial.reduced_range, place.folder)
        places.append(place)
    return places


def _measure(source: Source, trial: Trial, places: Sequence[_Place]) -> list[Measured]:
    models = [_open(source, trial, place) for place in places]
    judged = []
    for model in tqdm(models, desc="check", unit="model", leave=False, disable=None):
        judged.append(trial.check.judge(model) if trial.check else (None, decide(model, trial.timed)))
    milliseconds = median_latencies([model.session for model in models], trial.timed)
    reference, expected = judged[0]
    return [
        Measured(
            place.name,
            model.session.precision,
            points,
            None if points is None or reference is None else reference - points,
            agreement(decided, expected),
            sum(file.stat().st_size for file in place.folder.iterdir()) / 1e6,
            time,
        )
        for place, model, (points, decided), time in zip(places, models, judged, milliseconds, strict=True)
    ]


def _open(source: Source, trial: Trial, place: _Place) -> ExportedModel:
    """A model as it will be opened from its exported folder."""
    folder = ExportedFolder(place.folder, source.config, kind_of(source.parameters), source.task, place.precision, trial.reduced_range, {})
    folder.check_cpu()
    runtime = None if importlib.util.find_spec("onnxruntime") or place.precision != _FLOAT32 else "openvino"
    return ExportedModel(folder, open_session(folder.model, runtime), source.tokenizer)


def choose(measured: Sequence[Measured], max_loss: float, task: str) -> Measured:
    """The fastest of the INT8 models that lose no more than ``max_loss`` points; the smallest of those that are as fast to 5 %.

    Args:
        measured: at least one.
        task: that scores are of, for the message.

    Raises:
        BortError: if all lose more; says what each has lost.
    """
    fits = [each for each in measured if each.loss is None or each.loss <= max_loss + _ROUNDING]
    if not fits:
        losses = ", ".join(f"{each.name} {each.loss:.2f}" for each in measured)
        remedy = "nothing is written; leave --int8 out, or allow more with --max_loss"
        raise BortError(f"every INT8 model loses more than {max_loss:g} points on {task}: {losses}; {remedy}")
    fastest = min(each.milliseconds for each in fits)
    return min((each for each in fits if each.milliseconds <= _SAME_SPEED * fastest), key=lambda each: (each.megabytes, each.milliseconds))


def _copy(source: Path, target: Path) -> None:
    for file in source.iterdir():
        shutil.copyfile(file, target / file.name)
