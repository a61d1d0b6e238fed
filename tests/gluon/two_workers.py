"""A worker of the tests in test_distributed.py: trains three steps on its rows of a fixed batch and writes what it has."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bort import get_bort_model
from bort.engine import PretrainingBatch
from bort.gluon.distributed import join_workers
from bort.gluon.pretraining import GluonPretrainingEngine
from bort.settings import DistillationSettings, OptimizerSettings
from tests.gluon.conftest import config, make_teacher, random_batch


def main(output: Path) -> None:
    workers = join_workers()
    # Each worker draws other weights; the engine must give all of them those of worker 0.
    student, _ = get_bort_model(config(), seed=workers.rank)
    engine = GluonPretrainingEngine(
        student, workers.device(use_gpu=False), OptimizerSettings(), make_teacher(), DistillationSettings(), workers
    )
    for step in range(3):
        whole = random_batch(step, batch_size=8)
        rows = slice(workers.rank * 8 // workers.world_size, (workers.rank + 1) * 8 // workers.world_size)
        fields = ("input_ids", "valid_length", "masked_positions", "masked_labels", "masked_weights")
        engine.accumulate(PretrainingBatch(*(getattr(whole, name)[rows] for name in fields), seed=whole.seed))
        engine.update(1e-3)
    sums = engine.drain()
    engine.evaluate(random_batch(100 + workers.rank))
    sums |= {f"evaluation_{name}": value for name, value in engine.drain().items()}
    np.savez(output / f"rank{workers.rank}_of_{workers.world_size}.npz", **engine.state(), **{f"sum:{k}": v for k, v in sums.items()})


main(Path(sys.argv[1]))
