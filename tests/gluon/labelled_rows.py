"""Small batches of labelled rows, and an engine to learn them, for the tests of fine-tuning."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from bort.engine import ClassificationBatch
from bort.gluon.finetuning import build_engine
from bort.settings import OptimizerSettings

from .conftest import VOCAB_SIZE, config

CLASSES = 3
FIELDS = ("input_ids", "valid_length", "labels", "weights")


def labelled_rows(seed, batch_size=4, length=24, is_regression=False):
    """Rows of different lengths whose second token says the label; one in four has no weight."""
    random = np.random.default_rng([98, seed])
    input_ids = random.integers(5, VOCAB_SIZE, size=(batch_size, length)).astype(np.int32)
    valid_length = random.integers(2, length + 1, size=batch_size).astype(np.int32)
    labels = (input_ids[:, 1] % 50 / 10 if is_regression else input_ids[:, 1] % CLASSES).astype(np.float32)
    weights = (random.permutation(batch_size) >= batch_size // 4).astype(np.float32)
    return ClassificationBatch(input_ids, valid_length, labels, weights, seed)


def part(batch, rows):
    """The batch of these rows."""
    return ClassificationBatch(*(getattr(batch, name)[rows] for name in FIELDS), seed=batch.seed)


def without_weight(batch):
    """The same rows, none of which counts."""
    return replace(batch, weights=np.zeros_like(batch.weights))


def build_classifier(seed=0, is_regression=False, dropout=0.0, encoder_parameters=None, **options):
    """An engine with a fresh classifier; ``options`` as those of ``build_engine``."""
    num_classes, optimizer = 1 if is_regression else CLASSES, OptimizerSettings(max_gradient_norm=1.0)
    options = {"head_scale": 0.1} | options
    return build_engine(config(), num_classes, is_regression, dropout, optimizer, seed, encoder_parameters, **options)
