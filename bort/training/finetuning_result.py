"""What a complete fine-tuning run says of itself: ``result.json``, written last, so that its presence means that nothing is missing.

Notable: whoever reads a result can rely on its types and finds every metric of its task; a file that is not so is refused here.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bort.errors import BortError
from bort.files import write_text
from bort.tasks import get_task

RESULT_FILE = "result.json"

Metrics = Mapping[str, Mapping[str, float]]
"""Values of metrics by name, by segment."""


@dataclass(frozen=True)
class FinetuningResult:
    """Outcome of a run.

    Attributes:
        task: its name.
        score: the task's own score on the dev rows, in the epoch that was kept.
        best_epoch: that epoch, from 1.
        epochs: evaluations done, one at each epoch's end and one at the end of training.
        steps: updates done.
        dev: metrics of the epoch that was kept, by dev segment.
        majority: metrics of answering every dev row with the majority class.
        settings: everything that decided the outcome.
        parameters: numbers that the classifier has learnt.
        train_rows: rows it has learnt from.
        seconds: of training and evaluation, those before an interruption included.
        files: leaderboard files, relative to the run's folder; none where there are no test rows.
        test_rows: SHA-256 of the rows that each of them answers, by its name.
    """

    task: str
    score: float
    best_epoch: int
    epochs: int
    steps: int
    dev: Metrics
    majority: Metrics
    settings: Mapping[str, Any]
    parameters: int
    train_rows: int
    seconds: float
    files: tuple[str, ...]
    test_rows: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Write ``folder/result.json``, whole or not at all."""
        write_text(folder / RESULT_FILE, json.dumps(asdict(self), indent=2) + "\n")


def read_result(folder: Path) -> FinetuningResult:
    """The result of the complete run in ``folder``.

    Raises:
        BortError: if ``folder/result.json`` cannot be read, a field is missing or not what :class:`FinetuningResult` says, its task is
            unknown, or a metric of the task is missing or not finite.
    """
    path = folder / RESULT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BortError(f"{path}: cannot read: {error.strerror}; give the folder of a complete run of bort finetune") from None
    except (ValueError, RecursionError):
        values = None
    remedy = "move it away, or give another --output_dir"
    if not isinstance(values, dict):
        raise BortError(f"{path}: not the result of a fine-tuning run; {remedy}")
    for name, is_right in _CHECKS.items():
        if name not in values or not is_right(values[name]):
            raise BortError(f"{path}: not the result of a fine-tuning run: {name} is missing or damaged; {remedy}")
    _require_metrics(path, values)
    return FinetuningResult(**{name: values[name] for name in _CHECKS} | {"files": tuple(values["files"])})


def _require_metrics(path: Path, values: Mapping[str, Any]) -> None:
    """Refuse a result that lacks a metric of its task."""
    try:
        task = get_task(values["task"])
    except BortError as error:
        raise BortError(f"{path}: {error}") from None
    for what, kind in (("dev", ""), ("majority", "majority ")):
        for segment in task.segment_names("dev"):
            for metric in task.metrics:
                if metric not in values[what].get(segment, ()):
                    raise BortError(f"{path}: no {kind}{segment} {metric} of {task.name}; repeat the run in a new folder")


def _is_number(value: Any) -> bool:
    """Whether it is finite, also as a float."""
    return type(value) in (int, float) and abs(value) <= sys.float_info.max


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 0


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_mapping(value: Any, of_what: Callable[[Any], bool]) -> bool:
    return isinstance(value, dict) and all(map(of_what, value.values()))


def _are_metrics(value: Any) -> bool:
    return _is_mapping(value, lambda metrics: _is_mapping(metrics, _is_number))


_CHECKS: Mapping[str, Callable[[Any], bool]] = {
    "task": _is_text,
    "score": _is_number,
    "best_epoch": _is_count,
    "epochs": _is_count,
    "steps": _is_count,
    "dev": _are_metrics,
    "majority": _are_metrics,
    "settings": lambda value: isinstance(value, dict),
    "parameters": _is_count,
    "train_rows": _is_count,
    "seconds": _is_number,
    "files": lambda value: isinstance(value, list) and all(map(_is_text, value)),
    "test_rows": lambda value: _is_mapping(value, _is_text),
}
