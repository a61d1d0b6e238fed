"""The pre-training engine: accumulation, determinism, state, and a recorded loss curve."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from bort import BortError, get_bort_model
from bort.gluon import kernels
from bort.gluon.pretraining import GluonPretrainingEngine
from bort.settings import OptimizerSettings

from .conftest import config, join, random_batch

CURVE = "golden_curve.json"


def run_steps(engine, steps, learning_rate=1e-3):
    curve = []
    for step in range(steps):
        engine.accumulate(random_batch(step))
        engine.update(learning_rate)
        sums = engine.drain()
        curve.append([sums[name] / sums["masked_tokens"] for name in ("mlm_loss", "kd_loss")])
    return np.array(curve)


def assert_same_state(first, second, tolerance=0.0):
    one, two = first.state(), second.state()
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=tolerance, err_msg=name)


def test_twenty_steps_follow_the_recorded_curve(make_engine, request):
    """The first 20 losses on a CPU, dropout off; another processor's rounding moves them by less than 1e-4."""
    path = request.path.parent / CURVE
    recorded = np.array(json.loads(path.read_text()))
    curve = run_steps(make_engine(), 20)
    np.testing.assert_allclose(curve, recorded, rtol=1e-4)
    assert curve[-1, 0] < curve[0, 0]


def test_accumulated_micro_batches_are_one_batch(make_engine):
    together, apart = make_engine(), make_engine()
    for step in range(3):
        first, second = random_batch(2 * step), random_batch(2 * step + 1)
        together.accumulate(join(first, second))
        apart.accumulate(first)
        apart.accumulate(second)
        for engine in (together, apart):
            engine.update(1e-3)
    assert_same_state(together, apart, 1e-5)
    one, two = together.drain(), apart.drain()
    assert one == pytest.approx(two, rel=1e-5)


def test_dropout_is_a_function_of_the_seed(make_engine):
    first, second = make_engine(dropout=0.2), make_engine(dropout=0.2)
    run_steps(first, 2)
    # What ran before in the process does not matter.
    run_steps(make_engine(dropout=0.3), 1)
    run_steps(second, 2)
    assert_same_state(first, second)
    without = make_engine(dropout=0.0)
    run_steps(without, 2)
    assert not np.array_equal(without.state()["word_embed.0.weight"], first.state()["word_embed.0.weight"])


def test_a_loaded_state_continues_bit_for_bit(make_engine):
    straight, saved, loaded = make_engine(dropout=0.1), make_engine(dropout=0.1), make_engine(dropout=0.1, seed=5)
    run_steps(straight, 4)
    run_steps(saved, 2)
    loaded.load_state(saved.state())
    for step in (2, 3):
        loaded.accumulate(random_batch(step))
        loaded.update(1e-3)
    assert_same_state(straight, loaded)


def test_the_teacher_does_not_change(make_engine):
    engine = make_engine()
    teacher = engine._teacher
    before = {name: parameter.data().asnumpy() for name, parameter in teacher.collect_params().items()}
    run_steps(engine, 3)
    for name, parameter in teacher.collect_params().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])
        assert parameter.grad_req == "null"


def test_distillation_pulls_the_student_to_the_teacher(make_engine):
    engine = make_engine(mlm_weight=0.0)
    curve = []
    for _ in range(100):
        engine.accumulate(random_batch(0))
        engine.update(3e-3)
        sums = engine.drain()
        curve.append((sums["kd_loss"] / sums["masked_tokens"], sums["agreement"] / sums["masked_tokens"]))
    assert curve[-1][0] < 0.1 * curve[0][0]
    assert curve[-1][1] > 0.5 > curve[0][1]


def test_evaluation_has_no_dropout_and_no_gradient(make_engine):
    engine = make_engine(dropout=0.5)
    for _ in range(2):
        engine.evaluate(random_batch(1))
    twice = engine.drain()
    before = engine.state()
    engine.evaluate(random_batch(1))
    once = engine.drain()
    assert twice["mlm_loss"] == pytest.approx(2 * once["mlm_loss"], rel=1e-6)
    assert all(np.array_equal(value, before[name]) for name, value in engine.state().items())


def test_sums_are_reset_by_draining(make_engine):
    engine = make_engine()
    run_steps(engine, 1)
    sums = engine.drain()
    assert sums.pop("parameter_norm") > 0
    assert set(sums.values()) == {0.0}


def test_positions_and_the_parameters_norm_are_measured(make_engine):
    engine = make_engine()
    run_steps(engine, 1)
    batch = random_batch(3)
    engine.accumulate(batch)
    engine.evaluate(batch)
    sums = engine.drain()
    assert (sums["tokens"], sums["slots"]) == (batch.valid_length.sum(), batch.input_ids.size)
    distinct = {name: value for name, value in engine.parameters().items() if name != "decoder.3.weight"}
    assert sums["parameter_norm"] == pytest.approx(
        np.sqrt(sum((value.astype(np.float64) ** 2).sum() for value in distinct.values())), rel=1e-5
    )


def test_a_teacher_with_another_vocabulary_is_refused():
    student, _ = get_bort_model(config())
    teacher, _ = get_bort_model(type(config())(**{**config().__dict__, "vocab_size": 99}))
    with pytest.raises(BortError, match="99 tokens, the student 120"):
        GluonPretrainingEngine(student, mx.cpu(), OptimizerSettings(), teacher)


@pytest.mark.parametrize("make_engine", ["kernels"], indirect=True)
def test_kernels_change_rounding_only(make_engine, monkeypatch):
    with_kernels = make_engine()
    monkeypatch.setattr(kernels, "are_available", lambda ctx: False)
    without = make_engine()
    one, two = run_steps(with_kernels, 5), run_steps(without, 5)
    np.testing.assert_allclose(one, two, rtol=1e-4)
    assert_same_state(with_kernels, without, 1e-4)


def test_a_worker_without_a_micro_batch_adds_nothing(make_engine):
    """At the end of an epoch there may be fewer sequences than workers; one alone has then a gradient of zero."""
    engine = make_engine()
    run_steps(engine, 2)
    before = engine.state()
    engine.update(0.0)
    sums = engine.drain()
    assert (sums["gradient_norm"], sums["updates"], sums["masked_tokens"]) == (0.0, 1.0, 0.0)
    after = engine.state()
    assert all(np.array_equal(before[name], after[name]) for name in before if "/" not in name)
    run_steps(engine, 1)
