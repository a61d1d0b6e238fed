"""A fine-tuned classifier, for the verbs that take one."""

from __future__ import annotations

from pathlib import Path

import pytest

from bort import BortConfig
from bort.model_directory import TrainedTask, write_model_directory
from bort.settings import OptimizerSettings
from bort.tasks import get_task


@pytest.fixture(scope="session")
def classifier(tmp_path_factory, tokenizer) -> Path:
    """Model folder of a tiny classifier of RTE, with random weights, as bort finetune leaves it in best/."""
    from bort.gluon.finetuning import build_engine

    task, folder = get_task("RTE"), tmp_path_factory.mktemp("classifier") / "best"
    config = BortConfig(
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )
    engine = build_engine(config, task.num_classes, task.is_regression, 0.1, OptimizerSettings(), 0, None)
    write_model_directory(folder, config, engine.parameters(), tokenizer, TrainedTask(task.name, task.labels, 48))
    return folder
