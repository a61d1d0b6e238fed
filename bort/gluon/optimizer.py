"""BERTAdam with global-norm clipping, state under published names, and no wait for the device.

Notable: the divisor of the summed gradient and the clipping factor stay on the device; BERTAdam takes their quotient as its rescaling
array. A step with a gradient that is not finite is skipped on the device as well. BERTAdam (GluonNLP) has no bias correction and decays
weights by ``learning_rate · weight_decay · w``, which is why the published fine-tuning grid has decays up to 350. On a CPU a kernel of our
own takes the step; GluonNLP's is the peer in its test.
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
        use_kernels: take the step by ``bort/gluon/kernels.cc``; for the CPU only.
    """

    def __init__(self, parameters: Mapping[str, Parameter], settings: OptimizerSettings, use_kernels: bool = False) -> None:
        self.parameters = dict(parameters)
        self._settings, self._uses_kernels = settings, use_kernels
        for name, parameter in self.parameters.items():
            parameter.wd_mult = 0.0 if name.endswith(_NOT_DECAYED) else 1.0
        self._adam = nlp.optimizer.BERTAdam(
            epsilon=settings.adam_epsilon, wd=settings.weight_decay, param_dict=dict(enumerate(self.parameters.values()))
        )
        self._states = [self._adam.create_state(index, parameter.data()) for index, parameter in enumerate(self.parameters.values())]

    @property
    def gradients(self) -> dict[str, mx.nd.NDArray]:
        """Gradients of the last backward pass under published names."""
        return {name: parameter.grad() for name, parameter in self.parameters.items()}

    def step(self, learning_rate: float, gradients: list[mx.nd.NDArray], divisor: mx.nd.NDArray) -> mx.nd.NDArray:
        """Queue one step.

        Args:
            gradients: one a parameter, in their order.
            divisor: (1,), of the gradients.

        Returns:
            Global norm of the divided gradient before clipping, shape (1,), on the device.
        """
        norm = self._norm(gradients) / divisor
        # The step is skipped where its factor is zero or not finite.
        scale = mx.nd.contrib.isfinite(norm) / divisor
        if self._settings.max_gradient_norm:
            scale = scale * mx.nd.minimum(self._settings.max_gradient_norm / (norm + 1e-12), 1.0)
        weights = [parameter.data() for parameter in self.parameters.values()]
        if self._uses_kernels:
            means, variances = zip(*self._states, strict=True)
            mx.nd.bort_adam(
                *weights, *gradients, *means, *variances, scale, num_arrays=len(weights), lr=learning_rate,
                beta1=self._adam.beta1, beta2=self._adam.beta2, eps=self._adam.epsilon,
                decays=" ".join(str(self._adam.wd * parameter.wd_mult) for parameter in self.parameters.values()),
            )  # fmt: skip
        else:
            self._adam.rescale_grad = scale
            self._adam.set_learning_rate(learning_rate)
            self._adam.update_multi_precision(list(range(len(weights))), weights, gradients, self._states)
        return norm

    def _norm(self, arrays: list[mx.nd.NDArray]) -> mx.nd.NDArray:
        """Queue the root of the sum of all squares, shape (1,)."""
        if self._uses_kernels:
            return mx.nd.bort_sum_of_squares(*arrays, num_arrays=len(arrays)).sqrt()
        # Not multi_sum_sq, which adds up a large array so naively that 15 % of its sum can be missing.
        flat = [array.reshape((-1,)) for array in arrays]
        return mx.nd.add_n(*[mx.nd.dot(array, array).reshape((1,)) for array in flat]).sqrt()

    def parameter_norm(self) -> mx.nd.NDArray:
        """Queue the global norm of the parameters, shape (1,)."""
        return self._norm([parameter.data() for parameter in self.parameters.values()])

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
