"""What a complete fine-tuning run says of itself: ``result.json``, written last, so that its presence means that nothing is missing."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from bort.errors import BortError
from bort.files import write_text

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
        majority: metrics of answering every dev row with the commonest class.
        settings: everything that decided the outcome.
        parameters: numbers that the classifier has learnt.
        train_rows: rows it has learnt from.
        seconds: of training and evaluation, those before an interruption included.
        files: leaderboard files, relative to the run's folder; none where there are no test rows.
        test_rows: SHA-256 of the rows that each of them answers, by its name; empty in a result of before this was kept.
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
    test_rows: Mapping[str, str] = field(default_factory=dict)

    def write(self, run: Path) -> None:
        """Write ``run/result.json``, whole or not at all."""
        write_text(run / RESULT_FILE, json.dumps(asdict(self), indent=2) + "\n")


def read_result(run: Path) -> FinetuningResult:
    """The result of a complete run.

    Raises:
        BortError: if ``run/result.json`` cannot be read or is not one.
    """
    path = run / RESULT_FILE
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BortError(f"{path}: cannot read: {error.strerror}; give the folder of a complete run of bort finetune") from None
    except (ValueError, RecursionError):
        values = None
    names = {field.name for field in fields(FinetuningResult)}
    if isinstance(values, dict):
        values = {"test_rows": {}} | values
    if not isinstance(values, dict) or names - values.keys() or not isinstance(values["settings"], dict):
        raise BortError(f"{path}: not the result of a fine-tuning run; move it away, or give another --output_dir")
    return FinetuningResult(**{name: values[name] for name in names} | {"files": tuple(values["files"])})
