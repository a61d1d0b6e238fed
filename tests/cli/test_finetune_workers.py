"""Fine-tuning on two Horovod workers: real processes, the scores of one, and only the first one writes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bort.parameters import read_parameters
from bort.training.finetuning_result import read_result
from bort.training.journal import read_metrics

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A vocabulary and a configuration."""
    folder = tmp_path_factory.mktemp("finetune_workers")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


def finetune(folder, task, output, workers, options, status=0):
    command = [sys.executable, "-m", "bort", "finetune", "--task", task, "--model", str(folder / "config.json"), "--params", "none"]
    command += ["--vocab", str(folder / "vocab"), "--data_root", "test_data", "--output_dir", str(folder / output)]
    command += ["--cache_dir", str(folder / "cache"), "--dropout", "0", "--lr", "3e-3", "--warmup_ratio", "0.2", *options.split()]
    launcher = ["horovodrun", "--disable-cache", "--gloo-timeout-seconds", "240", "--gloo", "-np", str(workers)] if workers > 1 else []
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        [*launcher, *command], cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert (result.returncode == 0) == (status == 0), result.stdout + result.stderr
    if workers > 1 and status == 0:
        # horovodrun says before each line which worker printed it.
        assert {line.split(":", 1)[0] for line in result.stdout.splitlines() if line} <= {"[0]<stdout>"}, result.stdout
    return folder / output, result.stdout + result.stderr


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


def test_two_workers_of_8_are_one_of_16_and_of_two_micro_batches_of_8(folder):
    """200 rows in updates of 16 leave 8 to the last of an epoch, so one worker has none."""
    one, _ = finetune(folder, "RTE", "one", 1, "--epochs 3 --batch_size 16")
    micro, _ = finetune(folder, "RTE", "micro-batches", 1, "--epochs 3 --batch_size 8 --accumulate 2")
    two, printed = finetune(folder, "RTE", "two", 2, "--epochs 3 --batch_size 8")
    assert "(2 workers × 1 × 8)" in printed
    assert len(list((two / "tensorboard").iterdir())) == 1
    assert_alike(one, micro)
    assert_alike(one, two)
    # What is complete is complete for any number of workers.
    _, printed = finetune(folder, "RTE", "one", 2, "--epochs 3 --batch_size 8")
    assert "complete already" in printed


def test_more_workers_than_rows_of_a_batch_answer_each_row_once(folder):
    """Each of MNLI's two dev segments is one batch, so one of the workers has nothing to label."""
    options = "--training_steps 3 --early_stop 1 --dev_batch_size 64 --batch_size "
    one, two = (finetune(folder, "MNLI", f"mnli {workers}", workers, options + str(8 // workers))[0] for workers in (1, 2))
    assert_alike(one, two)


def test_two_workers_go_on_and_end_together(folder):
    options = "--epochs 2 --batch_size 8 --ckpt_interval 4 --keep_last 0"
    whole, _ = finetune(folder, "RTE", "whole", 2, options)
    shutil.copytree(whole, folder / "from")
    shorter, _ = finetune(folder, "RTE", "from", 2, f"{options} --resume {folder}/from/checkpoint_0000012")
    entries = [[entry for entry in read_metrics(run) if entry["kind"] == "eval"] for run in (whole, shorter)]
    assert entries[0] == entries[1]
    assert (shorter / "best" / "bort.params").read_bytes() == (whole / "best" / "bort.params").read_bytes()


def test_divergence_on_two_workers_is_said_and_ends_both(folder):
    run, printed = finetune(folder, "RTE", "diverged", 2, "--epochs 1 --lr 1e30", status=2)
    assert "not finite by step" in printed
    assert not (run / "result.json").exists()


def test_the_published_script_takes_a_number_of_workers(folder):
    environment = os.environ | {"NUM_WORKERS": "2", "OUTPUT_DIR": str(folder / "script")}
    options = ["--model", str(folder / "config.json"), "--params", "none", "--vocab", str(folder / "vocab"), "--epochs", "1"]
    command = ["scripts/run_finetune.sh", "TEST1", *options, "--cache_dir", "none"]
    result = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=180, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert read_result(folder / "script").settings["global_batch"] == 16
    assert "(2 workers × 1 × 8)" in result.stdout
