"""The MXNet engine of pre-training: a student, optionally its teacher, and one worker's share of the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mxnet as mx

from bort.config import BortConfig, resolve_config
from bort.engine import PretrainingBatch
from bort.errors import BortError
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.engine import GluonEngine
from bort.gluon.losses import DISTILLATION_SUMS, MASKED_SUMS, MaskedLoss
from bort.gluon.model import BortModel, get_bort_model
from bort.model_directory import read_model_directory
from bort.settings import DistillationSettings, OptimizerSettings


class PretrainingEngine(GluonEngine):
    """Trains ``student`` on masked sequences; implements :class:`bort.engine.Engine`.

    Args:
        student: model with a head, already on ``ctx``.
        optimizer: BERTAdam.
        teacher: model with a head, already on ``ctx``; None trains by masked language modelling alone.
        loss: weights of the two losses; without a teacher the masked-language-model loss has weight 1.
        workers: the group this process belongs to.

    Raises:
        BortError: if teacher and student differ in the size of their vocabulary.
    """

    def __init__(
        self,
        student: BortModel,
        ctx: mx.Context,
        optimizer: OptimizerSettings,
        teacher: BortModel | None = None,
        loss: DistillationSettings | None = None,
        workers: Workers | None = None,
    ) -> None:
        if teacher is not None and teacher.config.vocab_size != student.config.vocab_size:
            raise BortError(
                f"the teacher has {teacher.config.vocab_size} tokens, the student {student.config.vocab_size}; they need one vocabulary"
            )
        super().__init__(student, ctx, optimizer, workers or Workers(), (*MASKED_SUMS, *DISTILLATION_SUMS))
        self._teacher = teacher
        self._evaluation_loss = MaskedLoss(student)
        self._training_loss = self._evaluation_loss
        if teacher is not None:
            teacher.collect_params().setattr("grad_req", "null")
            loss = loss or DistillationSettings()
            self._training_loss = MaskedLoss(student, loss.mlm_weight, loss.teacher_ce_weight, loss.distillation_temperature, loss.kd_loss)
        for block in (self._training_loss, self._evaluation_loss):
            block.hybridize(static_alloc=True)

    def _inputs(self, batch: PretrainingBatch) -> list[mx.nd.NDArray]:
        return self._to_device(batch.input_ids, batch.valid_length, batch.masked_positions, batch.masked_labels, batch.masked_weights)

    def accumulate(self, batch: PretrainingBatch) -> None:
        """Queue forward and backward of one micro-batch."""
        inputs = self._inputs(batch)
        if self._teacher is not None:
            _, teacher_logits = self._teacher(*inputs[:3])
            inputs.append(teacher_logits)
        self._accumulate(self._training_loss, inputs, batch.seed)

    def evaluate(self, batch: PretrainingBatch) -> None:
        """Queue a forward pass without dropout; adds the masked-language-model sums."""
        _, sums = self._evaluation_loss(*self._inputs(batch))
        self._add(sums)


def build_engine(
    *,
    student: str,
    student_parameters: str | None,
    teacher: str | None,
    teacher_parameters: str | None,
    vocab_size: int,
    longest: int,
    loss: DistillationSettings,
    optimizer: OptimizerSettings,
    seed: int,
    use_gpu: bool,
) -> tuple[PretrainingEngine, BortConfig]:
    """Join the workers, build both models and check that they fit each other, the vocabulary and the data.

    Args:
        student: architecture, ``config.json`` or model folder; its ``vocab_size`` is replaced by the vocabulary's if it is drawn at random.
        teacher: likewise, with parameters from its folder or ``teacher_parameters``; None for none.
        vocab_size: of the vocabulary the data was made with.
        longest: longest sequence of the data.

    Raises:
        BortError: if a file is missing or damaged, or something does not fit.
    """
    workers = join_workers()
    ctx = workers.device(use_gpu)
    config = resolve_config(student)
    if student_parameters is None:
        config = replace(config, vocab_size=vocab_size)
    _check_fit("student", student, config, vocab_size, longest)
    net, _ = get_bort_model(config, params=student_parameters, ctx=ctx, seed=seed)
    teacher_net = None
    if teacher is not None:
        if teacher_parameters is None:
            if not Path(teacher).is_dir():
                raise BortError(f"--teacher_model {teacher} needs --teacher_params FILE; or give a model folder, or --teacher_model none")
            teacher_parameters = str(read_model_directory(teacher).parameters)
        teacher_config = resolve_config(teacher)
        _check_fit("teacher", teacher, teacher_config, vocab_size, longest)
        teacher_net, _ = get_bort_model(teacher_config, params=teacher_parameters, ctx=ctx)
    return PretrainingEngine(net, ctx, optimizer, teacher_net, loss, workers), config


def _check_fit(role: str, name: str, config: BortConfig, vocab_size: int, longest: int) -> None:
    if config.vocab_size != vocab_size:
        raise BortError(f"the {role} {name} has {config.vocab_size} tokens, the vocabulary {vocab_size}; they must be the same")
    if config.max_position_embeddings < longest:
        raise BortError(
            f"the {role} {name} has {config.max_position_embeddings} positions, the shards hold sequences of up to {longest}; "
            "make shards with a smaller --max_seq_length"
        )
