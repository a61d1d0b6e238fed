"""Small models and batches for the engine's tests."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from bort import BortConfig, get_bort_model
from bort.engine import PretrainingBatch
from bort.gluon import kernels
from bort.gluon.pretraining import GluonPretrainingEngine
from bort.settings import DistillationSettings, OptimizerSettings

VOCAB_SIZE = 120
SHAPES = {"layer.weight": (4, 3), "layer.bias": (4,), "norm.gamma": (4,), "norm.beta": (4,)}


def make_parameters(seed=0):
    random = np.random.default_rng(seed)
    parameters = {}
    for name, shape in SHAPES.items():
        parameters[name] = mx.gluon.Parameter(name.replace(".", "_"), shape=shape, grad_req="write")
        parameters[name].initialize(mx.init.Zero())
        parameters[name].set_data(mx.nd.array(random.normal(size=shape)))
    return parameters


def config(dropout=0.0, **sizes):
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4} | sizes
    return BortConfig(max_position_embeddings=32, vocab_size=VOCAB_SIZE, hidden_dropout_prob=dropout, **sizes)


def random_batch(seed, batch_size=4, length=24, predictions=4):
    """A batch whose rows have different lengths and different numbers of predictions."""
    random = np.random.default_rng([99, seed])
    valid_length = random.integers(8, length + 1, size=batch_size).astype(np.int32)
    weights = (np.arange(predictions) < random.integers(1, predictions + 1, size=(batch_size, 1))).astype(np.float32)
    # Labels repeat the input, so that there is something to learn.
    input_ids = random.integers(5, VOCAB_SIZE, size=(batch_size, length)).astype(np.int32)
    positions = random.integers(0, 8, size=(batch_size, predictions)).astype(np.int32)
    labels = np.take_along_axis(input_ids, positions, axis=1)
    return PretrainingBatch(input_ids, valid_length, positions, labels, weights, seed)


def join(first, second):
    """One batch of the rows of two."""
    fields = ("input_ids", "valid_length", "masked_positions", "masked_labels", "masked_weights")
    return PretrainingBatch(*(np.concatenate([getattr(first, name), getattr(second, name)]) for name in fields), seed=first.seed)


def make_teacher():
    """A teacher with opinions: the scale of its head makes the distributions of random weights sharp."""
    teacher, _ = get_bort_model(config(intermediate_size=64), seed=1000)
    teacher.decoder[2].gamma.set_data(mx.nd.full((32,), 15.0))
    return teacher


@pytest.fixture(scope="session", autouse=True)
def kernels_are_built():
    """Set-up needs a compiler, so a source that does not compile must fail here and not pass as kernels that are absent."""
    assert kernels.are_available(mx.cpu())


@pytest.fixture(params=["kernels", "MXNet"])
def make_engine(request, monkeypatch):
    """Builds an engine with a fresh student, and optionally a teacher: with the CPU kernels, and with MXNet's operators as on a GPU."""
    if request.param == "MXNet":
        monkeypatch.setattr(kernels, "are_available", lambda ctx: False)

    def make(dropout=0.0, with_teacher=True, mlm_weight=0.1, seed=0, workers=None):
        student, _ = get_bort_model(config(dropout), seed=seed)
        teacher = make_teacher() if with_teacher else None
        optimizer = OptimizerSettings(max_gradient_norm=1.0)
        return GluonPretrainingEngine(student, mx.cpu(), optimizer, teacher, DistillationSettings(mlm_weight=mlm_weight), workers)

    return make
