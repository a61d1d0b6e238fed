"""What the MXNet engines of pre-training and fine-tuning share: gradient accumulation, all-reduce, the step, running sums and state.

A loss of ``bort/gluon/losses.py`` is a sum over what counts (masked tokens, or rows), and comes with a vector of sums whose first entry is
how much counted. The gradient is divided once an update, by that count over the whole global batch.

Notable: backward passes overwrite gradients, so nothing is ever set to zero beforehand; only the second micro-batch of an update makes
arrays to add them up in.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import mxnet as mx
import numpy as np
from mxnet.gluon import HybridBlock

from bort.engine import ClassificationBatch, PretrainingBatch
from bort.gluon.distributed import Workers
from bort.gluon.half_precision import HalfPrecision
from bort.gluon.optimizer import ClippedBertAdam
from bort.gluon.parameters import distinct_parameters, get_arrays, set_arrays
from bort.settings import OptimizerSettings

Batch = PretrainingBatch | ClassificationBatch

# Updates that may be queued before the device has done them: queued batches take memory, and a bar should show what is done. The wait is
# for the oldest, so the device always has the others to do.
_LONGEST_QUEUE = 32


class GluonEngine:
    """One worker's copy of ``net`` in training; subclasses add ``accumulate``.

    Args:
        net: initialised on ``ctx``.
        ctx: device.
        optimizer: BERTAdam.
        workers: the group this process belongs to.
        sum_names: of the running sums, in the order of the losses' vectors.
        use_kernels: norms and the optimiser's step by ``bort/gluon/kernels.cc``; for the CPU only.
        half_precision: the copy of ``net`` that computes in its place.
    """

    def __init__(
        self,
        net: HybridBlock,
        ctx: mx.Context,
        optimizer: OptimizerSettings,
        workers: Workers,
        sum_names: Sequence[str],
        use_kernels: bool,
        half_precision: HalfPrecision | None = None,
    ) -> None:
        self.rank, self.world_size = workers.rank, workers.world_size
        self._net, self._ctx, self._workers, self._sum_names = net, ctx, workers, tuple(sum_names)
        parameters = distinct_parameters(net)
        workers.broadcast(parameters)
        self._optimizer = ClippedBertAdam(parameters, optimizer, use_kernels)
        self._half_precision = half_precision
        if half_precision is not None:
            half_precision.refresh()
        self._micro_batches = 0
        self._gradients = list(self._optimizer.gradients.values())
        self._totals: list[mx.nd.NDArray] = []
        self._count = mx.nd.zeros((1,), ctx=ctx)
        self._gradient_norm = mx.nd.zeros((1,), ctx=ctx)
        # float64, because counts of tokens outgrow the 24 bits of float32's significand.
        self._sums = mx.nd.zeros((len(sum_names),), ctx=ctx, dtype="float64")
        self._updates = 0
        self._queue: deque[mx.nd.NDArray] = deque()
        # Positions that held a token, and all positions; counted here, since a batch is known before it is on the device.
        self._positions = np.zeros(2)

    @contextmanager
    def micro_batch(self, batch: Batch) -> Iterator[None]:
        """Around one forward and backward pass: the dropout of the batch's seed, and its gradient added to that of the update so far."""
        mx.random.seed(batch.seed, ctx=self._ctx)
        if self._micro_batches == 1:
            self._totals = self._totals or [mx.nd.empty(gradient.shape, ctx=self._ctx) for gradient in self._gradients]
            for total, gradient in zip(self._totals, self._gradients, strict=True):
                gradient.copyto(total)
        yield
        if self._half_precision is not None:
            self._gradients = self._half_precision.gradients()
        if self._micro_batches >= 1:
            for total, gradient in zip(self._totals, self._gradients, strict=True):
                mx.nd.elemwise_add(total, gradient, out=total)
        self._micro_batches += 1
        self._positions += batch.valid_length.sum(), batch.input_ids.size

    def count_loss(self, sums: mx.nd.NDArray) -> None:
        """Add a training batch's sums to those of the update and of the log."""
        self._count += sums[:1]
        self._add(sums)

    def _add(self, sums: mx.nd.NDArray) -> None:
        self._sums[: sums.shape[0]] += sums.astype("float64")

    def update(self, learning_rate: float) -> None:
        """Queue all-reduce, division by the count of the global batch, clipping and a BERTAdam step."""
        self.step(learning_rate, self.reduce())

    def reduce(self) -> list[mx.nd.NDArray]:
        """Queue the sum over all workers of the update's gradients, which are returned, and of its count."""
        gradients = self._gradients if self._micro_batches < 2 else self._totals
        if self._micro_batches == 0:
            # A worker without a micro-batch of its own still takes part in the sum.
            for gradient in gradients:
                gradient[:] = 0
        self._micro_batches = 0
        for name, gradient in zip(self._optimizer.parameters, gradients, strict=True):
            self._workers.sum_in_place(gradient, f"gradient.{name}")
        self._workers.sum_in_place(self._count, "count")
        return gradients

    def step(self, learning_rate: float, gradients: list[mx.nd.NDArray]) -> None:
        """Queue division by the count of the global batch, clipping and a BERTAdam step."""
        divisor = mx.nd.maximum(self._count, 1.0)
        if self._half_precision is None:
            norm = self._optimizer.step(learning_rate, gradients, divisor)
        else:
            norm = self._half_precision.adapt(self._optimizer.step(learning_rate, gradients, divisor * self._half_precision.scale))
            self._half_precision.refresh()
        self._gradient_norm += norm
        self._count[:] = 0
        self._updates += 1
        self._queue.append(norm)
        if len(self._queue) > _LONGEST_QUEUE:
            self._queue.popleft().wait_to_read()

    def drain(self) -> dict[str, float]:
        """Wait; sums over all workers since the last call, and measures of what every worker has alike.

        Besides the losses' sums: ``tokens`` and ``slots``, positions of training batches that held a token, and all of them; the number of
        ``updates`` and the sum of their ``gradient_norm``; ``parameter_norm`` as it is now.
        """
        sums = mx.nd.concat(self._sums, mx.nd.array(self._positions, ctx=self._ctx, dtype="float64"), dim=0)
        self._workers.sum_in_place(sums, "sums")
        drained = dict(zip((*self._sum_names, "tokens", "slots"), map(float, sums.asnumpy()), strict=True))
        drained |= {"updates": float(self._updates), "gradient_norm": float(self._gradient_norm.asscalar())}
        if self._half_precision is not None:
            drained |= self._half_precision.drain()
        drained["parameter_norm"] = float(self._optimizer.parameter_norm().asscalar())
        self._sums[:] = 0
        self._gradient_norm[:] = 0
        self._updates = 0
        self._positions[:] = 0
        return drained

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
        """Wait; parameters, moments under ``mean/<name>`` and ``variance/<name>``, and the loss scale if there is one."""
        scaler = {} if self._half_precision is None else self._half_precision.state()
        return self.parameters() | self._optimizer.state() | scaler

    def load_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Take parameters, and moments where there are any.

        Raises:
            BortError: if something is missing or has another shape.
        """
        set_arrays(self._net, {name: value for name, value in state.items() if "/" not in name}, self._ctx, "checkpoint")
        self._optimizer.load_state(state)
        if self._half_precision is not None:
            self._half_precision.load_state(state)


def to_device(ctx: mx.Context, array: np.ndarray) -> mx.nd.NDArray:
    """``array`` as float32 on ``ctx``, without waiting for what is queued there.

    ``mx.nd.array`` would wait for its turn in the queue of the CPU's worker, and so for all that was queued before.
    """
    return mx.nd.from_numpy(np.ascontiguousarray(array, dtype=np.float32)).as_in_context(ctx)
