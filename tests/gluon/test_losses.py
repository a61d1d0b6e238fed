"""The losses against their closed forms, in double-precision NumPy."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from bort import BortClassifier, BortConfig, BortModel
from bort.gluon.losses import ClassificationLoss, MaskedLoss, hinton_kd, published_kd
from bort.gluon.model import initialize

VOCAB_SIZE = 50


def random_logits(seed, scale=3.0, shape=(4, 5, VOCAB_SIZE)):
    return np.random.default_rng(seed).normal(scale=scale, size=shape).astype(np.float32)


def gradient_of(loss, student, teacher, temperature):
    logits = mx.nd.array(student)
    logits.attach_grad()
    with mx.autograd.record():
        value = loss(mx.nd, logits, mx.nd.array(teacher), temperature)
    value.backward()
    return value.asnumpy(), logits.grad.asnumpy()


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_loss_and_gradient_have_their_closed_form(temperature):
    student, teacher = random_logits(0), random_logits(1)
    value, gradient = gradient_of(hinton_kd, student, teacher, temperature)
    q = softmax(teacher.astype(np.float64) / temperature, axis=-1)
    log_p = log_softmax(student.astype(np.float64) / temperature, axis=-1)
    np.testing.assert_allclose(value, temperature**2 * (q * (np.log(q) - log_p)).sum(-1), atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(gradient, temperature * (np.exp(log_p) - q), atol=1e-5)


def test_distillation_loss_is_finite_where_the_teacher_is_certain():
    """Probabilities that underflow to zero must contribute zero, not NaN."""
    teacher = np.full((1, 1, VOCAB_SIZE), -200.0, dtype=np.float32)
    teacher[..., 3] = 200.0
    value, gradient = gradient_of(hinton_kd, random_logits(2, shape=(1, 1, VOCAB_SIZE)), teacher, 1.0)
    assert np.isfinite(value).all()
    assert np.isfinite(gradient).all()


def test_distillation_loss_of_equal_models_is_zero():
    logits = random_logits(3)
    value, gradient = gradient_of(hinton_kd, logits, logits, 2.0)
    assert np.abs(value).max() < 1e-5
    assert np.abs(gradient).max() < 1e-5


def test_the_published_loss_has_its_form_and_next_to_no_gradient():
    student, teacher = random_logits(4), random_logits(5)
    value, gradient = gradient_of(published_kd, student, teacher, 2.0)
    p, q = (softmax(logits.astype(np.float64) / 2, axis=-1) for logits in (student, teacher))
    np.testing.assert_allclose(value, (q * (np.log(q) - log_softmax(p, axis=-1))).mean(-1), atol=1e-6)
    _, right = gradient_of(hinton_kd, student, teacher, 2.0)
    assert np.linalg.norm(gradient) < 1e-3 * np.linalg.norm(right)


@pytest.mark.parametrize("use_kernels", [False, True])
@pytest.mark.parametrize("with_teacher", [False, True])
@pytest.mark.parametrize(("temperature", "vocab_size"), [(1.0, VOCAB_SIZE), (2.0, VOCAB_SIZE), (3.5, 1003)])
def test_masked_loss_and_gradient_over_used_slots_only(use_kernels, with_teacher, temperature, vocab_size):
    student, teacher = (random_logits(seed, shape=(2, 3, vocab_size)) for seed in (6, 7))
    labels = np.random.default_rng(8).integers(vocab_size, size=(2, 3))
    # One label is the student's guess, and one the teacher's, so that counts are not all zero.
    labels[0, 0], labels[0, 1] = student[0, 0].argmax(), teacher[0, 1].argmax()
    weights = np.array([[1, 1, 0], [1, 0, 0]], dtype=np.float32)
    loss = MaskedLoss(0.1, 0.5, temperature, use_kernels=use_kernels)
    sums, gradient = loss(*map(mx.nd.array, (student, labels, weights, *([teacher] if with_teacher else []))))

    used = weights.astype(bool)
    s, t, y = student.astype(np.float64)[used], teacher.astype(np.float64)[used], labels[used]
    log_p, log_t = log_softmax(s, axis=-1), log_softmax(t, axis=-1)
    p, q = softmax(s / temperature, axis=-1), softmax(t / temperature, axis=-1)
    expected = [3, -log_p[np.arange(3), y].sum(), (s.argmax(-1) == y).sum(), -(np.exp(log_p) * log_p).sum()]
    slope = 0.1 * (np.exp(log_p) - np.eye(vocab_size)[y])
    if with_teacher:
        kd = temperature**2 * (q * (np.log(q) - np.log(p))).sum()
        expected += [kd, -(np.exp(log_t) * log_t).sum(), (s.argmax(-1) == t.argmax(-1)).sum(), (t.argmax(-1) == y).sum()]
        slope += 0.5 * temperature * (p - q)
    np.testing.assert_allclose(sums.asnumpy(), expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(gradient.asnumpy()[used], slope, atol=1e-6)
    assert not gradient.asnumpy()[~used].any()


@pytest.mark.parametrize("scale", [1e-3, 50.0, 1e4])
def test_the_kernel_is_exact_for_flat_and_for_certain_distributions(scale):
    inputs = [random_logits(9, scale, (1, 4, 999)), np.array([[0, 1, 2, 998]]), np.ones((1, 4)), random_logits(10, scale, (1, 4, 999))]
    arrays = [mx.nd.array(array) for array in inputs]
    one, two = (MaskedLoss(0.1, 0.5, 2.0, use_kernels=use_kernels)(*arrays) for use_kernels in (False, True))
    np.testing.assert_allclose(two[0].asnumpy(), one[0].asnumpy(), rtol=2e-5, atol=2e-5)
    np.testing.assert_allclose(two[1].asnumpy(), one[1].asnumpy(), atol=1e-5)


@pytest.mark.parametrize("is_regression", [False, True])
def test_classification_loss_counts_rows_with_weight_only(is_regression):
    config = BortConfig(
        hidden_size=16, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2, max_position_embeddings=16, vocab_size=VOCAB_SIZE
    )
    classifier = BortClassifier(BortModel(config, use_decoder=False), 1 if is_regression else 3)
    initialize(classifier, mx.cpu())
    input_ids = mx.nd.array(np.random.default_rng(8).integers(VOCAB_SIZE, size=(4, 9)))
    valid_length = mx.nd.array([9, 5, 7, 9])
    labels, weights = np.array([2.0, 0.0, 1.0, 2.0]), np.array([1.0, 1.0, 0.0, 1.0])
    loss, sums = ClassificationLoss(classifier, is_regression)(input_ids, valid_length, mx.nd.array(labels), mx.nd.array(weights))
    logits = classifier(input_ids, valid_length).asnumpy()
    if is_regression:
        each, correct = (logits[:, 0] - labels) ** 2, np.zeros(4)
    else:
        each = -log_softmax(logits, axis=-1)[np.arange(4), labels.astype(int)]
        correct = logits.argmax(-1) == labels
    np.testing.assert_allclose(sums.asnumpy(), [3, (each * weights).sum(), (correct * weights).sum()], rtol=1e-5)
    assert loss.asscalar() == pytest.approx((each * weights).sum(), rel=1e-5)
