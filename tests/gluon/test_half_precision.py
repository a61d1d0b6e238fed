"""The loss scale and the computing copy, run in float32 on a CPU; float16, of which MXNet has no products there, by its types only."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from bort import BortError, BortModel, get_bort_model
from bort.gluon import kernels
from bort.gluon.half_precision import HalfPrecision
from bort.gluon.model import initialize
from bort.gluon.pretraining import GluonPretrainingEngine, build_engine
from bort.model_directory import ModelSource
from bort.settings import DistillationSettings, OptimizerSettings

from .conftest import config, join, make_teacher, random_batch


@pytest.fixture
def make_engine():
    def make(scale=None, window=2000, seed=0):
        student, _ = get_bort_model(config(), seed=seed)
        copy = None
        if scale is not None:
            copy = HalfPrecision(student, mx.cpu(), "float32", kernels.are_available(mx.cpu()), scale, window)
        return GluonPretrainingEngine(student, mx.cpu(), OptimizerSettings(), make_teacher(), DistillationSettings(), None, copy)

    return make


def train(engine, steps, first=0):
    for step in range(first, first + steps):
        engine.accumulate(random_batch(step))
        engine.update(1e-3)
    return engine.drain()


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
        first, second = random_batch(2 * step), random_batch(2 * step + 1)
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
    assert not np.array_equal(engine.state()["word_embed.0.weight"], before["word_embed.0.weight"])


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


def test_float16_on_a_cpu_is_refused():
    source = ModelSource("student", config(), None)
    with pytest.raises(BortError, match="float16 needs --gpu"):
        build_engine(source, None, DistillationSettings(), OptimizerSettings(), 0, 120, 32, dtype="float16")
