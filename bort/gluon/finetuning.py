"""The MXNet engine of fine-tuning and prediction: a classifier and one worker's share of the work."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import HybridBlock
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.engine import ClassificationBatch
from bort.gluon import kernels
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.engine import GluonEngine, to_device
from bort.gluon.half_precision import HalfPrecision, check_dtype
from bort.gluon.losses import CLASSIFICATION_SUMS, ClassificationLoss
from bort.gluon.model import BortClassifier, BortModel, initialize, initialize_head
from bort.gluon.parameters import load_parameters, set_arrays
from bort.settings import OptimizerSettings


class GluonFinetuningEngine(GluonEngine):
    """Trains a classifier on labelled rows; implements :class:`bort.engine.ClassifierEngine`.

    Args:
        classifier: already on ``ctx``; one output is a regression.
        optimizer: BERTAdam.
        workers: the group this process belongs to.
        half_precision: a copy of the classifier that computes in its place in training; prediction stays float32.
    """

    def __init__(
        self,
        classifier: BortClassifier,
        ctx: mx.Context,
        optimizer: OptimizerSettings,
        is_regression: bool,
        workers: Workers | None = None,
        half_precision: HalfPrecision | None = None,
    ) -> None:
        use_kernels = kernels.are_available(ctx)
        super().__init__(classifier, ctx, optimizer, workers or Workers(), CLASSIFICATION_SUMS, use_kernels, half_precision)
        self._predictor = GluonPredictor(classifier, ctx)
        self._loss = ClassificationLoss(classifier if half_precision is None else half_precision.net, is_regression)
        self._loss.hybridize(static_alloc=True)

    def accumulate(self, batch: ClassificationBatch) -> None:
        """Queue forward and backward of one micro-batch."""
        arrays = (batch.input_ids, batch.valid_length, batch.labels, batch.weights)
        with self.micro_batch(batch):
            with autograd.record():
                loss, sums = self._loss(*(to_device(self._ctx, array) for array in arrays))
            loss.backward(None if self._half_precision is None else self._half_precision.scale)
        self.count_loss(sums)

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Logits (B, num_classes) without dropout; blocks until the device is done."""
        return self._predictor.predict(batch)

    def sum_over_workers(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """The elementwise sum of the workers' ``values``, of one shape on all of them, on every worker; blocks until it is there."""
        total = np.array(values, dtype=np.float32)
        # MXNet has no arrays without elements.
        if self.world_size == 1 or total.size == 0:
            return total
        summed = to_device(self._ctx, total.reshape(-1))
        self._workers.sum_in_place(summed, "values")
        return summed.asnumpy().reshape(total.shape)


class GluonPredictor:
    """A classifier that labels rows; implements :class:`bort.engine.Predictor`."""

    def __init__(self, classifier: BortClassifier, ctx: mx.Context) -> None:
        self._classifier, self._ctx = classifier, ctx

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Logits (B, num_classes) without dropout; blocks until the device is done."""
        return self._classifier(to_device(self._ctx, batch.input_ids), to_device(self._ctx, batch.valid_length)).asnumpy()


def load_predictor(config: BortConfig, num_classes: int, parameters: Path, use_gpu: bool = False) -> GluonPredictor:
    """A fine-tuned classifier on the CPU, or on the first GPU.

    Raises:
        BortError: if the file is missing, damaged or does not fit; if a GPU is asked for and MXNet finds none.
    """
    ctx = Workers().device(use_gpu)
    classifier = _make_classifier(config, num_classes, use_kernels=kernels.are_available(ctx))
    load_parameters(classifier, parameters, ctx)
    classifier.hybridize(static_alloc=True)
    return GluonPredictor(classifier, ctx)


def build_engine(
    config: BortConfig,
    num_classes: int,
    is_regression: bool,
    dropout: float,
    optimizer: OptimizerSettings,
    seed: int,
    encoder_parameters: Mapping[str, np.ndarray] | None,
    head_parameters: Mapping[str, np.ndarray] | None = None,
    use_gpu: bool = False,
    dtype: str = "float32",
    head_init: str = "gaussian",
    head_scale: float = 0.02,
) -> GluonFinetuningEngine:
    """Join the workers and put a classifier on an encoder.

    Args:
        dropout: of encoder and classifier in training.
        seed: of the weights that are not given.
        encoder_parameters: under published names; a masked-language-model head among them is ignored. None draws them.
        head_parameters: the classifier's own layers, ``classifier.1.weight`` and so on. None draws them.
        dtype: float32, or float16 on a GPU.
        head_init: how to draw the own layers: gaussian, uniform, orthogonal or xavier.
        head_scale: standard deviation, bound or factor of these; see :func:`bort.gluon.model.initialize_head`.

    Raises:
        BortError: if a parameter is missing, unknown or of another shape; if float16 is asked for on a CPU.
    """
    check_dtype(dtype, use_gpu)
    workers = join_workers()
    ctx = workers.device(use_gpu)
    config = replace(config, hidden_dropout_prob=dropout)
    classifier = _make_classifier(config, num_classes, use_kernels=kernels.are_available(ctx))
    if encoder_parameters is None:
        initialize(classifier.bort, ctx, seed)
    else:
        set_arrays(classifier.bort, encoder_parameters, ctx, "the encoder's parameters")
    if head_parameters is None:
        initialize_head(classifier, ctx, seed, head_init, head_scale)
    else:
        # In a block of their own the layers have the names that they have in the classifier.
        head = HybridBlock()
        head.classifier = classifier.classifier
        set_arrays(head, head_parameters, ctx, "the classifier's own parameters")
    classifier.hybridize(static_alloc=True)
    half_precision = HalfPrecision(classifier, _make_classifier(config, num_classes), ctx, dtype) if dtype == "float16" else None
    return GluonFinetuningEngine(classifier, ctx, optimizer, is_regression, workers, half_precision)


def _make_classifier(config: BortConfig, num_classes: int, use_kernels: bool = False) -> BortClassifier:
    encoder = BortModel(config, use_decoder=False, use_kernels=use_kernels, only_first=True, prefix="")
    return BortClassifier(encoder, num_classes, config.hidden_dropout_prob)
