"""Masked-language-model and distillation losses, as sums that a global batch can be normalised by.

Notable: a loss block returns sums over its own masked positions, never means, so that gradient accumulation and the number of workers
change nothing: the engine divides once, by the number of masked tokens of the global batch. Entropies and agreement of student and teacher
come with the loss, because a broken distillation loss shows there on the first day.

With s and t the student's and the teacher's logits at a masked position, T the temperature and q = softmax(t/T):
``KD = T² · Σ_v q_v (log q_v - log_softmax(s/T)_v)``, whose gradient with respect to s is ``T (softmax(s/T) - q)`` (Hinton et al. 2015).
"""

from __future__ import annotations

from typing import Any

from mxnet.gluon import HybridBlock

from bort.gluon.model import BortClassifier, BortModel

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


class MaskedLoss(HybridBlock):
    """Weighted sum of the masked-language-model and distillation losses of a student over one batch.

    Args:
        student: model with a head.
        mlm_weight: weight of the cross-entropy with the true tokens.
        kd_weight: weight of the distillation loss; unused without teacher logits.
        temperature: of both softmaxes in the distillation loss.
        kd_loss: ``hinton`` or ``published``.
    """

    def __init__(
        self, student: BortModel, mlm_weight: float = 1.0, kd_weight: float = 0.0, temperature: float = 1.0, kd_loss: str = "hinton"
    ) -> None:
        super().__init__()
        self.student = student
        self._mlm_weight = mlm_weight
        self._kd_weight = kd_weight
        self._temperature = temperature
        self._kd = _KD[kd_loss]

    def hybrid_forward(
        self, F: Any, input_ids: Any, valid_length: Any, positions: Any, labels: Any, weights: Any, teacher_logits: Any = None
    ) -> Any:
        """Sums over the used slots of a batch.

        Args:
            input_ids: (B, T); valid_length: (B,); positions, labels, weights: (B, M); teacher_logits: (B, M, V) or None.

        Returns:
            The loss, shape (1,), and the vector of ``MASKED_SUMS`` (followed by ``DISTILLATION_SUMS`` with a teacher).
        """
        _, logits = self.student(input_ids, valid_length, positions)
        log_probabilities = F.log_softmax(logits, axis=-1)
        mlm = _weighted_sum(F, -F.pick(log_probabilities, labels, axis=-1), weights)
        guess = F.argmax(logits, axis=-1)
        sums = [
            F.sum(weights),
            mlm,
            _weighted_sum(F, guess == labels, weights),
            _weighted_sum(F, -F.sum(F.exp(log_probabilities) * log_probabilities, axis=-1), weights),
        ]
        loss = self._mlm_weight * mlm
        if teacher_logits is not None:
            kd = _weighted_sum(F, self._kd(F, logits, teacher_logits, self._temperature), weights)
            loss = loss + self._kd_weight * kd
            log_teacher = F.log_softmax(teacher_logits, axis=-1)
            teacher_guess = F.argmax(teacher_logits, axis=-1)
            sums += [
                kd,
                _weighted_sum(F, -F.sum(F.exp(log_teacher) * log_teacher, axis=-1), weights),
                _weighted_sum(F, guess == teacher_guess, weights),
                _weighted_sum(F, teacher_guess == labels, weights),
            ]
        return loss, F.BlockGrad(F.concat(*[value.reshape((1,)) for value in sums], dim=0))


class ClassificationLoss(HybridBlock):
    """Cross-entropy of a classifier, or squared error of a regression (one output), summed over the rows that count."""

    def __init__(self, classifier: BortClassifier, is_regression: bool) -> None:
        super().__init__()
        self.net = classifier
        self._is_regression = is_regression

    def hybrid_forward(self, F: Any, input_ids: Any, valid_length: Any, labels: Any, weights: Any) -> Any:
        """Return the loss, shape (1,), and the vector of ``CLASSIFICATION_SUMS``; a regression counts no row as correct.

        Args:
            input_ids: (B, T); valid_length, labels, weights: (B,).
        """
        logits = self.net(input_ids, valid_length)
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
