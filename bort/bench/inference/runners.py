"""A row, loaded: what turns ids into hidden states or logits, NumPy in and NumPy out, and what cuts its texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.bench.inference.cases import Batch
from bort.bench.inference.models import CONFIG_FILE, GLUON_FILE, files_of
from bort.bench.inference.rows import CLASSES, Row
from bort.config import BortConfig
from bort.engine import ClassificationBatch

Runner = Callable[[Batch], NDArray[np.float32]]
_PRECISIONS = {"fp32": "float32", "bf16": "bfloat16", "int8": None}


def open_runner(row: Row, folder: Path, threads: int) -> tuple[Runner, str]:
    """Load a row.

    Args:
        folder: with its model's files.
        threads: to compute with; Gluon's were set by ``OMP_NUM_THREADS`` when the process began.

    Returns:
        What runs a batch; hidden states (B, T, hidden_size), or logits (B, classes). And the precision of what is not INT8 in it.

    Raises:
        BortError: if its runtime is not installed.
    """
    if row.runtime == "gluon":
        return open_gluon(folder, row.is_classifier), "float32"
    if row.runtime == "torch":
        from bort.bench.inference.peers import load_peer, run

        model = load_peer(folder, row.model, threads)
        return lambda batch: run(model, batch), "float32"
    from bort.export.runtimes import open_session

    # INT8 comes as it is deployed: OpenVINO computes the rest in bfloat16 where the CPU does.
    session = open_session(files_of(row, folder)[0], row.runtime, _PRECISIONS[row.precision], threads)
    output = "logits" if row.is_classifier else "last_hidden_state"
    return lambda batch: session.run(batch)[output], session.precision


def open_gluon(folder: Path, is_classifier: bool) -> Runner:
    """Bort in MXNet, as ``bort predict`` runs it; of an encoder the hidden states of all positions."""
    from bort.gluon.distributed import Workers
    from bort.gluon.engine import to_device
    from bort.gluon.finetuning import load_predictor
    from bort.gluon.model import get_bort_model

    config, ctx = BortConfig.from_json(folder / CONFIG_FILE), Workers().device(False)
    if is_classifier:
        predictor = load_predictor(config, CLASSES, folder / GLUON_FILE)
        return lambda batch: predictor.predict(_rows(batch))
    net, _ = get_bort_model(config, params=folder / GLUON_FILE, use_decoder=False)

    def encode(batch: Batch) -> NDArray[np.float32]:
        hidden: NDArray[np.float32] = net(*(to_device(ctx, array) for array in (batch["input_ids"], _lengths(batch)))).asnumpy()
        return hidden

    return encode


def _rows(batch: Batch) -> ClassificationBatch:
    nothing = np.zeros(len(batch["input_ids"]), dtype=np.float32)
    return ClassificationBatch(batch["input_ids"].astype(np.int32), _lengths(batch), nothing, nothing)


def _lengths(batch: Batch) -> NDArray[np.int32]:
    lengths: NDArray[np.int32] = batch["attention_mask"].sum(axis=1, dtype=np.int32)
    return lengths
