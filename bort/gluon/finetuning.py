"""The MXNet engine of fine-tuning and prediction: a classifier and one worker's share of the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mxnet as mx
import numpy as np
from mxnet import autograd
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.engine import ClassificationBatch
from bort.gluon import kernels
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.engine import GluonEngine, to_device
from bort.gluon.losses import CLASSIFICATION_SUMS, ClassificationLoss
from bort.gluon.model import BortClassifier, BortModel, initialize
from bort.gluon.parameters import load_parameters
from bort.settings import OptimizerSettings


class GluonFinetuningEngine(GluonEngine):
    """Trains a classifier on labelled rows; implements :class:`bort.engine.ClassifierEngine`.

    Args:
        classifier: already on ``ctx``; one output is a regression.
        optimizer: BERTAdam.
        workers: the group this process belongs to.
    """

    def __init__(
        self,
        classifier: BortClassifier,
        ctx: mx.Context,
        optimizer: OptimizerSettings,
        is_regression: bool,
        workers: Workers | None = None,
    ) -> None:
        super().__init__(classifier, ctx, optimizer, workers or Workers(), CLASSIFICATION_SUMS, kernels.are_available(ctx))
        self._predictor = GluonPredictor(classifier, ctx)
        self._loss = ClassificationLoss(classifier, is_regression)
        self._loss.hybridize(static_alloc=True)

    def accumulate(self, batch: ClassificationBatch) -> None:
        """Queue forward and backward of one micro-batch."""
        arrays = (batch.input_ids, batch.valid_length, batch.labels, batch.weights)
        with self.micro_batch(batch):
            with autograd.record():
                loss, sums = self._loss(*(to_device(self._ctx, array) for array in arrays))
            loss.backward()
        self.count_loss(sums)

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Wait; logits (B, num_classes) without dropout."""
        return self._predictor.predict(batch)


class GluonPredictor:
    """A classifier that labels rows; implements :class:`bort.engine.Predictor`."""

    def __init__(self, classifier: BortClassifier, ctx: mx.Context) -> None:
        self._classifier, self._ctx = classifier, ctx

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Wait; logits (B, num_classes) without dropout."""
        return self._classifier(to_device(self._ctx, batch.input_ids), to_device(self._ctx, batch.valid_length)).asnumpy()


def load_predictor(config: BortConfig, num_classes: int, parameters: Path) -> GluonPredictor:
    """A fine-tuned classifier on the CPU.

    Raises:
        BortError: if the file is missing, damaged or does not fit.
    """
    classifier = BortClassifier(BortModel(config, use_decoder=False, use_kernels=kernels.are_available(mx.cpu()), prefix=""), num_classes)
    load_parameters(classifier, parameters, mx.cpu())
    classifier.hybridize(static_alloc=True)
    return GluonPredictor(classifier, mx.cpu())


def build_engine(
    config: BortConfig,
    num_classes: int,
    is_regression: bool,
    dropout: float,
    optimizer: OptimizerSettings,
    seed: int,
    encoder_parameters: Path | None = None,
    use_gpu: bool = False,
) -> GluonFinetuningEngine:
    """Join the workers and put a new classifier on a pre-trained encoder, or on a random one.

    Args:
        dropout: of encoder and classifier in training.
        seed: of the weights that no file gives.
        encoder_parameters: ``.params`` or ``.safetensors`` of the encoder; a masked-language-model head in it is ignored.

    Raises:
        BortError: if the file is missing, damaged or does not fit.
    """
    workers = join_workers()
    ctx = workers.device(use_gpu)
    encoder = BortModel(replace(config, hidden_dropout_prob=dropout), use_decoder=False, use_kernels=kernels.are_available(ctx), prefix="")
    classifier = BortClassifier(encoder, num_classes, dropout)
    initialize(classifier, ctx, seed)
    if encoder_parameters is not None:
        load_parameters(encoder, encoder_parameters, ctx)
    classifier.hybridize(static_alloc=True)
    return GluonFinetuningEngine(classifier, ctx, optimizer, is_regression, workers)
