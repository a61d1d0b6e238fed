"""A worker of the tests in test_distributed.py: trains three steps on its rows of fixed batches and writes what it has."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from bort import get_bort_model
from bort.engine import PretrainingBatch
from bort.gluon.distributed import Workers, join_workers
from bort.gluon.pretraining import GluonPretrainingEngine
from bort.settings import DistillationSettings, OptimizerSettings
from tests.gluon.conftest import config, make_teacher, random_batch
from tests.gluon.labelled_rows import build_classifier, labelled_rows, part


def main(output: Path) -> None:
    workers = join_workers()
    pretrain(workers, output)
    finetune(workers, output)


def pretrain(workers: Workers, output: Path) -> None:
    # Each worker draws other weights; the engine must give all of them those of worker 0.
    student, _ = get_bort_model(config(), seed=workers.rank)
    engine = GluonPretrainingEngine(
        student, workers.device(use_gpu=False), OptimizerSettings(), make_teacher(), DistillationSettings(), workers
    )
    for step in range(3):
        whole = random_batch(step, batch_size=8)
        rows = own_rows(workers, 8)
        fields = ("input_ids", "valid_length", "masked_positions", "masked_labels", "masked_weights")
        engine.accumulate(PretrainingBatch(*(getattr(whole, name)[rows] for name in fields), seed=whole.seed))
        engine.update(1e-3)
    sums = engine.drain()
    engine.evaluate(random_batch(100 + workers.rank))
    sums |= {f"evaluation_{name}": value for name, value in engine.drain().items()}
    np.savez(output / f"rank{workers.rank}_of_{workers.world_size}.npz", **engine.state(), **{f"sum:{k}": v for k, v in sums.items()})


def finetune(workers: Workers, output: Path) -> None:
    engine = build_classifier(seed=workers.rank)
    for step in range(3):
        batch = labelled_rows(step, batch_size=16)
        if step == 1:
            # The second of two workers has rows, but none that counts.
            batch.weights[8:] = 0
        engine.accumulate(part(batch, own_rows(workers, 16)))
        engine.update(1e-3)
    results = {f"sum:{name}": value for name, value in engine.drain().items()}
    rows = labelled_rows(3, batch_size=37)
    mine = own_rows(workers, 37)
    logits = np.zeros((37, 3), np.float32)
    logits[mine] = engine.predict(part(rows, mine))
    results |= {"logits": engine.sum_over_workers(logits), "all_logits": engine.predict(rows)}
    results["ranks"] = engine.sum_over_workers(np.full((2, 1, 3), workers.rank + 0.1, np.float32))
    results["scalar"] = engine.sum_over_workers(np.float32(workers.rank + 1))
    results["nothing"] = engine.sum_over_workers(np.zeros((0, 3), np.float32))
    np.savez(output / f"classifier{workers.rank}_of_{workers.world_size}.npz", **engine.state(), **results)


def own_rows(workers: Workers, count: int) -> slice:
    return slice(workers.rank * count // workers.world_size, (workers.rank + 1) * count // workers.world_size)


main(Path(sys.argv[1]))
