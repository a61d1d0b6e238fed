"""What a user can set, as dataclasses: each field is an option of the command line, and its line below is that option's help.

Settings that decide the outcome of a run (they are stored with its checkpoints, and must agree when it is resumed) stand apart from those
that do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bort.errors import BortError

KD_LOSSES = ("hinton", "published")


@dataclass(frozen=True)
class ShardSettings:
    """How text becomes shards.

    Attributes:
        max_seq_length: longest sequence, two special tokens included.
        short_seq_prob: share of sequences cut short.
        num_outputs: number of shards.
        seed: fixes which sequences are cut short.
    """

    max_seq_length: int = 512
    short_seq_prob: float = 0.1
    num_outputs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 4, "max_seq_length")
        _at_least(self, 1, "num_outputs")
        _at_least(self, 0, "seed")
        for name, most in (("max_seq_length", 2**20), ("num_outputs", 9999)):
            if getattr(self, name) > most:
                raise BortError(f"{name} must be at most {most}, got {getattr(self, name)}")
        _in_unit_interval(self, "short_seq_prob")


@dataclass(frozen=True)
class PretrainingSettings:
    """What decides the outcome of a pre-training run, besides the models and the data.

    Attributes:
        num_steps: updates.
        batch_size: sequences a worker takes at once.
        accumulate: micro-batches an update.
        lr: peak learning rate.
        warmup_ratio: share of the updates that warm up.
        masked_lm_prob: share of tokens predicted.
        max_predictions_per_seq: at most so many of them in a sequence.
        seed: of weights, order, masks and dropout.
    """

    num_steps: int = 1000
    batch_size: int = 8
    accumulate: int = 1
    lr: float = 1e-4
    warmup_ratio: float = 0.01
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 80
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "num_steps", "batch_size", "accumulate", "max_predictions_per_seq")
        _at_least(self, 0, "seed")
        _positive(self, "lr", "masked_lm_prob")
        _in_unit_interval(self, "warmup_ratio", "masked_lm_prob")


@dataclass(frozen=True)
class DistillationSettings:
    """Loss of a student beside a teacher; without one it is the masked-language-model loss with weight 1.

    Attributes:
        mlm_weight: weight of the masked-language-model loss.
        teacher_ce_weight: weight of the distillation loss.
        distillation_temperature: softens both distributions of the distillation loss.
        kd_loss: hinton, or published for comparison only.
    """

    mlm_weight: float = 0.1
    teacher_ce_weight: float = 0.5
    distillation_temperature: float = 2.0
    kd_loss: str = "hinton"

    def __post_init__(self) -> None:
        _positive(self, "distillation_temperature")
        _at_least(self, 0, "mlm_weight", "teacher_ce_weight")
        if self.kd_loss not in KD_LOSSES:
            raise BortError(f"kd_loss must be one of {', '.join(KD_LOSSES)}, got {self.kd_loss}")


@dataclass(frozen=True)
class OptimizerSettings:
    """BERTAdam, which has no bias correction and subtracts lr · weight_decay · w.

    Attributes:
        weight_decay: decoupled decay; none on LayerNorm and biases.
        adam_epsilon: added to the root of the second moment.
        max_gradient_norm: global norm above which a gradient is scaled down; 0 never scales.
    """

    weight_decay: float = 0.01
    adam_epsilon: float = 1e-6
    max_gradient_norm: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "adam_epsilon")
        _at_least(self, 0, "weight_decay", "max_gradient_norm")


@dataclass(frozen=True)
class RunSettings:
    """What does not decide the outcome of a pre-training run.

    Attributes:
        log_interval: updates between two entries of the journal.
        eval_interval: updates between two evaluations; 0 evaluates at the end only.
        ckpt_interval: updates between two checkpoints; 0 writes none.
        keep_last: checkpoints kept; 0 keeps all.
        resume: auto goes on from the newest checkpoint if there is one, never starts anew, anything else is a checkpoint's folder.
    """

    log_interval: int = 10
    eval_interval: int = 0
    ckpt_interval: int = 1000
    keep_last: int = 3
    resume: str = "auto"

    def __post_init__(self) -> None:
        _at_least(self, 1, "log_interval")
        _at_least(self, 0, "eval_interval", "ckpt_interval", "keep_last")


@dataclass(frozen=True)
class FinetuningSettings:
    """What decides the outcome of a fine-tuning run, besides the encoder and the data.

    Attributes:
        epochs: passes over the training rows; small tasks want 50 and more.
        batch_size: rows a worker takes at once.
        accumulate: micro-batches an update.
        lr: peak learning rate.
        warmup_ratio: share of the updates that warm up.
        max_len: longest input, special tokens included.
        dropout: of encoder and classifier, in [0, 1).
        seed: of the new weights, the order and dropout.
    """

    epochs: int = 10
    batch_size: int = 8
    accumulate: int = 1
    lr: float = 1e-4
    warmup_ratio: float = 0.4
    max_len: int = 128
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size", "accumulate")
        _at_least(self, 5, "max_len")
        _at_least(self, 0, "seed")
        _positive(self, "lr")
        _in_unit_interval(self, "warmup_ratio")
        if not 0.0 <= self.dropout < 1.0:
            raise BortError(f"dropout must lie in [0, 1), got {self.dropout}")


def _at_least(settings: Any, lowest: float, *names: str) -> None:
    for name in names:
        if not lowest <= getattr(settings, name) < math.inf:
            raise BortError(f"{name} must be at least {lowest}, got {getattr(settings, name)}")


def _positive(settings: Any, *names: str) -> None:
    for name in names:
        if not 0 < getattr(settings, name) < math.inf:
            raise BortError(f"{name} must be positive, got {getattr(settings, name)}")


def _in_unit_interval(settings: Any, *names: str) -> None:
    for name in names:
        if not 0.0 <= getattr(settings, name) <= 1.0:
            raise BortError(f"{name} must lie in [0, 1], got {getattr(settings, name)}")
