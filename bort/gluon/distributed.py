"""This process's place among the Horovod workers of a run; one process alone needs no Horovod.

Horovod is joined only where a launcher has set the size of the group, so single-process commands, notebooks and tests run without it.
All-reduces are queued on MXNet's engine: they start as soon as their array is ready and overlap with whatever does not depend on it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import mxnet as mx

from bort.errors import BortError

_LAUNCHER_VARIABLES = ("HOROVOD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE")


@dataclass(frozen=True)
class Workers:
    """A group of workers and this process's number in it.

    Attributes:
        rank: number of this process, from 0.
        world_size: number of processes.
        local_rank: number of this process on its machine; the GPU it takes.
        horovod: the ``horovod.mxnet`` module, None in a group of one.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    horovod: Any = None

    def sum_in_place(self, array: mx.nd.NDArray, name: str) -> None:
        """Queue the replacement of ``array`` by its sum over all workers; ``name`` is the same on every worker."""
        if self.horovod is not None:
            self.horovod.allreduce_(array, average=False, name=name)

    def broadcast(self, parameters: Mapping[str, mx.gluon.Parameter]) -> None:
        """Give every worker the parameter values of worker 0."""
        if self.horovod is not None:
            self.horovod.broadcast_parameters(dict(parameters), root_rank=0)

    def device(self, use_gpu: bool) -> mx.Context:
        """The device of this worker: the CPU, or the GPU of its local rank.

        Raises:
            BortError: if MXNet finds no such GPU.
        """
        if not use_gpu:
            return mx.cpu()
        if mx.context.num_gpus() <= self.local_rank:
            raise BortError(
                f"worker {self.rank} needs GPU {self.local_rank}, MXNet finds {mx.context.num_gpus()}; leave out --gpu, "
                "start fewer workers, or install MXNet for your GPU: see the README's troubleshooting"
            )
        return mx.gpu(self.local_rank)


def join_workers() -> Workers:
    """Join the group that the launcher describes, or be alone.

    Raises:
        BortError: if Horovod is not installed, or knows of another number of workers than the launcher started.
    """
    sizes = [os.environ[variable] for variable in _LAUNCHER_VARIABLES if variable in os.environ]
    if not sizes:
        return Workers()
    # Fusion gathers gradients by the time they are ready, and so adds up three and more workers in an order that changes from run to run.
    os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")
    try:
        import horovod.mxnet as horovod
    except ImportError as error:
        raise BortError(
            f"started as one of {sizes[0]} workers, but Horovod cannot be imported ({error}); run scripts/setup_env.sh"
        ) from None
    horovod.init()
    if str(horovod.size()) != sizes[0]:
        # An mpirun, say, and a Horovod that was built for Gloo: every process would train alone, into the same folder.
        raise BortError(f"the launcher started {sizes[0]} workers, Horovod sees {horovod.size()}; start them with horovodrun --gloo -np N")
    return Workers(horovod.rank(), horovod.size(), horovod.local_rank(), horovod)
