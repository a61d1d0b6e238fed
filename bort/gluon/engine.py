"""What the MXNet engines of pre-training and fine-tuning share: gradient accumulation, all-reduce, the step, running sums and state.

A loss block of ``bort/gluon/losses.py`` returns its loss as a sum over what counts (masked tokens, or rows), and a vector of sums whose
first entry is how much counted. The gradient is divided once an update, by that count over the whole global batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import mxnet as mx
import numpy as np
from mxnet import autograd
from mxnet.gluon import HybridBlock

from bort.gluon.distributed import Workers
from bort.gluon.optimizer import ClippedBertAdam
from bort.gluon.parameters import distinct_parameters, get_arrays, set_arrays
from bort.settings import OptimizerSettings

# Updates that may be queued before the device has done them: queued batches take memory, and a bar should show what is done.
_LONGEST_QUEUE = 32


class GluonEngine:
    """One worker's copy of ``net`` in training; subclasses add ``accumulate``.

    Args:
        net: initialised on ``ctx``.
        ctx: device.
        optimizer: BERTAdam.
        workers: the group this process belongs to.
        sum_names: of the running sums, in the order of the loss blocks' vectors.
    """

    def __init__(self, net: HybridBlock, ctx: mx.Context, optimizer: OptimizerSettings, workers: Workers, sum_names: Sequence[str]) -> None:
        self.rank, self.world_size = workers.rank, workers.world_size
        self._net, self._ctx, self._workers, self._sum_names = net, ctx, workers, tuple(sum_names)
        parameters = distinct_parameters(net)
        for parameter in parameters.values():
            parameter.grad_req = "add"
        workers.broadcast(parameters)
        self._optimizer = ClippedBertAdam(parameters, optimizer)
        self._count = mx.nd.zeros((1,), ctx=ctx)
        self._gradient_norm = mx.nd.zeros((1,), ctx=ctx)
        # float64, because counts of tokens outgrow the 24 bits of float32's significand.
        self._sums = mx.nd.zeros((len(sum_names),), ctx=ctx, dtype="float64")
        self._updates = 0

    def _accumulate(self, loss_block: HybridBlock, inputs: Sequence[mx.nd.NDArray], seed: int) -> None:
        """Queue forward and backward with the dropout of ``seed``."""
        mx.random.seed(seed, ctx=self._ctx)
        with autograd.record():
            loss, sums = loss_block(*inputs)
        loss.backward()
        self._count += sums[:1]
        self._add(sums)

    def _add(self, sums: mx.nd.NDArray) -> None:
        self._sums[: sums.shape[0]] += sums.astype("float64")

    def update(self, learning_rate: float) -> None:
        """Queue all-reduce, division by the count of the global batch, clipping and a BERTAdam step."""
        for name, gradient in self._optimizer.gradients.items():
            self._workers.sum_in_place(gradient, f"gradient.{name}")
        self._workers.sum_in_place(self._count, "count")
        self._gradient_norm += self._optimizer.step(learning_rate, mx.nd.maximum(self._count, 1.0))
        self._count[:] = 0
        self._updates += 1
        if self._updates % _LONGEST_QUEUE == 0:
            self._gradient_norm.wait_to_read()

    def drain(self) -> dict[str, float]:
        """Wait; sums over all workers since the last call, the number of ``updates``, and the sum of their ``gradient_norm``."""
        self._workers.sum_in_place(self._sums, "sums")
        sums = dict(zip(self._sum_names, map(float, self._sums.asnumpy()), strict=True))
        sums |= {"updates": float(self._updates), "gradient_norm": float(self._gradient_norm.asscalar())}
        self._sums[:] = 0
        self._gradient_norm[:] = 0
        self._updates = 0
        return sums

    def agree(self, number: int) -> int:
        """Wait; the number that worker 0 gave, on every worker."""
        # Two halves, since float32 holds integers only up to 2**24.
        halves = mx.nd.array(divmod(number, 2**24) if self.rank == 0 else (0, 0), ctx=self._ctx)
        self._workers.sum_in_place(halves, "agree")
        high, low = map(int, halves.asnumpy())
        return high * 2**24 + low

    def parameters(self) -> dict[str, np.ndarray]:
        """Wait; parameters under published names."""
        return get_arrays(self._net)

    def state(self) -> dict[str, np.ndarray]:
        """Wait; parameters, and moments under ``mean/<name>`` and ``variance/<name>``."""
        return self.parameters() | self._optimizer.state()

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take parameters, and moments where there are any.

        Raises:
            BortError: if something is missing or has another shape.
        """
        set_arrays(self._net, {name: value for name, value in state.items() if "/" not in name}, self._ctx, "checkpoint")
        self._optimizer.load_state(state)


def to_device(ctx: mx.Context, array: np.ndarray) -> mx.nd.NDArray:
    """``array`` as float32 on ``ctx``, without waiting for what is queued there.

    ``mx.nd.array`` would wait for its turn in the queue of the CPU's worker, and so for all that was queued before.
    """
    return mx.nd.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).as_in_context(ctx)
