"""What a fine-tuning run is made of and what does not change during it: data, settings, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.engine import ClassifierEngine
from bort.errors import BortError
from bort.settings import FinetuningRunSettings, FinetuningSettings
from bort.tasks import Task
from bort.tasks.batches import TrainingPlan
from bort.tasks.metrics import majority_score
from bort.tokenizer import Tokenizer
from bort.training.checkpoint import divergence
from bort.training.finetuning_card import finetuning_card
from bort.training.finetuning_result import FinetuningResult, Metrics
from bort.training.task_rows import TaskRows


@dataclass(frozen=True)
class Job:
    """What does not change during a run: what :func:`bort.training.finetune.finetune` was given and what follows from it.

    Attributes:
        run_settings: those that do not decide the outcome.
        total: updates until the end, unless it stops early.
        identity: everything that decides the outcome, ready for JSON.
        division: how an update is divided, which does not.
    """

    engine: ClassifierEngine
    config: BortConfig
    tokenizer: Tokenizer
    task: Task
    output: Path
    settings: FinetuningSettings
    run_settings: FinetuningRunSettings
    data: TaskRows
    plan: TrainingPlan
    total: int
    identity: Mapping[str, Any]
    division: Mapping[str, Any]
    facts: Mapping[str, Any]
    cache: Path | None

    @cached_property
    def majority(self) -> Metrics:
        """Metrics of answering every dev row with the majority class, by dev segment."""
        return {name: majority_score(self.task, examples) for name, examples in self.data.dev_examples.items()}

    @cached_property
    def test_rows(self) -> Mapping[str, str]:
        """Fingerprints of the test rows that are here, by leaderboard file."""
        return self.data.test_fingerprints()

    @cached_property
    def num_parameters(self) -> int:
        """Numbers that the classifier learns; counted once, since that copies them from the device."""
        return sum(array.size for array in self.engine.parameters().values())

    def result(self, evaluation: Mapping[str, Any], done: int, seconds: float, files: Iterable[str] = ()) -> FinetuningResult:
        """Of a run of ``done`` updates whose best epoch was judged by ``evaluation``."""
        return FinetuningResult(
            task=self.task.name,
            score=evaluation["score"],
            best_epoch=evaluation["epoch"],
            epochs=self.plan.epochs(done),
            steps=done,
            dev=evaluation["dev"],
            majority=self.majority,
            settings={**self.identity, **self.division},
            parameters=self.num_parameters,
            train_rows=len(self.data.train),
            seconds=seconds,
            files=tuple(files),
            test_rows=self.test_rows,
        )

    def card(self, so_far: FinetuningResult) -> str:
        """``README.md`` of the classifier."""
        known = {"workers": self.engine.world_size} | dict(self.facts)
        shown = {name: value for name, value in so_far.settings.items() if name != "model"}
        return finetuning_card(self.config, self.task, shown, asdict(so_far), known)

    def dev_logits(self, done: int) -> dict[str, NDArray[np.float32]]:
        """Of the classifier as it is after ``done`` updates, by segment."""
        logits = self.data.dev_logits(self.engine, self.settings.dev_batch_size, self.task.num_classes)
        require_finite(logits, self.output, done)
        return logits


def require_finite(logits: Mapping[str, NDArray[np.float32]], output: Path, step: int) -> None:
    """Stop a run whose classifier, after ``step`` updates, has outputs that are not finite.

    Raises:
        BortError: if one of ``logits``, given by segment, is not finite.
    """
    if not all(np.isfinite(values).all() for values in logits.values()):
        raise BortError(divergence(output, step, "an output of the model is not finite"))
