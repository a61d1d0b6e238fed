"""The loss scale and the computing copy, run in float32 on a CPU; float16, of which MXNet has no products there, by its types only."""

from __future__ import annotations

from dataclasses import replace

import mxnet as mx
import numpy as np
import pytest

from bort import BortClassifier, BortError, BortModel, get_bort_model
from bort.gluon import kernels, pretraining
from bort.gluon.finetuning import GluonFinetuningEngine
from bort.gluon.half_precision import HalfPrecision
from bort.gluon.losses import ClassificationLoss
from bort.gluon.model import initialize
from bort.gluon.pretraining import GluonPretrainingEngine
from bort.model_directory import ModelSource
from bort.settings import DistillationSettings, OptimizerSettings

from .conftest import config, make_teacher, random_batch
from .labelled_rows import CLASSES, build_classifier, labelled_rows


def make_pretraining(half_precision, seed):
    student, _ = get_bort_model(config(), seed=seed)
    copy = BortModel(config(), use_kernels=kernels.are_available(mx.cpu()), prefix="")
    scaler = half_precision(student, copy)
    return GluonPretrainingEngine(student, mx.cpu(), OptimizerSettings(), make_teacher(), DistillationSettings(), None, scaler)


def make_finetuning(half_precision, seed):
    classifier, copy = (make_classifier(kernels.are_available(mx.cpu())) for _ in range(2))
    initialize(classifier, mx.cpu(), seed)
    classifier.hybridize(static_alloc=True)
    return GluonFinetuningEngine(classifier, mx.cpu(), OptimizerSettings(), False, None, half_precision(classifier, copy))


def make_classifier(use_kernels=False):
    return BortClassifier(BortModel(config(), use_decoder=False, use_kernels=use_kernels, only_first=True, prefix=""), CLASSES, 0.0)


@pytest.fixture(params=["pre-training", "fine-tuning"])
def make_engine(request):
    """Builds an engine, with a loss scale or without; its batches are ``engine.batch(number)``."""
    make = make_pretraining if request.param == "pre-training" else make_finetuning
    batches = random_batch if request.param == "pre-training" else labelled_rows

    def make_engine(scale=None, window=2000, seed=0):
        def half_precision(master, copy):
            return None if scale is None else HalfPrecision(master, copy, mx.cpu(), "float32", scale, window)

        engine = make(half_precision, seed)
        engine.batch = batches
        return engine

    return make_engine


def train(engine, steps, first=0):
    for step in range(first, first + steps):
        engine.accumulate(engine.batch(step))
        engine.update(1e-3)
    return engine.drain()


def join(first, second):
    """One batch of the rows of two of a kind."""
    rows = {name: np.concatenate([value, getattr(second, name)]) for name, value in vars(first).items() if name != "seed"}
    return replace(first, **rows)


def test_a_scaled_loss_trains_as_an_unscaled_one(make_engine):
    plain, scaled = make_engine(), make_engine(scale=2.0**10)
    one, two = train(plain, 4), train(scaled, 4)
    assert (two.pop("loss_scale"), two.pop("skipped_updates")) == (2.0**10, 0)
    assert one == pytest.approx(two, rel=1e-5)
    first, second = plain.parameters(), scaled.parameters()
    assert max(np.abs(first[name] - second[name]).max() for name in first) < 1e-6


def test_micro_batches_add_up_in_the_masters(make_engine):
    together, apart = make_engine(scale=8.0), make_engine(scale=8.0)
    for step in range(3):
        first, second = together.batch(2 * step), together.batch(2 * step + 1)
        together.accumulate(join(first, second))
        apart.accumulate(first)
        apart.accumulate(second)
        for engine in (together, apart):
            engine.update(1e-3)
    one, two = together.parameters(), apart.parameters()
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-5


def test_overflow_halves_the_scale_and_skips_the_update(make_engine):
    engine = make_engine(scale=2.0**80)
    before = engine.state()
    sums = train(engine, 1)
    assert (sums["loss_scale"], sums["skipped_updates"], sums["gradient_norm"]) == (2.0**79, 1, 0)
    after = engine.state()
    assert all(np.array_equal(before[name], after[name]) for name in before if not name.startswith("scaler/"))
    # It falls until gradients fit, and then training goes on.
    sums = train(engine, 60, first=1)
    assert 0 < sums["skipped_updates"] < 60
    assert sums["loss_scale"] == 2.0 ** (79 - sums["skipped_updates"])
    assert sums["gradient_norm"] > 0
    assert not any(np.array_equal(engine.state()[name], before[name]) for name in before if name.endswith("word_embed.0.weight"))


def test_good_updates_double_the_scale(make_engine):
    engine = make_engine(scale=4.0, window=3)
    assert [train(engine, 1, step)["loss_scale"] for step in range(7)] == [4, 4, 8, 8, 8, 16, 16]


def test_scale_and_count_are_resumed(make_engine):
    straight, saved, loaded = make_engine(4.0, 3), make_engine(4.0, 3), make_engine(1.0, 3, seed=5)
    train(straight, 5)
    train(saved, 2)
    loaded.load_state(saved.state())
    train(loaded, 3, first=2)
    one, two = straight.state(), loaded.state()
    assert one.keys() == two.keys()
    assert all(np.array_equal(one[name], two[name]) for name in one)
    assert two["scaler/state"].tolist() == [8.0, 2.0]
    with pytest.raises(BortError, match="scaler/state"):
        loaded.load_state(two | {"scaler/state": np.zeros(2, np.float32)})


def test_a_float16_model_is_float16_from_end_to_end():
    """MXNet infers the types of a graph without running it, which it could do on a GPU only."""
    net = BortModel(config(), prefix="")
    initialize(net, mx.cpu())
    net.cast("float16")
    sequence = net.hybrid_forward(mx.sym, mx.sym.var("embedded"), mx.sym.var("valid_length"))
    decoded = net.decoder(mx.sym.var("rows"))
    for graph, inputs in ((sequence, {"embedded": "float16", "valid_length": "float16"}), (decoded, {"rows": "float16"})):
        arguments, outputs, _ = graph.infer_type(**inputs)
        assert {np.dtype(kind).name for kind in (*arguments, *outputs)} == {"float16"}


def test_a_float16_classifier_is_float16_up_to_its_loss():
    classifier = make_classifier()
    initialize(classifier, mx.cpu())
    classifier.cast("float16")
    sequence = classifier.bort.hybrid_forward(mx.sym, mx.sym.var("embedded"), mx.sym.var("valid_length"))
    arguments, outputs, _ = sequence.infer_type(embedded="float16", valid_length="float16")
    assert {np.dtype(kind).name for kind in (*arguments, *outputs)} == {"float16"}
    # The whole, from the ids on: what the engine hands over is float32, what it gets back too.
    inputs = {"input_ids": "float32", "valid_length": "float16", "labels": "float32", "weights": "float32"}
    loss = mx.sym.Group(ClassificationLoss(classifier, False).hybrid_forward(mx.sym, *map(mx.sym.var, inputs)))
    arguments, outputs, _ = loss.infer_type(**inputs)
    types = dict(zip(loss.list_arguments(), (np.dtype(kind).name for kind in arguments), strict=True))
    assert {types[name] for name in types.keys() - inputs.keys()} == {"float16"}
    assert {np.dtype(kind).name for kind in outputs} == {"float32"}


def test_float16_on_a_cpu_is_refused():
    source = ModelSource("student", config(), None)
    with pytest.raises(BortError, match="float16 needs --gpu"):
        pretraining.build_engine(source, None, DistillationSettings(), OptimizerSettings(), 0, 120, 32, dtype="float16")
    with pytest.raises(BortError, match="float16 needs --gpu"):
        build_classifier(dtype="float16")
    with pytest.raises(BortError, match="one of float32, float16, got bfloat16"):
        build_classifier(dtype="bfloat16")
