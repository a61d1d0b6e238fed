"""The MXNet engine of pre-training: a student, optionally its teacher, and one worker's share of the work."""

from __future__ import annotations

import mxnet as mx

from bort.engine import PretrainingBatch
from bort.errors import BortError
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.engine import GluonEngine, to_device
from bort.gluon.losses import DISTILLATION_SUMS, MASKED_SUMS, MaskedLoss
from bort.gluon.model import BortModel, get_bort_model
from bort.model_directory import ModelSource
from bort.settings import DistillationSettings, OptimizerSettings


class GluonPretrainingEngine(GluonEngine):
    """Trains ``student`` on masked sequences; implements :class:`bort.engine.PretrainingEngine`.

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
        arrays = (batch.input_ids, batch.valid_length, batch.masked_positions, batch.masked_labels, batch.masked_weights)
        return [to_device(self._ctx, array) for array in arrays]

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
    student: ModelSource,
    teacher: ModelSource | None,
    loss: DistillationSettings,
    optimizer: OptimizerSettings,
    seed: int,
    vocab_size: int,
    longest: int,
    use_gpu: bool = False,
) -> GluonPretrainingEngine:
    """Join the workers, build both models and check that they fit the vocabulary and the data.

    Args:
        teacher: None for none.
        seed: of a student that no file gives.
        vocab_size: of the vocabulary the data was made with.
        longest: longest sequence of the data.

    Raises:
        BortError: if a file is missing or damaged, or something does not fit.
    """
    for role, source in (("student", student), ("teacher", teacher)):
        if source is not None:
            _check_fit(role, source, vocab_size, longest)
    workers = join_workers()
    ctx = workers.device(use_gpu)
    net, _ = get_bort_model(student.config, params=student.parameters, ctx=ctx, seed=seed)
    teacher_net = None if teacher is None else get_bort_model(teacher.config, params=teacher.parameters, ctx=ctx)[0]
    return GluonPretrainingEngine(net, ctx, optimizer, teacher_net, loss, workers)


def _check_fit(role: str, source: ModelSource, vocab_size: int, longest: int) -> None:
    config = source.config
    if config.vocab_size != vocab_size:
        raise BortError(f"the {role} {source.name} has {config.vocab_size} tokens, the vocabulary {vocab_size}; they must be the same")
    if config.max_position_embeddings < longest:
        raise BortError(
            f"the {role} {source.name} has {config.max_position_embeddings} positions, the shards hold sequences of up to {longest}; "
            "make shards with a smaller --max_seq_length"
        )
