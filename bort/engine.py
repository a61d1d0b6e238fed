"""The seam between the training loops and the frameworks.

A loop decides which batch, which learning rate, and when to log, evaluate, checkpoint and stop. An engine owns device memory: parameters,
optimiser state, accumulated gradients, all-reduce. What crosses the seam is NumPy, under published parameter names, so that neither a loop
nor a checkpoint knows which framework ran. ``accumulate``, ``update`` and ``evaluate`` only queue work; what returns numbers waits for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

BatchT = TypeVar("BatchT", contravariant=True)


@dataclass(frozen=True)
class PretrainingBatch:
    """Masked sequences of one worker for one forward and backward pass.

    Attributes:
        input_ids: (B, T) int32, special tokens included, padded behind ``valid_length``.
        valid_length: (B,) int32, tokens of each row.
        masked_positions: (B, M) int32, positions to predict; unused slots are 0.
        masked_labels: (B, M) int32, the ids that stood there.
        masked_weights: (B, M) float32, 1 for a used slot, 0 for an unused one.
        seed: fixes dropout for this pass, in [0, 2**31).
    """

    input_ids: NDArray[np.int32]
    valid_length: NDArray[np.int32]
    masked_positions: NDArray[np.int32]
    masked_labels: NDArray[np.int32]
    masked_weights: NDArray[np.float32]
    seed: int = 0


@dataclass(frozen=True)
class ClassificationBatch:
    """Rows of a task for one forward and backward pass.

    Attributes:
        input_ids: (B, T) int32, special tokens included, padded behind ``valid_length``.
        valid_length: (B,) int32.
        labels: (B,) float32, class numbers, or scores where the task is a regression; zeros in prediction.
        weights: (B,) float32, 1 for a row that counts, 0 for one that only fills the batch.
        seed: fixes dropout for this pass, in [0, 2**31).
    """

    input_ids: NDArray[np.int32]
    valid_length: NDArray[np.int32]
    labels: NDArray[np.float32]
    weights: NDArray[np.float32]
    seed: int = 0


class Engine(Protocol[BatchT]):
    """One worker's share of a model in training. Every worker makes the same calls in the same order."""

    rank: int
    world_size: int

    def accumulate(self, batch: BatchT) -> None:
        """Queue forward and backward; gradients and running sums stay on the device."""

    def update(self, learning_rate: float) -> None:
        """Queue all-reduce, division by the weight of the global batch, clipping and one optimiser step."""

    def drain(self) -> dict[str, float]:
        """Running sums over all workers since the last call, and what is measured of the parameters now.

        Among the sums are ``updates``, ``gradient_norm``, and of training batches ``tokens`` and ``slots``, the positions that held a token
        and all positions; ``parameter_norm`` is that of now.
        """

    def agree(self, number: int) -> int:
        """The number that worker 0 gave, on every worker."""

    def parameters(self) -> dict[str, np.ndarray]:
        """Parameters under their published names."""

    def state(self) -> dict[str, np.ndarray]:
        """Parameters, and optimiser moments under ``mean/<name>`` and ``variance/<name>``."""

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take parameters, and moments where ``state`` has them.

        Raises:
            BortError: if a parameter is missing or has another shape.
        """


class PretrainingEngine(Engine[PretrainingBatch], Protocol):
    """An engine that can also be judged on held-out text."""

    def evaluate(self, batch: PretrainingBatch) -> None:
        """Queue a forward pass in evaluation mode that adds to the running sums."""


class Predictor(Protocol):
    """What labels rows."""

    def predict(self, batch: ClassificationBatch) -> NDArray[np.float32]:
        """Logits (B, num_classes) in evaluation mode; one score a row, (B, 1), for a regression."""


class ClassifierEngine(Engine[ClassificationBatch], Predictor, Protocol):
    """An engine that can also label rows, its share of them on each worker."""

    def sum_over_workers(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """Wait; the elementwise sum of the workers' ``values``, of one shape on all of them, on every worker.

        Where all workers but one have zeros, the sum is that worker's values to the last bit.
        """
