"""BERTAdam with global-norm clipping, state under published names, and no wait for the device.

Notable: the divisor of the summed gradient and the clipping factor stay on the device; BERTAdam takes their quotient as its rescaling
array. A step with a gradient that is not finite is skipped on the device as well. BERTAdam (GluonNLP) has no bias correction and decays
weights by ``learning_rate · weight_decay · w``, which is why the published fine-tuning grid has decays up to 350.
"""

from __future__ import annotations

from collections.abc import Mapping

import gluonnlp as nlp
import mxnet as mx
import numpy as np
from mxnet.gluon import Parameter

from bort.errors import BortError
from bort.settings import OptimizerSettings

MEAN, VARIANCE = "mean/", "variance/"
_NOT_DECAYED = (".bias", ".gamma", ".beta")


class ClippedBertAdam:
    """The optimiser of one worker's copy of the parameters.

    Args:
        parameters: published name → parameter, each parameter once.
        settings: decay, epsilon and clipping.
    """

    def __init__(self, parameters: Mapping[str, Parameter], settings: OptimizerSettings) -> None:
        self.parameters = dict(parameters)
        for name, parameter in self.parameters.items():
            parameter.wd_mult = 0.0 if name.endswith(_NOT_DECAYED) else 1.0
        self._adam = nlp.optimizer.BERTAdam(
            epsilon=settings.adam_epsilon, wd=settings.weight_decay, param_dict=dict(enumerate(self.parameters.values()))
        )
        self._max_gradient_norm = settings.max_gradient_norm
        self._states = [self._adam.create_state(index, parameter.data()) for index, parameter in enumerate(self.parameters.values())]

    @property
    def gradients(self) -> dict[str, mx.nd.NDArray]:
        """Accumulated gradients under published names."""
        return {name: parameter.grad() for name, parameter in self.parameters.items()}

    def step(self, learning_rate: float, divisor: mx.nd.NDArray) -> mx.nd.NDArray:
        """Queue one step with the accumulated gradients over ``divisor``, shape (1,), and their reset to zero.

        Returns:
            Global norm of the divided gradient before clipping, shape (1,), on the device.
        """
        gradients = list(self.gradients.values())
        norm = mx.nd.multi_sum_sq(*gradients, num_arrays=len(gradients)).sum().sqrt() / divisor
        scale = 1.0 / divisor
        # The operator skips a step whose rescaling is zero or not finite.
        scale = scale * mx.nd.contrib.isfinite(norm)
        if self._max_gradient_norm:
            scale = scale * mx.nd.minimum(self._max_gradient_norm / (norm + 1e-12), 1.0)
        self._adam.rescale_grad = scale
        self._adam.set_learning_rate(learning_rate)
        weights = [parameter.data() for parameter in self.parameters.values()]
        self._adam.update_multi_precision(list(range(len(weights))), weights, gradients, self._states)
        for parameter in self.parameters.values():
            parameter.zero_grad()
        return norm

    def state(self) -> dict[str, np.ndarray]:
        """Moments as ``mean/<name>`` and ``variance/<name>``; waits for the device."""
        state = {}
        for name, (mean, variance) in zip(self.parameters, self._states, strict=True):
            state[MEAN + name] = mean.asnumpy()
            state[VARIANCE + name] = variance.asnumpy()
        return state

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take moments; a state without any leaves them at zero.

        Raises:
            BortError: if some moments are missing or have another shape.
        """
        if not any(name.startswith(MEAN) for name in state):
            return
        for name, moments in zip(self.parameters, self._states, strict=True):
            for prefix, moment in zip((MEAN, VARIANCE), moments, strict=True):
                value = state.get(prefix + name)
                if value is None or value.shape != moment.shape:
                    found = "is missing" if value is None else f"has shape {value.shape}"
                    raise BortError(f"optimiser state: {prefix}{name} {found}, the model needs {moment.shape}")
                moment[:] = value
