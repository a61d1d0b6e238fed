"""Where the time of a pre-training update goes: the engine's own calls, with a wait after each.

The waits take away the overlap that a real update has, so the stages add up to a little more than one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import mxnet as mx

from bort.engine import PretrainingBatch
from bort.gluon.pretraining import GluonPretrainingEngine

STAGES = ("teacher", "student forward", "loss", "backward", "all-reduce", "optimiser", "logging")


def time_stages(engine: GluonPretrainingEngine, batch: PretrainingBatch, learning_rate: float) -> dict[str, float]:
    """Seconds of each stage of one update with ``batch``, which trains the student like any other."""
    seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(name: str) -> Iterator[None]:
        mx.nd.waitall()
        start = time.perf_counter()
        yield
        mx.nd.waitall()
        seconds[name] += time.perf_counter() - start

    inputs = engine.inputs(batch)
    with stage("teacher"):
        teacher_logits = engine.teacher_logits(inputs)
    with engine.micro_batch(batch):
        with stage("student forward"):
            embedded, logits = engine.forward(inputs)
        with stage("loss"):
            sums, gradient = engine.training_loss(logits, inputs, teacher_logits)
        with stage("backward"):
            engine.backward(inputs, embedded, logits, gradient)
    engine.count_loss(sums)
    with stage("all-reduce"):
        gradients = engine.reduce()
    with stage("optimiser"):
        engine.step(learning_rate, gradients)
    with stage("logging"):
        engine.drain()
    return seconds
