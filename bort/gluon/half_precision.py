"""Half-precision training: a float16 copy of the model computes, float32 masters learn, and a loss scale keeps small gradients alive.

The scheme of Micikevicius et al. 2018 (Mixed Precision Training, sections 3.1 and 3.2): the gradient of the logits is multiplied by the
scale before the backward pass and divided by it in float32 afterwards. Notable: the scale lives on the device and adapts without a wait. An
update whose gradients overflow is skipped and halves it; so many good updates in a row double it. Everything that crosses the engine's seam
stays float32.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from bort.errors import BortError
from bort.gluon.parameters import distinct_parameters
from bort.settings import DTYPES

_STATE = "scaler/state"
_LOWEST_SCALE = 2.0**-20


def check_dtype(dtype: str, use_gpu: bool) -> None:
    """Refuse a type that a model cannot compute in, and prepare MXNet for float16; to be called before the first operator runs.

    Raises:
        BortError: if ``dtype`` is neither float32 nor float16, or float16 on a CPU.
    """
    if dtype not in DTYPES:
        raise BortError(f"dtype must be one of {', '.join(DTYPES)}, got {dtype}")
    if dtype == "float16" and not use_gpu:
        raise BortError("dtype float16 needs --gpu: MXNet has no half-precision matrix product for CPUs; leave --dtype out")
    if dtype == "float16":
        # Without it MXNet adds up softmaxes and LayerNorms of float16 in float16; it is read once, by the first such operator.
        os.environ.setdefault("MXNET_SAFE_ACCUMULATION", "1")


class HalfPrecision:
    """The computing copy of ``master`` and its loss scale.

    Args:
        master: the model that learns, float32 on ``ctx``.
        copy: another of the same architecture, built but not initialised; without kernels, which are for float32.
        ctx: device; MXNet multiplies float16 matrices on GPUs only.
        dtype: of the copy; float32 serves to test the scheme on a CPU.
        initial_scale: of the loss.
        window: good updates in a row after which the scale doubles.
    """

    def __init__(
        self,
        master: HybridBlock,
        copy: HybridBlock,
        ctx: mx.Context,
        dtype: str = "float16",
        initial_scale: float = 2.0**16,
        window: int = 2000,
    ) -> None:
        self.dtype, self._window = dtype, window
        self._masters = list(distinct_parameters(master).values())
        self.net = copy
        self.net.initialize(mx.init.Zero(), ctx=ctx)
        self.net.cast(dtype)
        self.net.hybridize(static_alloc=True)
        self._copies = list(distinct_parameters(self.net).values())
        self._scale = mx.nd.full((1,), initial_scale, ctx=ctx)
        self._good_updates = mx.nd.zeros((1,), ctx=ctx)
        self._skipped = mx.nd.zeros((1,), ctx=ctx)
        self.refresh()

    @property
    def scale(self) -> mx.nd.NDArray:
        """What the loss is multiplied by, shape (1,), on the device."""
        return self._scale

    def refresh(self) -> None:
        """Queue the masters' values into the copy."""
        for master, copy in zip(self._masters, self._copies, strict=True):
            copy.data()[:] = master.data().astype(self.dtype)

    def gradients(self) -> list[mx.nd.NDArray]:
        """The copy's gradients as new float32 arrays, still scaled, in the order of the masters."""
        return [copy.grad().astype("float32", copy=True) for copy in self._copies]

    def adapt(self, norm: mx.nd.NDArray) -> mx.nd.NDArray:
        """Queue the scale's change after an update whose gradient had ``norm``, shape (1,); returns the norm, 0 if it is not finite."""
        good = mx.nd.contrib.isfinite(norm)
        self._skipped += 1 - good
        counted = (self._good_updates + 1) * good
        doubles = counted >= self._window
        self._scale *= mx.nd.where(good, 1 + doubles, mx.nd.full((1,), 0.5, ctx=norm.context))
        # The loop gives up long before, when it next looks; meanwhile the scale stays a number to divide by.
        self._scale[:] = mx.nd.maximum(self._scale, _LOWEST_SCALE)
        self._good_updates[:] = counted * (1 - doubles)
        return mx.nd.where(good, norm, mx.nd.zeros_like(norm))

    def drain(self) -> dict[str, float]:
        """Wait; ``loss_scale`` now, and ``skipped_updates`` since the last call."""
        drained = {"loss_scale": float(self._scale.asscalar()), "skipped_updates": float(self._skipped.asscalar())}
        self._skipped[:] = 0
        return drained

    def state(self) -> dict[str, np.ndarray]:
        """Wait; scale and good updates since it last changed."""
        return {_STATE: np.concatenate([self._scale.asnumpy(), self._good_updates.asnumpy()])}

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take the scale, if ``state`` holds one, and the masters' values as they now are.

        Raises:
            BortError: if the stored scale is damaged.
        """
        if _STATE in state:
            stored = state[_STATE]
            if stored.shape != (2,) or not stored[0] > 0:
                raise BortError(f"optimiser state: {_STATE} is {stored.tolist()}; a positive loss scale and a count are needed")
            self._scale[:], self._good_updates[:] = float(stored[0]), float(stored[1])
        self.refresh()
