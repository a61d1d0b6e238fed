"""Fine-tuning on two Horovod workers: real processes, the scores of one, and only the first one writes."""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from bort.cli import main
from bort.parameters import read_parameters
from bort.training.finetuning_result import read_result
from bort.training.journal import read_metrics

from ..real_runs import REPOSITORY, assert_only_worker_0_printed, bort_on, one_thread


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer, blank_curves):
    """A vocabulary and a configuration."""
    folder = tmp_path_factory.mktemp("finetune_workers")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


def options_of(folder, output, own):
    begin = f"--data_root {REPOSITORY}/test_data --model {folder}/config.json --params none --vocab {folder}/vocab --early_stop 0"
    same = f"--output_dir {folder / output} --cache_dir {folder}/cache --dropout 0 --lr 3e-3 --warmup_ratio 0.2"
    return [*begin.split(), *same.split(), *own.split()]


def on_two(command, status=0):
    """Run a command that begins two workers; returns what was printed, which only worker 0 may do."""
    environment = one_thread(NUM_WORKERS="2")
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert (result.returncode == 0) == (status == 0), result.stdout + result.stderr
    if status == 0:
        assert_only_worker_0_printed(result.stdout)
    return result.stdout + result.stderr


def finetune_on_two(folder, output, own, status=0):
    return on_two(bort_on(2, "finetune", "--task", "RTE", *options_of(folder, output, own)), status)


ON_TWO = "--epochs 3 --batch_size 8 --ckpt_interval 4 --keep_last 0"


@pytest.fixture(scope="module")
def two(folder):
    """A run on two workers, begun by the published script."""
    printed = on_two(["scripts/run_finetune.sh", "TEST1", *options_of(folder, "two", ON_TWO)])
    assert "(2 workers × 1 × 8)" in printed
    return folder / "two"


def assert_alike(one, two):
    first, second = (read_parameters(run / "best" / "bort.params") for run in (one, two))
    difference = max(float(np.abs(first[name] - second[name]).max()) for name in first)
    print(f"\n{two.name}: parameters differ by at most {difference:.1e} from those of {one.name}")
    assert difference < 1e-5
    for name in (path.name for path in (one / "predictions").iterdir()):
        assert (two / "predictions" / name).read_bytes() == (one / "predictions" / name).read_bytes()
    results = [json.loads((run / "result.json").read_text()) | {"seconds": 0} for run in (one, two)]
    for result in results:
        del result["settings"]["batch_size"], result["settings"]["accumulate"]
    assert results[0] == results[1]
    entries = [[entry for entry in read_metrics(run) if entry["kind"] == "eval"] for run in (one, two)]
    assert entries[0] == entries[1]
    assert len(entries[0]) == read_result(one).epochs


def test_two_workers_of_8_are_one_of_16(folder, two):
    """200 rows in updates of 16 leave 8 to the last of an epoch, and 20 test rows are one batch, so one worker has none.

    That one of 16 is two micro-batches of 8, ``training/test_finetune.py`` shows.
    """
    assert main(["finetune", "--task", "RTE", *options_of(folder, "one", "--epochs 3 --batch_size 16")]) == 0
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert read_result(two).settings["global_batch"] == 16
    assert_alike(folder / "one", two)
    # What is complete is complete for any number of workers.
    assert "complete already" in finetune_on_two(folder, "one", "--epochs 3 --batch_size 8")


def test_two_workers_resume_and_end_together(folder, two):
    resumed = folder / "resumed"
    shutil.copytree(two, resumed)
    finetune_on_two(folder, "resumed", f"{ON_TWO} --resume {resumed}/checkpoint_0000012")
    entries = [[entry for entry in read_metrics(run) if entry["kind"] == "eval"] for run in (two, resumed)]
    assert entries[0] == entries[1]
    assert (resumed / "best" / "bort.params").read_bytes() == (two / "best" / "bort.params").read_bytes()


def test_divergence_on_two_workers_is_said_and_ends_both(folder):
    assert "not finite by step" in finetune_on_two(folder, "diverged", "--epochs 1 --lr 1e30", status=2)
    assert not (folder / "diverged" / "result.json").exists()
