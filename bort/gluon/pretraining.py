"""The MXNet engine of pre-training: a student, optionally its teacher, and one worker's share of the work."""

from __future__ import annotations

from contextlib import nullcontext
from typing import NamedTuple

import mxnet as mx
from mxnet import autograd

from bort.engine import PretrainingBatch
from bort.errors import BortError
from bort.gluon import kernels
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.engine import GluonEngine, to_device
from bort.gluon.half_precision import HalfPrecision, check_dtype
from bort.gluon.losses import DISTILLATION_SUMS, MASKED_SUMS, MaskedLoss
from bort.gluon.model import BortModel, get_bort_model, initialize
from bort.gluon.parameters import set_arrays
from bort.model_directory import ModelSource
from bort.settings import DistillationSettings, OptimizerSettings


class Inputs(NamedTuple):
    """A batch's arrays on the device, float32; shapes as in :class:`bort.engine.PretrainingBatch`."""

    input_ids: mx.nd.NDArray
    valid_length: mx.nd.NDArray
    positions: mx.nd.NDArray
    labels: mx.nd.NDArray
    weights: mx.nd.NDArray


class GluonPretrainingEngine(GluonEngine):
    """Trains ``student`` on masked sequences; implements :class:`bort.engine.PretrainingEngine`.

    Args:
        student: model with a head, already on ``ctx``.
        optimizer: BERTAdam.
        teacher: model with a head, already on ``ctx``; None trains by masked language modelling alone.
        loss: weights of the two losses; without a teacher the masked-language-model loss has weight 1.
        workers: the group this process belongs to.
        half_precision: a copy of the student that computes in its place; the teacher is then cast to its type.

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
        half_precision: HalfPrecision | None = None,
    ) -> None:
        if teacher is not None and teacher.config.vocab_size != student.config.vocab_size:
            raise BortError(
                f"the teacher has {teacher.config.vocab_size} tokens, the student {student.config.vocab_size}; they need one vocabulary"
            )
        self._uses_kernels = kernels.are_available(ctx)
        sum_names = (*MASKED_SUMS, *DISTILLATION_SUMS)
        super().__init__(student, ctx, optimizer, workers or Workers(), sum_names, self._uses_kernels, half_precision)
        self._student, self._teacher = student, teacher
        self._computing = student if half_precision is None else half_precision.net
        self._evaluation_loss = MaskedLoss(use_kernels=self._uses_kernels)
        self._training_loss = self._evaluation_loss
        if teacher is not None:
            teacher.collect_params().setattr("grad_req", "null")
            if half_precision is not None:
                teacher.cast(half_precision.dtype)
            loss = loss or DistillationSettings()
            self._training_loss = MaskedLoss(
                loss.mlm_weight, loss.teacher_ce_weight, loss.distillation_temperature, loss.kd_loss, self._uses_kernels
            )

    def accumulate(self, batch: PretrainingBatch) -> None:
        """Queue forward and backward of one micro-batch."""
        inputs = self.inputs(batch)
        teacher_logits = self.teacher_logits(inputs)
        with self.micro_batch(batch):
            embedded, logits = self.forward(inputs)
            sums, gradient = self.training_loss(logits, inputs, teacher_logits)
            self.backward(inputs, embedded, logits, gradient)
        self.count_loss(sums)

    def teacher_logits(self, inputs: Inputs) -> mx.nd.NDArray | None:
        """Queue the teacher's forward pass: logits (B, M, V), None without a teacher."""
        return None if self._teacher is None else self._teacher(inputs.input_ids, inputs.valid_length, inputs.positions)[1]

    def forward(self, inputs: Inputs) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """Queue the student's forward pass with dropout: the words' embeddings (B, T, hidden_size) and logits (B, M, V)."""
        # The tied matrix has two gradients, and the embedding's touches few rows. With kernels it is added to the head's afterwards, where
        # MXNet would make a second matrix of zeros and add all of it; so the embeddings are a leaf.
        with nullcontext() if self._uses_kernels else autograd.record():
            embedded = self._computing.word_embed(inputs.input_ids)
        if self._uses_kernels:
            embedded.attach_grad()
        with autograd.record():
            _, logits = self._computing.encode(embedded, inputs.valid_length, inputs.positions)
        return embedded, logits

    def training_loss(
        self, logits: mx.nd.NDArray, inputs: Inputs, teacher_logits: mx.nd.NDArray | None
    ) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """Queue the loss, in float32: its sums, and its gradient with respect to ``logits``, times the loss scale if there is one."""
        if self._half_precision is None:
            return self._training_loss(logits, inputs.labels, inputs.weights, teacher_logits)
        teacher_logits = None if teacher_logits is None else teacher_logits.astype("float32")
        sums, gradient = self._training_loss(logits.astype("float32"), inputs.labels, inputs.weights, teacher_logits)
        return sums, mx.nd.broadcast_mul(gradient, self._half_precision.scale.reshape((1, 1, 1))).astype(logits.dtype)

    def backward(self, inputs: Inputs, embedded: mx.nd.NDArray, logits: mx.nd.NDArray, gradient: mx.nd.NDArray) -> None:
        """Queue the backward pass from the gradient of ``logits``."""
        logits.backward(gradient)
        if self._uses_kernels:
            mx.nd.bort_add_rows(self._computing.word_embed[0].weight.grad(), inputs.input_ids, embedded.grad)

    def evaluate(self, batch: PretrainingBatch) -> None:
        """Queue a forward pass without dropout; adds the masked-language-model sums."""
        inputs = self.inputs(batch)
        _, logits = self._student(inputs.input_ids, inputs.valid_length, inputs.positions)
        self._add(self._evaluation_loss(logits, inputs.labels, inputs.weights)[0])

    def inputs(self, batch: PretrainingBatch) -> Inputs:
        """The batch's arrays on the device."""
        arrays = (batch.input_ids, batch.valid_length, batch.masked_positions, batch.masked_labels, batch.masked_weights)
        return Inputs(*(to_device(self._ctx, array) for array in arrays))


def build_engine(
    student: ModelSource,
    teacher: ModelSource | None,
    loss: DistillationSettings,
    optimizer: OptimizerSettings,
    seed: int,
    vocab_size: int,
    longest: int,
    use_gpu: bool = False,
    dtype: str = "float32",
) -> GluonPretrainingEngine:
    """Join the workers, build both models and check that they fit the vocabulary and the data.

    Args:
        teacher: None for none.
        seed: of a student that no file gives.
        vocab_size: of the vocabulary the data was made with.
        longest: longest sequence of the data.
        dtype: float32, or float16 on a GPU.

    Raises:
        BortError: if a file is missing or damaged, or something does not fit; if float16 is asked for on a CPU.
    """
    check_dtype(dtype, use_gpu)
    for role, source in (("student", student), ("teacher", teacher)):
        if source is not None:
            _check_fit(role, source, vocab_size, longest)
    workers = join_workers()
    ctx = workers.device(use_gpu)
    net, _ = get_bort_model(student.config, params=student.parameters, ctx=ctx, seed=seed)
    teacher_net = None if teacher is None else _build_teacher(teacher, ctx)
    half_precision = HalfPrecision(net, BortModel(net.config, prefix=""), ctx, dtype) if dtype == "float16" else None
    return GluonPretrainingEngine(net, ctx, optimizer, teacher_net, loss, workers, half_precision)


def _build_teacher(source: ModelSource, ctx: mx.Context) -> BortModel:
    net = BortModel(source.config, use_kernels=kernels.are_available(ctx), prefix="")
    # Before there are arrays: those for gradients would take as much memory again as the parameters.
    net.collect_params().setattr("grad_req", "null")
    if source.parameters is None:
        initialize(net, ctx)
    else:
        set_arrays(net, source.read_parameters(), ctx, str(source.parameters))
    net.hybridize(static_alloc=True)
    return net


def _check_fit(role: str, source: ModelSource, vocab_size: int, longest: int) -> None:
    config = source.config
    if config.vocab_size != vocab_size:
        raise BortError(f"the {role} {source.name} has {config.vocab_size} tokens, the vocabulary {vocab_size}; they must be the same")
    if config.max_position_embeddings < longest:
        raise BortError(
            f"the {role} {source.name} has {config.max_position_embeddings} positions, the shards hold sequences of up to {longest}; "
            "make shards with a smaller --max_seq_length"
        )
