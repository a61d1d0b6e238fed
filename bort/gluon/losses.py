"""Masked-language-model and distillation losses, as sums that a global batch can be normalised by.

Notable: losses are sums over a batch's own masked positions, never means, so that gradient accumulation and the number of workers change
nothing: the engine divides once, by the number of masked tokens of the global batch. Entropies and agreement of student and teacher come
with the loss, because a broken distillation loss shows there on the first day. The gradient with respect to the logits has a closed form,
so a kernel makes it together with the sums while a row of logits is in the cache.

With s and t the student's and the teacher's logits at a masked position, T the temperature and q = softmax(t/T):
``KD = T² · Σ_v q_v (log q_v - log_softmax(s/T)_v)``, whose gradient with respect to s is ``T (softmax(s/T) - q)`` (Hinton et al. 2015).
"""

from __future__ import annotations

from typing import Any

import mxnet as mx
from mxnet import autograd
from mxnet.gluon import HybridBlock

from bort.gluon.model import BortClassifier

MASKED_SUMS = ("masked_tokens", "mlm_loss", "mlm_correct", "student_entropy")
DISTILLATION_SUMS = ("kd_loss", "teacher_entropy", "agreement", "teacher_correct")
CLASSIFICATION_SUMS = ("rows", "loss", "correct")


def hinton_kd(F: Any, student_logits: Any, teacher_logits: Any, temperature: float) -> Any:
    """``T² · KL(softmax(t/T) ‖ softmax(s/T))`` over the last axis: (…, V), (…, V) → (…)."""
    log_student = F.log_softmax(student_logits, axis=-1, temperature=temperature)
    log_teacher = F.log_softmax(teacher_logits, axis=-1, temperature=temperature)
    return temperature**2 * F.sum(F.exp(log_teacher) * (log_teacher - log_student), axis=-1)


def published_kd(F: Any, student_logits: Any, teacher_logits: Any, temperature: float) -> Any:
    """The published loss, for comparison: a softmax of a softmax, averaged over the vocabulary, which leaves next to no gradient."""
    student = F.softmax(student_logits, axis=-1, temperature=temperature)
    teacher = F.softmax(teacher_logits, axis=-1, temperature=temperature)
    return F.mean(teacher * (F.log(teacher + 1e-12) - F.log_softmax(student, axis=-1)), axis=-1)


_KD = {"hinton": hinton_kd, "published": published_kd}


class MaskedLoss:
    """Weighted sum of the masked-language-model and distillation losses over rows of logits, and its gradient.

    Args:
        mlm_weight: weight of the cross-entropy with the true tokens.
        kd_weight: weight of the distillation loss; unused without teacher logits.
        temperature: of both softmaxes in the distillation loss.
        kd_loss: ``hinton`` or ``published``.
        use_kernels: compute by ``bort/gluon/kernels.cc`` what it knows, all but the published loss; for the CPU only.
    """

    def __init__(
        self, mlm_weight: float = 1.0, kd_weight: float = 0.0, temperature: float = 1.0, kd_loss: str = "hinton", use_kernels: bool = False
    ) -> None:
        self._attributes = {"mlm_weight": mlm_weight, "kd_weight": kd_weight, "temperature": temperature}
        self._uses_kernel = use_kernels and kd_loss == "hinton"
        self._block = _MaskedLossBlock(mlm_weight, kd_weight, temperature, kd_loss)
        self._block.hybridize(static_alloc=True)

    def __call__(
        self, logits: mx.nd.NDArray, labels: mx.nd.NDArray, weights: mx.nd.NDArray, teacher_logits: mx.nd.NDArray | None = None
    ) -> tuple[mx.nd.NDArray, mx.nd.NDArray]:
        """Queue the loss and its gradient; nothing is recorded for differentiation.

        Args:
            logits: (B, M, V); labels, weights: (B, M), weight 0 for an unused slot; teacher_logits: (B, M, V).

        Returns:
            The vector of ``MASKED_SUMS`` (followed by ``DISTILLATION_SUMS`` with a teacher), and the gradient of the loss with respect to
            ``logits``, (B, M, V).
        """
        teacher = () if teacher_logits is None else (teacher_logits.detach(),)
        if not self._uses_kernel:
            leaf = logits.detach()
            leaf.attach_grad()
            with autograd.record():
                loss, sums = self._block(leaf, labels, weights, *teacher)
            loss.backward()
            return sums, leaf.grad
        rows = [logits.detach().reshape((-3, 0)), labels.reshape((-1,)), weights.reshape((-1,)), *(t.reshape((-3, 0)) for t in teacher)]
        sums, gradient = mx.nd.bort_masked_loss(*rows, teacher=len(teacher), **self._attributes)
        return sums, gradient.reshape(logits.shape)


class _MaskedLossBlock(HybridBlock):
    """The same by MXNet's operators: returns the loss, shape (1,), and the vector of sums."""

    def __init__(self, mlm_weight: float, kd_weight: float, temperature: float, kd_loss: str) -> None:
        super().__init__()
        self._mlm_weight = mlm_weight
        self._kd_weight = kd_weight
        self._temperature = temperature
        self._kd = _KD[kd_loss]

    def hybrid_forward(self, F: Any, logits: Any, labels: Any, weights: Any, teacher_logits: Any = None) -> Any:
        log_probabilities = F.log_softmax(logits, axis=-1)
        mlm = _weighted_sum(F, -F.pick(log_probabilities, labels, axis=-1), weights)
        guess = F.argmax(logits, axis=-1)
        sums = [
            F.sum(weights),
            mlm,
            _weighted_sum(F, guess == labels, weights),
            _weighted_sum(F, _entropy(F, log_probabilities), weights),
        ]
        loss = self._mlm_weight * mlm
        if teacher_logits is not None:
            kd = _weighted_sum(F, self._kd(F, logits, teacher_logits, self._temperature), weights)
            loss = loss + self._kd_weight * kd
            teacher_guess = F.argmax(teacher_logits, axis=-1)
            sums += [
                kd,
                _weighted_sum(F, _entropy(F, F.log_softmax(teacher_logits, axis=-1)), weights),
                _weighted_sum(F, guess == teacher_guess, weights),
                _weighted_sum(F, teacher_guess == labels, weights),
            ]
        return loss, F.BlockGrad(F.concat(*[value.reshape((1,)) for value in sums], dim=0))


def _entropy(F: Any, log_probabilities: Any) -> Any:
    return -F.sum(F.exp(log_probabilities) * log_probabilities, axis=-1)


class ClassificationLoss(HybridBlock):
    """Cross-entropy of a classifier, or squared error of a regression (one output), summed over the rows that count."""

    def __init__(self, classifier: BortClassifier, is_regression: bool) -> None:
        super().__init__()
        self.net = classifier
        self._is_regression = is_regression

    def hybrid_forward(self, F: Any, input_ids: Any, valid_length: Any, labels: Any, weights: Any) -> Any:
        """Return the loss, shape (1,), and the vector of ``CLASSIFICATION_SUMS``, float32; a regression counts no row as correct.

        Args:
            input_ids: (B, T); valid_length, labels, weights: (B,).
        """
        logits = F.cast(self.net(input_ids, valid_length), dtype="float32")
        if self._is_regression:
            losses = F.square(logits.reshape((-1,)) - labels)
            correct = F.zeros_like(labels)
        else:
            losses = -F.pick(F.log_softmax(logits, axis=-1), labels, axis=-1)
            correct = F.argmax(logits, axis=-1) == labels
        loss = _weighted_sum(F, losses, weights)
        sums = [F.sum(weights), loss, _weighted_sum(F, correct, weights)]
        return loss, F.BlockGrad(F.concat(*[value.reshape((1,)) for value in sums], dim=0))


def _weighted_sum(F: Any, values: Any, weights: Any) -> Any:
    return F.sum(values * weights)
