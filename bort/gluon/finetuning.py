"""The MXNet engine of fine-tuning and prediction: a classifier and one worker's share of the work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import mxnet as mx
import numpy as np
from numpy.typing import NDArray

from bort.config import BortConfig
from bort.engine import ClassificationBatch
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.engine import GluonEngine
from bort.gluon.losses import CLASSIFICATION_SUMS, ClassificationLoss
from bort.gluon.model import BortClassifier, BortModel, initialize
from bort.gluon.parameters import load_parameters
from bort.settings import OptimizerSettings


class FinetuningEngine(GluonEngine):
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
        super().__init__(classifier, ctx, optimizer, workers or Workers(), CLASSIFICATION_SUMS)
        self._classifier = classifier
        self._loss = ClassificationLoss(classifier, is_regression)
        self._loss.hybridize(static_alloc=True)

    def _inputs(self, batch: ClassificationBatch) -> list[mx.nd.NDArray]:
        return self._to_device(batch.input_ids, batch.valid_length, batch.labels, batch.weights)

    def accumulate(self, batch: ClassificationBatch) -> None:
        """Queue forward and backward of one micro-batch."""
        self._accumulate(self._loss, self._inputs(batch), batch.seed)

    def evaluate(self, batch: ClassificationBatch) -> None:
        """Queue a forward pass without dropout that adds to the running sums."""
        _, sums = self._loss(*self._inputs(batch))
        self._add(sums)

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Wait; logits (B, num_classes) without dropout."""
        return self._classifier(*self._to_device(batch.input_ids, batch.valid_length)).asnumpy()


def build_engine(
    config: BortConfig,
    num_classes: int,
    is_regression: bool,
    dropout: float,
    optimizer: OptimizerSettings,
    seed: int,
    encoder_parameters: Path | None = None,
    classifier_parameters: Path | None = None,
    use_gpu: bool = False,
) -> FinetuningEngine:
    """Build a classifier from a pre-trained encoder, from a fine-tuned classifier, or at random.

    Args:
        dropout: of encoder and classifier in training.
        seed: of the weights that no file gives.

    Raises:
        BortError: if a file is missing, damaged or does not fit.
    """
    workers = join_workers()
    ctx = workers.device(use_gpu)
    encoder = BortModel(replace(config, hidden_dropout_prob=dropout), use_decoder=False, prefix="")
    classifier = BortClassifier(encoder, num_classes, dropout)
    if classifier_parameters is not None:
        load_parameters(classifier, classifier_parameters, ctx)
    else:
        initialize(classifier, ctx, seed)
        if encoder_parameters is not None:
            load_parameters(encoder, encoder_parameters, ctx)
    classifier.hybridize(static_alloc=True)
    return FinetuningEngine(classifier, ctx, optimizer, is_regression, workers)
