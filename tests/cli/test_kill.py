"""Pre-training that is killed, by real processes: kill -9 at random moments, of one worker of two, and disks that are full.

Shown with ``-s``: a table of the kills, and how far runs on another number of workers are apart.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import time

import numpy as np
import psutil
import pytest

from bort.cli import main
from bort.parameters import read_parameters

from ..real_runs import GIVING_WAY, REPOSITORY, assert_same_files, bort_on, journal, killed_when, one_thread, steps_recorded

STEPS = 25
OPTIONS = f"--teacher_model none --num_steps {STEPS} --log_interval 1 --eval_interval 4 --ckpt_interval 3 --lr 1e-3"
CAN_MOUNT = subprocess.run(["unshare", "-rm", "mount", "-t", "tmpfs", "tmpfs", "/mnt"], capture_output=True, check=False).returncode == 0


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository, tokenizer):
    """Vocabulary, shards and two configurations: with dropout, and without, since dropout depends on the number of workers."""
    folder = tmp_path_factory.mktemp("kill")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 64, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    for name, dropout in (("config", 0.1), ("no_dropout", 0.0)):
        fields = sizes | {"vocab_size": len(tokenizer.vocab), "hidden_dropout_prob": dropout}
        (folder / f"{name}.json").write_text(json.dumps(fields))
    for part in ("corpus", "heldout"):
        source = ["--input", str(repository / "test_data" / part), "--vocab", str(folder / "vocab"), "--max_seq_length", "32"]
        assert main(["data", *source, "--output", str(folder / part)]) == 0
    return folder


@pytest.fixture(scope="module")
def straight(folder):
    """A run that nothing interrupts."""
    finish(folder, "straight")
    return folder / "straight"


def start(folder, output, options="", workers=1, config="config", **popen):
    """Start ``bort pretrain`` on so many workers, with 8 sequences an update."""
    inputs = f"--data {folder}/corpus --data_eval {folder}/heldout --vocab {folder}/vocab --model {folder}/{config}.json"
    arguments = f"{inputs} {OPTIONS} --batch_size {8 // workers} --output_dir {folder / output} {options}"
    return subprocess.Popen(
        [*popen.pop("prefix", ()), *bort_on(workers, "pretrain", *arguments.split())],
        cwd=REPOSITORY, env=one_thread(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **popen,
    )  # fmt: skip


def finish(folder, output, options="", workers=1, config="config", status=0, **popen):
    """Run to the end; returns what was printed."""
    process = start(folder, output, options, workers, config, **popen)
    printed, _ = process.communicate(timeout=300)
    assert process.returncode == status, printed
    return printed


def newest_checkpoint(run):
    return max((int(path.name.removeprefix("checkpoint_")) for path in run.glob("checkpoint_*")), default=0)


def assert_same(run, expected):
    """Every byte of the last checkpoint, the model and the best model; every entry of the journal but for what a clock measured."""
    assert_same_files(run, expected, f"checkpoint_{STEPS:07d}", "model", "best")
    assert journal(run) == journal(expected)
    assert not [path.name for path in run.iterdir() if path.name.endswith(".partial") or path.name.startswith(".best")]


def test_killed_at_random_moments_it_ends_with_the_same_bits(folder, straight):
    """A run that ends before a moment is caught, as on a fast machine, is compared too, and the next one is killed at that moment."""
    random, run, table = np.random.default_rng(2), folder / "killed", []
    left = ["a checkpoint half-written", "any", "a checkpoint half-written", "any"]
    while left:
        # Beyond what stands in the record already, so that each life gets further than the one before, and leaves room for the others.
        room = max(1, (STEPS - steps_recorded(run)) // (len(left) + 1))
        target = steps_recorded(run) + int(random.integers(1, room + 1))
        is_writing = left[0] == "a checkpoint half-written"

        def has_come():
            is_there = not is_writing or any(run.glob(".checkpoint_*.partial"))  # noqa: B023
            return is_there and target <= steps_recorded(run) < STEPS  # noqa: B023

        process = start(folder, "killed", "--keep_last 2", prefix=GIVING_WAY)
        if killed_when(process, has_come, pause=0.0 if is_writing else random.uniform(0.0, 0.05)):
            table.append((left.pop(0), steps_recorded(run), newest_checkpoint(run), any(run.glob(".checkpoint_*.partial"))))
        else:
            assert process.returncode == 0
            assert_same(run, straight)
            shutil.rmtree(run)
            table.append(("missed", STEPS, STEPS, False))
        assert len(table) < 20
    finish(folder, "killed", "--keep_last 2")
    assert_same(run, straight)
    print("\nkilled at                  after step  resumes from  a checkpoint was being written")
    for moment, recorded, checkpoint, writing in table:
        print(f"{moment:25}  {recorded:10}  {checkpoint:12}  {'yes' if writing else 'no'}")
    print(f"then to step {STEPS}: every byte of parameters, moments and best model as in a run that was never killed")


def test_with_one_of_two_workers_killed_it_ends_with_the_same_bits(folder):
    finish(folder, "two", workers=2)
    process = start(folder, "two_killed", workers=2)
    run, victims = folder / "two_killed", []
    while steps_recorded(run) < 8 or not victims:
        assert process.poll() is None, process.stdout.read()
        if not victims and steps_recorded(run):
            children = psutil.Process(process.pid).children(recursive=True)
            bort = [child for child in children if child.cmdline()[1:3] == ["-m", "bort"]]
            victims = [child.pid for child in bort if child.environ().get("HOROVOD_RANK") == "1"]
        time.sleep(0.0005)
    (victim,) = victims
    os.kill(victim, signal.SIGKILL)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode != 0, printed
    assert not (run / "model").exists()
    checkpoint = newest_checkpoint(run)
    assert 6 <= checkpoint < STEPS
    print(f"\nworker 1 of 2 killed after step {steps_recorded(run)}; both resume from step {checkpoint}")
    finish(folder, "two_killed", workers=2)
    assert_same(run, folder / "two")


def test_a_run_resumes_with_another_number_of_workers(folder):
    """From one worker to two and back to one, at the default learning rate, without dropout."""
    options = "--lr 1e-4 --keep_last 0"
    finish(folder, "alone", options, config="no_dropout")
    finish(folder, "one_two", f"{options} --resume {folder}/alone/checkpoint_0000006", workers=2, config="no_dropout")
    finish(folder, "one_two_one", f"{options} --resume {folder}/one_two/checkpoint_0000015", config="no_dropout")
    expected = read_parameters(folder / "alone" / "model" / "bort.params")
    for output in ("one_two", "one_two_one"):
        found = read_parameters(folder / output / "model" / "bort.params")
        difference = max(float(np.abs(found[name] - expected[name]).max()) for name in expected)
        print(f"\n{output}: parameters differ by at most {difference:.1e} from those of one worker throughout")
        assert difference < 1e-6
    assert newest_checkpoint(folder / "one_two_one") == STEPS


@pytest.mark.skipif(not CAN_MOUNT, reason="this system lets nobody but root mount a small disk")
def test_a_full_disk_leaves_the_last_checkpoint_and_says_so(folder, straight):
    """A disk of its own, in a name space of its own; it is enlarged between the first run and the second."""
    disk = folder / "disk"
    disk.mkdir()
    size = sum(path.stat().st_size for path in (straight / f"checkpoint_{STEPS:07d}").iterdir())
    script = f"""
        mount -t tmpfs -o size={int(size * 3.5)} tmpfs {disk}
        "$@"; echo "status $?"
        cp -r {disk}/run {folder}/full
        mount -o remount,size={size * 40} {disk}
        "$@" && cp -r {disk}/run {folder}/enlarged
    """
    printed = finish(folder, "disk/run", "--keep_last 0", prefix=("unshare", "-rm", "sh", "-c", script, "sh"))
    lines = printed.split("status 2\n")[0].splitlines()
    checkpoint = newest_checkpoint(folder / "full")
    assert 3 <= checkpoint < STEPS
    errors = [line for line in lines if not line.startswith(("step", "student", "teacher", "data", "run"))]
    print("\n" + "\n".join(errors))
    assert len(errors) == 1
    path = f"{disk}/run/checkpoint_{checkpoint + 3:07d}: cannot be written: No space left on device"
    assert errors[0].startswith(f"bort: error: {path}; the last checkpoint is {disk}/run/checkpoint_{checkpoint:07d}; ")
    assert_same(folder / "enlarged", straight)


def test_a_file_that_may_not_grow_leaves_the_last_checkpoint_and_says_so(folder, straight):
    """The same where no disk can be mounted: the system refuses to let the file of the moments grow."""
    run = folder / "limited"
    shutil.copytree(straight, run)
    shutil.rmtree(run / f"checkpoint_{STEPS:07d}")
    shutil.rmtree(run / "model")
    limit = (run / "checkpoint_0000024" / "0000024.states.safetensors").stat().st_size - 1
    printed = finish(folder, "limited", status=2, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    expected = (
        f"bort: error: {run}/checkpoint_0000025: cannot be written: File too large; the last checkpoint is {run}/checkpoint_0000024; "
    )
    assert printed.splitlines()[-1].startswith(expected), printed
    finish(folder, "limited")
    assert_same(run, straight)
