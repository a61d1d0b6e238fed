"""The CPU kernels against closed forms in double precision, and against the operators of MXNet and GluonNLP that they stand in for."""

from __future__ import annotations

import os
import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

from bort import get_bort_model
from bort.gluon import kernels
from bort.gluon.optimizer import ClippedBertAdam
from bort.gluon.parameters import named_parameters
from bort.settings import OptimizerSettings

from .conftest import config, make_parameters


def normal(seed, *shape, scale=1.0, shift=0.0):
    return (np.random.default_rng([7, seed]).normal(size=shape) * scale + shift).astype(np.float32)


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 7, 48), (2, 130, 1024)])
def test_layer_norm_and_its_gradients_have_their_closed_form(shape):
    channels = shape[-1]
    x, dy = normal(0, *shape, scale=3, shift=1), normal(1, *shape)
    gamma, beta = normal(2, channels), normal(3, channels)
    arrays = [mx.nd.array(array) for array in (x, gamma, beta)]
    for array in arrays:
        array.attach_grad()
    with mx.autograd.record():
        y = mx.nd.bort_layer_norm(*arrays, eps=1e-5)
    y.backward(mx.nd.array(dy))

    x, dy = x.astype(np.float64), dy.astype(np.float64)
    deviation = np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    normalised = (x - x.mean(-1, keepdims=True)) / deviation
    g = dy * gamma
    dx = (g - g.mean(-1, keepdims=True) - normalised * (g * normalised).mean(-1, keepdims=True)) / deviation
    np.testing.assert_allclose(y.asnumpy(), normalised * gamma + beta, atol=1e-5)
    np.testing.assert_allclose(arrays[0].grad.asnumpy(), dx, atol=1e-5)
    np.testing.assert_allclose(arrays[1].grad.asnumpy(), (dy * normalised).sum((0, 1)), atol=1e-4)
    np.testing.assert_allclose(arrays[2].grad.asnumpy(), dy.sum((0, 1)), atol=1e-4)


def test_a_sum_of_squares_is_right_for_millions_of_numbers():
    """MXNet's own multi_sum_sq loses a tenth of such a sum and more."""
    arrays = [normal(4, 3000, 1111, scale=0.02), normal(5, 17), normal(6, 1)]
    found = mx.nd.bort_sum_of_squares(*map(mx.nd.array, arrays), num_arrays=3).asscalar()
    assert found == pytest.approx(sum((array.astype(np.float64) ** 2).sum() for array in arrays), rel=1e-6)


def test_rows_are_added_where_their_ids_say():
    matrix, rows = normal(7, 50, 130), normal(8, 200, 130)
    ids = np.random.default_rng(9).integers(50, size=200)
    expected = matrix.astype(np.float64)
    np.add.at(expected, ids, rows)
    array = mx.nd.array(matrix)
    mx.nd.bort_add_rows(array, mx.nd.array(ids), mx.nd.array(rows)).wait_to_read()
    np.testing.assert_allclose(array.asnumpy(), expected, atol=1e-5)


def attend(q, k, v, lengths, heads, gate=1.0, seed=(5, 6), dropout=0.0):
    """The kernel: contexts of (T, B, H·D) arrays."""
    rest = [mx.nd.array(array) for array in (lengths, [gate], seed)]
    return mx.nd.bort_attention(
        *(a if isinstance(a, mx.nd.NDArray) else mx.nd.array(a) for a in (q, k, v)), *rest, heads=heads, dropout=dropout
    )


@pytest.mark.parametrize(("length", "batch", "heads", "width"), [(1, 1, 1, 4), (7, 3, 2, 8), (33, 2, 4, 16)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_attention_and_its_gradients_have_their_closed_form(length, batch, heads, width, dropout):
    shape = (length, batch, heads * width)
    q, k, v, dy = (normal(20 + i, *shape, scale=2) for i in range(4))
    lengths = np.random.default_rng(25).integers(1, length + 1, size=batch)
    arrays = [mx.nd.array(array) for array in (q, k, v)]
    for array in arrays:
        array.attach_grad()
    with mx.autograd.record():
        context = attend(*arrays, lengths, heads, gate=0.0, dropout=dropout)
    context.backward(mx.nd.array(dy))

    split = lambda array: array.astype(np.float64).reshape(length, batch, heads, -1).transpose(1, 2, 0, 3)  # noqa: E731
    join = lambda array: array.transpose(2, 0, 1, 3).reshape(length, batch, -1)  # noqa: E731
    q, k, v, dy = map(split, (q, k, v, dy))
    scores = q @ k.swapaxes(-1, -2) / np.sqrt(width)
    scores[np.broadcast_to(np.arange(length) >= lengths[:, None, None, None], scores.shape)] = -np.inf
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    factors = dropout_factors(length, batch, heads, dropout) if dropout else np.ones_like(weights)
    slope = (dy @ v.swapaxes(-1, -2)) * factors
    slope = weights * (slope - (slope * weights).sum(-1, keepdims=True)) / np.sqrt(width)
    np.testing.assert_allclose(context.asnumpy(), join(weights * factors @ v), atol=2e-5)
    expected = (slope @ k, slope.swapaxes(-1, -2) @ q, (weights * factors).swapaxes(-1, -2) @ dy)
    for array, gradient in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(array.grad.asnumpy(), join(gradient), atol=5e-5)


def dropout_factors(length, batch, heads, dropout):
    """What the kernel's dropout multiplies each weight by, (B, H, T, T): read off where all weights are equal and a value is a key's."""
    zeros = np.zeros((length, batch, heads * length), np.float32)
    values = np.tile(np.eye(length, dtype=np.float32)[:, None], (1, batch, heads))
    contexts = attend(zeros, zeros, values, [length] * batch, heads, gate=0.0, dropout=dropout).asnumpy()
    return contexts.reshape(length, batch, heads, length).transpose(1, 2, 0, 3).astype(np.float64) * length


def test_dropout_of_attention_drops_its_share_by_the_seed_and_not_in_prediction():
    factors = dropout_factors(64, 4, 4, 0.1)
    values, counts = np.unique(factors.round(4), return_counts=True)
    assert values.tolist() == [0.0, 1.1111]
    # Four standard deviations of a share of 65536 are under 0.005, along every axis of many.
    assert abs(counts[0] / factors.size - 0.1) < 0.005
    assert np.abs((factors == 0).mean((0, 1, 2)) - 0.1).max() < 0.04
    assert np.abs((factors == 0).mean((2, 3)) - 0.1).max() < 0.02
    q, k, v = (normal(30 + i, 9, 2, 8) for i in range(3))
    outputs = {
        name: attend(q, k, v, [9, 9], 2, dropout=0.5, **options).asnumpy()
        for name, options in {
            "first": {"gate": 0.0}, "again": {"gate": 2.0}, "predict": {},
            "other": {"gate": 0.0, "seed": (6, 6)}, "another": {"gate": 0.0, "seed": (5, 7)},
        }.items()
    }  # fmt: skip
    assert np.array_equal(outputs["first"], outputs["again"])
    assert not np.array_equal(outputs["first"], outputs["other"])
    assert not np.array_equal(outputs["first"], outputs["another"])
    np.testing.assert_array_equal(outputs["predict"], attend(q, k, v, [9, 9], 2).asnumpy())


@pytest.mark.parametrize("weight_decay", [0.0, 0.01, 350.0])
def test_the_adam_step_is_that_of_gluonnlp(weight_decay):
    settings = OptimizerSettings(weight_decay=weight_decay, max_gradient_norm=0.5)
    ours, theirs = (ClippedBertAdam(make_parameters(), settings, use_kernels) for use_kernels in (True, False))
    for step in range(5):
        for optimizer in (ours, theirs):
            gradients = [mx.nd.array(normal(10 * step + i, *gradient.shape)) for i, gradient in enumerate(optimizer.gradients.values())]
            optimizer.step(1e-4, gradients, mx.nd.array([3.0]))
    one, two = ours.state(), theirs.state()
    assert one.keys() == two.keys()
    assert all(np.allclose(one[name], two[name], rtol=1e-5, atol=1e-8) for name in one)
    for name, parameter in ours.parameters.items():
        np.testing.assert_allclose(parameter.data().asnumpy(), theirs.parameters[name].data().asnumpy(), rtol=1e-5, atol=1e-7)


THREADS = """
import numpy as np, sys
from bort.gluon import kernels
import mxnet as mx
assert kernels.are_available(mx.cpu())
random = np.random.default_rng(0)
x, gamma, logits = (mx.nd.array(random.normal(size=shape)) for shape in ((300, 96), (96,), (40, 1000)))
for array in (x, gamma):
    array.attach_grad()
with mx.autograd.record():
    y = mx.nd.bort_layer_norm(x, gamma, gamma, eps=1e-5)
y.backward()
sums, gradient = mx.nd.bort_masked_loss(
    logits, mx.nd.arange(40), mx.nd.ones(40), logits[::-1], teacher=1, mlm_weight=0.1, kd_weight=0.5, temperature=2
)
q = mx.nd.array(random.normal(size=(40, 3, 32)))
q.attach_grad()
with mx.autograd.record():
    context = mx.nd.bort_attention(q, q, q, mx.nd.array([40, 7, 1]), mx.nd.zeros(1), mx.nd.array([1, 2]), heads=4, dropout=0.1)
context.backward()
square = mx.nd.bort_sum_of_squares(mx.nd.array(random.normal(size=(1000, 300))), num_arrays=1)
for array in (y, x.grad, gamma.grad, sums, gradient, context, q.grad, square):
    sys.stdout.buffer.write(array.asnumpy().tobytes())
"""


def test_results_do_not_depend_on_the_number_of_threads():
    outputs = [
        subprocess.run(
            [sys.executable, "-c", THREADS], env=os.environ | {"OMP_NUM_THREADS": threads}, capture_output=True, check=True
        ).stdout
        for threads in ("1", "2", "3")
    ]
    assert len(outputs[0]) > 4 * 300 * 96
    assert outputs[0] == outputs[1] == outputs[2]


def test_ids_and_labels_outside_the_vocabulary_are_refused():
    with pytest.raises(mx.MXNetError, match="row 1 has id 50, the matrix has 50 rows"):
        mx.nd.bort_add_rows(mx.nd.ones((50, 3)), mx.nd.array([4, 50]), mx.nd.ones((2, 3))).wait_to_read()
    for label in (-1, 9, np.nan, 1e9):
        with pytest.raises(mx.MXNetError, match="outside the vocabulary of 9"):
            mx.nd.bort_masked_loss(
                mx.nd.ones((2, 9)), mx.nd.array([0, label]), mx.nd.ones(2), teacher=0, mlm_weight=1, kd_weight=0, temperature=1
            )[0].wait_to_read()


def test_gradients_are_added_where_a_caller_has_chosen_to_add():
    net, _ = get_bort_model(config())
    net.collect_params().setattr("grad_req", "add")
    input_ids, positions = mx.nd.arange(24).reshape((2, 12)), mx.nd.array([[1, 5], [3, 4]])
    gradients = []
    for _ in range(2):
        with mx.autograd.record(train_mode=False):
            _, decoded = net(input_ids, None, positions)
        decoded.backward()
        gradients.append({name: parameter.grad().asnumpy() for name, parameter in named_parameters(net).items()})
    for name, gradient in gradients[0].items():
        np.testing.assert_allclose(gradients[1][name], 2 * gradient, rtol=1e-4, atol=1e-5, err_msg=name)


def test_attention_refuses_heads_that_do_not_divide():
    with pytest.raises(mx.MXNetError, match="heads that divide C"):
        attend(*(normal(i, 4, 1, 8) for i in range(3)), [4], heads=3)


def test_arrays_of_another_type_are_refused():
    with pytest.raises(mx.MXNetError, match="float32"):
        mx.nd.bort_sum_of_squares(mx.nd.ones((3,), dtype="float64"), num_arrays=1).wait_to_read()


@pytest.fixture
def load_anew(tmp_path, monkeypatch):
    """Loads the kernels as a process does that finds this compiler alone and nothing compiled yet; None takes the compiler away."""

    def load_anew(compiler):
        (tmp_path / "bin").mkdir(exist_ok=True)
        monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}")
        monkeypatch.delenv("CXX", raising=False)
        if compiler is not None:
            (tmp_path / "bin" / "c++").write_text(f'#!/bin/sh\n[ "$1" = --version ] && exit\n{compiler}\n')
            (tmp_path / "bin" / "c++").chmod(0o755)
        # Past the memory of this process, whose own kernels stay as they are.
        return kernels._load.__wrapped__()

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("BORT_KERNELS", raising=False)
    return load_anew


@pytest.mark.parametrize(
    ("compiler", "message"),
    [
        (None, r"no C\+\+ compiler \(c\+\+\), so training uses MXNet's own operators"),
        ('echo "error: no headers" >&2; exit 1', r"c\+\+ cannot compile kernels\.cc \(error: no headers\)"),
    ],
)
def test_without_a_compiler_there_is_a_warning_and_no_kernels(load_anew, tmp_path, compiler, message):
    with pytest.warns(UserWarning, match=message):
        assert not load_anew(compiler)
    assert not list(tmp_path.glob("bort/*"))


def test_without_a_folder_to_write_there_is_a_warning_and_no_kernels(load_anew, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/nothing")
    with pytest.warns(UserWarning, match="set XDG_CACHE_HOME to a folder that can be written"):
        assert not load_anew("exit 1")


def test_a_library_that_cannot_be_loaded_is_named(load_anew, tmp_path):
    """The compiler writes its last argument, and nothing into it."""
    with pytest.warns(UserWarning, match=r"MXNet cannot load .*remove it") as warned:
        assert not load_anew('for file; do :; done; : > "$file"')
    (library,) = tmp_path.glob("bort/kernels-*.so")
    assert f"cannot load {library}" in str(warned[0].message)


def test_a_process_without_kernels_says_so():
    program = "import bort.gluon, mxnet as mx; from bort.gluon import kernels; print(kernels.are_available(mx.cpu()))"
    environment = os.environ | {"CXX": "no_such_compiler"}
    result = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert result.stdout == "False\n"
    assert "no C++ compiler (no_such_compiler)" in result.stderr
