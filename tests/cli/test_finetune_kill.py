"""Fine-tuning that is killed, by real processes: kill -9 at random moments, in training, while files are written and at the end.

Shown with ``-s``: a table of the kills.
"""

from __future__ import annotations

import json
import shutil
import subprocess

import numpy as np
import pytest

from ..real_runs import GIVING_WAY, REPOSITORY, assert_same_finetuning, bort_on, killed_when, one_thread, steps_recorded

STEPS = 78
OPTIONS = "--epochs 6 --batch_size 16 --lr 1e-3 --warmup_ratio 0.2 --max_len 48 --log_interval 4 --ckpt_interval 5"


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    """A vocabulary and a configuration, with dropout."""
    folder = tmp_path_factory.mktemp("finetune_kill")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(sizes))
    return folder


def start(folder, output):
    arguments = f"--task RTE --data_root test_data --model {folder}/config.json --params none --vocab {folder}/vocab {OPTIONS}"
    return subprocess.Popen(
        [*GIVING_WAY, *bort_on(1, "finetune", *arguments.split(), "--output_dir", folder / output, "--cache_dir", "none")],
        cwd=REPOSITORY, env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(folder, output):
    process = start(folder, output)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == 0, printed


# What is there when it is killed: a best model or a checkpoint half-written, the journal as at any time, and what comes at the end.
BEST, CHECKPOINT, ANY, ENDS = ".best*", ".checkpoint_*.partial", "metrics.jsonl", ("predictions", "result.json")


def test_killed_at_random_moments_it_ends_with_the_same_bits(folder):
    """A run that ends before a moment is caught, as on a fast machine, is compared too, and the next one is killed at that moment."""
    finish(folder, "straight")
    random, run, table = np.random.default_rng(5), folder / "killed", []

    def is_killed_at(name, target, pause=0.0):
        process = start(folder, "killed")

        def has_come():
            # What is half-written for the shortest time is looked for first.
            is_there = any(run.glob(name)) and steps_recorded(run) >= target
            return is_there and (name in ENDS or not (run / "result.json").exists())

        is_caught = killed_when(process, has_come, pause)
        assert process.returncode == (-9 if is_caught else 0)
        half_written = sorted(path.name for path in run.glob(".*") if path.name != ".run.lock")
        table.append((name, is_caught, steps_recorded(run), (run / "result.json").exists(), half_written))
        return is_caught

    # The best model first, since only the first epoch is sure to have a better one than those before.
    left = [BEST, ANY, CHECKPOINT]
    while left:
        # Each life gets further than the one before, and leaves room for the others.
        room = max(1, (STEPS - steps_recorded(run)) // (len(left) + 1))
        target = 0 if left[0] == BEST else steps_recorded(run) + int(random.integers(1, room + 1))
        if is_killed_at(left[0], target, pause=random.uniform(0.0, 0.05) if left[0] == ANY else 0.0):
            left.pop(0)
        else:
            assert_same_finetuning(run, folder / "straight")
            shutil.rmtree(run)
        assert len(table) < 20
    # These two may end before they are killed.
    for name in ENDS:
        is_killed_at(name, STEPS)
    finish(folder, "killed")
    assert_same_finetuning(run, folder / "straight")
    print("\nkilled when there was  killed  after step  complete  half-written")
    for name, is_caught, recorded, complete, half_written in table:
        print(f"{name:21}  {is_caught!s:6}  {recorded:10}  {complete!s:8}  {', '.join(half_written)}")
