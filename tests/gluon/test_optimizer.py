"""BERTAdam with clipping against its formula in NumPy."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest

from bort import BortError
from bort.gluon.optimizer import ClippedBertAdam
from bort.settings import OptimizerSettings

from .conftest import SHAPES, make_parameters


def set_gradients(parameters, seed, scale=1.0):
    random = np.random.default_rng(seed)
    gradients = {name: (scale * random.normal(size=shape)).astype(np.float32) for name, shape in SHAPES.items()}
    for name, gradient in gradients.items():
        parameters[name].grad()[:] = gradient
    return gradients


@pytest.fixture(params=[False, True], ids=["MXNet", "kernels"])
def use_kernels(request):
    """Both ways to take a step."""
    return request.param


@pytest.mark.parametrize(("max_gradient_norm", "weight_decay"), [(0.0, 0.0), (1.0, 0.01), (0.1, 350.0)])
def test_three_steps_follow_the_formula(max_gradient_norm, weight_decay, use_kernels):
    parameters = make_parameters()
    settings = OptimizerSettings(weight_decay=weight_decay, adam_epsilon=1e-6, max_gradient_norm=max_gradient_norm)
    optimizer = ClippedBertAdam(parameters, settings, use_kernels)
    weights = {name: parameter.data().asnumpy().astype(np.float64) for name, parameter in parameters.items()}
    means, variances = ({name: np.zeros(shape) for name, shape in SHAPES.items()} for _ in range(2))
    for step, learning_rate in enumerate((1e-3, 5e-3, 2e-3)):
        gradients = set_gradients(parameters, seed=10 + step, scale=8.0)
        norm = optimizer.step(learning_rate, list(optimizer.gradients.values()), mx.nd.array([4.0]))
        divided = {name: gradient.astype(np.float64) / 4 for name, gradient in gradients.items()}
        expected_norm = np.sqrt(sum((gradient**2).sum() for gradient in divided.values()))
        assert norm.asscalar() == pytest.approx(expected_norm, rel=1e-5)
        scale = min(1.0, max_gradient_norm / expected_norm) if max_gradient_norm else 1.0
        for name, gradient in divided.items():
            means[name] = 0.9 * means[name] + 0.1 * scale * gradient
            variances[name] = 0.999 * variances[name] + 0.001 * (scale * gradient) ** 2
            decay = weight_decay if name.endswith("weight") else 0.0
            weights[name] -= learning_rate * (means[name] / (np.sqrt(variances[name]) + 1e-6) + decay * weights[name])
            np.testing.assert_allclose(parameters[name].data().asnumpy(), weights[name], rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("max_gradient_norm", [0.0, 1.0])
def test_a_gradient_that_is_not_finite_changes_nothing(value, max_gradient_norm, use_kernels):
    parameters = make_parameters()
    optimizer = ClippedBertAdam(parameters, OptimizerSettings(max_gradient_norm=max_gradient_norm), use_kernels)
    before = {name: parameter.data().asnumpy() for name, parameter in parameters.items()}
    set_gradients(parameters, seed=1)
    parameters["layer.bias"].grad()[0] = value
    optimizer.step(1e-3, list(optimizer.gradients.values()), mx.nd.array([1.0]))
    for name, parameter in parameters.items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), before[name])
    assert not any(moment.any() for moment in optimizer.state().values())


def test_state_goes_round_and_continues_exactly():
    first, second = make_parameters(), make_parameters()
    one, two = (ClippedBertAdam(parameters, OptimizerSettings()) for parameters in (first, second))
    set_gradients(first, seed=2)
    one.step(1e-3, list(one.gradients.values()), mx.nd.array([1.0]))
    for name in SHAPES:
        second[name].set_data(first[name].data())
    two.load_state(one.state())
    for parameters, optimizer in ((first, one), (second, two)):
        set_gradients(parameters, seed=3)
        optimizer.step(1e-3, list(optimizer.gradients.values()), mx.nd.array([1.0]))
    for name in SHAPES:
        np.testing.assert_array_equal(first[name].data().asnumpy(), second[name].data().asnumpy())


def test_an_incomplete_or_foreign_state_is_refused():
    optimizer = ClippedBertAdam(make_parameters(), OptimizerSettings())
    state = optimizer.state()
    with pytest.raises(BortError, match=r"mean/layer\.bias is missing"):
        optimizer.load_state({name: value for name, value in state.items() if name != "mean/layer.bias"})
    with pytest.raises(BortError, match=r"variance/norm\.beta has shape \(2,\)"):
        optimizer.load_state(state | {"variance/norm.beta": np.zeros(2, dtype=np.float32)})
