"""What a user can set, as dataclasses: each field is an option of the command line, and its line below is that option's help.

Settings that decide the outcome of a run (they are stored with its checkpoints, and must agree when it is resumed) stand apart from those
that do not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from bort.errors import BortError

DOCUMENT_FORMS = ("blank_line", "line", "jsonl")
KD_LOSSES = ("hinton", "published")
DTYPES = ("float32", "float16")
HEAD_INITS = ("gaussian", "uniform", "orthogonal", "xavier")


@dataclass(frozen=True)
class ShardSettings:
    """How text becomes shards.

    Attributes:
        documents: what a document is. blank_line: one sentence per line, and a blank line after the last; line: each line; jsonl: the text
            in each line, which is a JSON object.
        text_key: key of the text in a JSON object, with jsonl.
        max_seq_length: longest sequence in tokens, the two special ones included.
        short_seq_prob: share of sequences that are cut to a random shorter length.
        num_outputs: number of shards.
        seed: seed of what is drawn at random.
    """

    documents: str = "blank_line"
    text_key: str = "text"
    max_seq_length: int = 512
    short_seq_prob: float = 0.1
    num_outputs: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        _one_of(self, DOCUMENT_FORMS, "documents")
        _at_least(self, 4, "max_seq_length")
        _at_least(self, 1, "num_outputs")
        _at_least(self, 0, "seed")
        for name, most in (("max_seq_length", 2**20), ("num_outputs", 9999), ("seed", 2**63 - 1)):
            if getattr(self, name) > most:
                raise BortError(f"{name} must be at most {most}, got {getattr(self, name)}")
        _in_unit_interval(self, "short_seq_prob")


@dataclass(frozen=True)
class NpzSettings:
    """How the sequences of shards become .npz files with static masks.

    Attributes:
        dupe_factor: copies of each sequence, each with masks of its own.
        masked_lm_prob: share of tokens to predict.
        max_predictions_per_seq: highest number of tokens to predict in one sequence.
        whole_word_mask: mask all tokens of a word or none.
    """

    dupe_factor: int = 1
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 80
    whole_word_mask: bool = False

    def __post_init__(self) -> None:
        _at_least(self, 1, "dupe_factor", "max_predictions_per_seq")
        _positive(self, "masked_lm_prob")
        _in_unit_interval(self, "masked_lm_prob")


@dataclass(frozen=True)
class PretrainingSettings:
    """What decides the outcome of a pre-training run, besides the models and the data.

    Attributes:
        num_steps: number of updates.
        batch_size: sequences per worker and micro-batch; with use_avg_len their number of tokens, on average.
        use_avg_len: let batch_size count tokens, so that a batch holds more sequences where they are short; with its padding it has at most
            twice batch_size positions, rounded up to a whole sequence.
        num_buckets: highest number of length groups; a batch holds sequences of one group; 1 is a plain shuffle.
        accumulate: micro-batches whose gradients are summed before each update.
        lr: peak learning rate.
        warmup_ratio: share of all updates over which the learning rate rises linearly to its peak.
        masked_lm_prob: share of tokens to predict.
        max_predictions_per_seq: highest number of tokens to predict in one sequence.
        whole_word_mask: mask all tokens of a word or none.
        seed: seed of the new weights, the order of sequences, the masks and dropout.
        dtype: float32, or float16 on a GPU, with float32 master weights and a dynamic loss scale.
    """

    num_steps: int = 1000
    batch_size: int = 8
    use_avg_len: bool = False
    num_buckets: int = 20
    accumulate: int = 1
    lr: float = 1e-4
    warmup_ratio: float = 0.01
    masked_lm_prob: float = 0.15
    max_predictions_per_seq: int = 80
    whole_word_mask: bool = False
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _one_of(self, DTYPES, "dtype")
        _at_least(self, 1, "num_steps", "batch_size", "num_buckets", "accumulate", "max_predictions_per_seq")
        _at_least(self, 0, "seed")
        _positive(self, "lr", "masked_lm_prob")
        _in_unit_interval(self, "warmup_ratio", "masked_lm_prob")


@dataclass(frozen=True)
class DistillationSettings:
    """Loss of a student with a teacher; without a teacher it is the masked-language-model loss with weight 1.

    Attributes:
        mlm_weight: weight of the masked-language-model loss.
        teacher_ce_weight: weight of the distillation loss.
        distillation_temperature: divides the logits of student and teacher in the distillation loss.
        kd_loss: hinton (Hinton et al. 2015), or published, the loss of the published code, for comparison only.
    """

    mlm_weight: float = 0.1
    teacher_ce_weight: float = 0.5
    distillation_temperature: float = 2.0
    kd_loss: str = "hinton"

    def __post_init__(self) -> None:
        _positive(self, "distillation_temperature")
        _at_least(self, 0, "mlm_weight", "teacher_ce_weight")
        _one_of(self, KD_LOSSES, "kd_loss")


@dataclass(frozen=True)
class OptimizerSettings:
    """BERTAdam, which has no bias correction and subtracts lr · weight_decay · w.

    Attributes:
        weight_decay: decoupled weight decay; LayerNorms and biases have none.
        adam_epsilon: added to the square root of the second moment.
        max_gradient_norm: global norm to which a larger gradient is scaled down; 0 never scales.
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
        log_interval: updates between two entries of metrics.jsonl.
        eval_interval: updates between two evaluations on held-out text; best/ keeps the best model. 0 evaluates at the end only.
        ckpt_interval: updates between two checkpoints; 0 writes none.
        keep_last: newest checkpoints to keep, beside the best model; 0 keeps all.
        resume: auto: resume from the newest checkpoint, if there is one; never: delete what is there and train from the start; otherwise
            the path of a checkpoint folder.
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
        epochs: passes over the training rows, each followed by an evaluation.
        training_steps: number of updates, in place of epochs; 0 counts by epochs.
        batch_size: rows per worker and micro-batch.
        dev_batch_size: rows per worker and batch in evaluation and prediction.
        accumulate: micro-batches whose gradients are summed before each update.
        num_buckets: number of length groups; a batch holds rows of one group; 1 is a plain shuffle.
        lr: peak learning rate.
        warmup_ratio: share of all updates over which the learning rate rises linearly to its peak.
        use_scheduler: after the warm-up, lower the learning rate linearly to zero.
        early_stop: number of evaluations in a row without a better score after which training stops; 0 never stops.
        max_len: longest input in tokens, special ones included.
        keep_question: RACE only; where a text is too long, cut the article and never the question.
        dropout: dropout rate of encoder and classifier, in [0, 1).
        init: distribution of a new classifier's weights.
        prob: standard deviation of gaussian, largest value of uniform, factor of orthogonal; xavier does not use it.
        seed: seed of the new weights, the row order and dropout.
        dtype: float32, or float16 on a GPU, with float32 master weights and a dynamic loss scale.
    """

    epochs: int = 10
    training_steps: int = 0
    batch_size: int = 8
    dev_batch_size: int = 32
    accumulate: int = 1
    num_buckets: int = 10
    lr: float = 1e-4
    warmup_ratio: float = 0.4
    use_scheduler: bool = True
    early_stop: int = 0
    max_len: int = 128
    keep_question: bool = False
    dropout: float = 0.1
    init: str = "gaussian"
    prob: float = 0.02
    seed: int = 0
    dtype: str = "float32"

    def __post_init__(self) -> None:
        _at_least(self, 1, "epochs", "batch_size", "dev_batch_size", "accumulate", "num_buckets")
        _at_least(self, 5, "max_len")
        _at_least(self, 0, "seed", "training_steps", "early_stop")
        _positive(self, "lr", "prob")
        _in_unit_interval(self, "warmup_ratio")
        _one_of(self, DTYPES, "dtype")
        _one_of(self, HEAD_INITS, "init")
        if not 0.0 <= self.dropout < 1.0:
            raise BortError(f"dropout must lie in [0, 1), got {self.dropout}")


@dataclass(frozen=True)
class FinetuningRunSettings:
    """What does not decide the outcome of a fine-tuning run.

    Attributes:
        log_interval: updates between two entries of metrics.jsonl.
        ckpt_interval: updates between two checkpoints; 0 writes them at the end of each epoch only.
        keep_last: newest checkpoints to keep until the run is complete, beside the best model; 0 keeps all for good.
        resume: auto: resume from the newest checkpoint, if there is one; never: delete what is there and train from the start; otherwise
            the path of a checkpoint folder inside --output_dir.
    """

    log_interval: int = 20
    ckpt_interval: int = 0
    keep_last: int = 1
    resume: str = "auto"

    def __post_init__(self) -> None:
        _at_least(self, 1, "log_interval")
        _at_least(self, 0, "ckpt_interval", "keep_last")


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


def _one_of(settings: Any, allowed: tuple[str, ...], name: str) -> None:
    if getattr(settings, name) not in allowed:
        raise BortError(f"{name} must be one of {', '.join(allowed)}, got {getattr(settings, name)}")
