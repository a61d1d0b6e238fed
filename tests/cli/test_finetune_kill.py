"""Fine-tuning that is killed, by real processes: kill -9 at random moments, in training, while files are written and at the end.

Shown with ``-s``: a table of the kills.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bort.training.journal import read_metrics

MEASURED = {"rows_per_second", "seconds", "memory_mb"}
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
        [sys.executable, "-m", "bort", "finetune", *arguments.split(), "--output_dir", str(folder / output), "--cache_dir", "none"],
        cwd=Path(__file__).resolve().parents[2], env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def finish(folder, output):
    process = start(folder, output)
    printed, _ = process.communicate(timeout=120)
    assert process.returncode == 0, printed
    return printed


def steps_recorded(run):
    try:
        return json.loads((run / "metrics.jsonl").read_text().split("\n")[-2])["step"]
    except (OSError, IndexError):
        return 0


def journal(run):
    return [{name: value for name, value in entry.items() if name not in MEASURED} for entry in read_metrics(run)]


def assert_same(run, expected):
    """Every byte but for the card, which says how long it took; all of the journal and of the result that no clock measured."""
    assert {path.name for path in run.iterdir()} == {path.name for path in expected.iterdir()}
    for name in ("best", "predictions"):
        files = {path.name for path in (expected / name).iterdir()}
        assert {path.name for path in (run / name).iterdir()} == files
        for file in files - {"README.md"}:
            assert (run / name / file).read_bytes() == (expected / name / file).read_bytes(), f"{name}/{file}"
    assert (run / "confusion_matrix.png").read_bytes() == (expected / "confusion_matrix.png").read_bytes()
    assert journal(run) == journal(expected)
    results = [json.loads((folder / "result.json").read_text()) | {"seconds": 0} for folder in (run, expected)]
    assert results[0] == results[1]


# What to wait for before a kill: an update beyond those on record, a time, or a name, which may be that of something half-written.
HALF_WRITTEN = ".checkpoint_*.partial"
MOMENTS, ENDS = ("update", HALF_WRITTEN, ".best*", "time", HALF_WRITTEN), ("predictions", "result.json")


def has_come(moment, run, target, end):
    """Whether the moment of a kill is here; what is half-written may be whole before anyone looks, so there is a last update for it."""
    if moment == "update":
        return steps_recorded(run) >= target
    if moment == "time":
        return time.monotonic() > end
    return any(run.glob(moment)) or (moment not in ENDS and steps_recorded(run) >= target + 15)


def test_killed_at_random_moments_it_ends_with_the_same_bits(folder):
    finish(folder, "straight")
    random, run, table = np.random.default_rng(5), folder / "killed", []

    def kill_at(moment):
        target, end = steps_recorded(run) + int(random.integers(1, 10)), time.monotonic() + random.uniform(1.0, 6.0)
        process = start(folder, "killed")
        while not has_come(moment, run, target, end) and process.poll() is None:
            time.sleep(0.0005)
        process.kill()
        process.communicate(timeout=60)
        half_written = sorted(path.name for path in run.glob(".*") if path.name != ".run.lock")
        table.append((moment, process.returncode, steps_recorded(run), (run / "result.json").exists(), half_written))

    for moment in MOMENTS:
        kill_at(moment)
    while not any(half_written for *_, half_written in table) and len(table) < 8:
        kill_at(HALF_WRITTEN)
    assert not any(complete for *_, complete, _ in table)
    for moment in ENDS:
        kill_at(moment)
    finish(folder, "killed")
    assert_same(run, folder / "straight")
    print("\nkilled when there was   status  after step  complete  half-written")
    for moment, status, recorded, complete, half_written in table:
        print(f"{moment:22}{status:8}  {recorded:10}  {complete!s:8}  {', '.join(half_written)}")
    assert any(half_written for *_, half_written in table)
    # The last two may have ended before the kill.
    assert all(status == -9 for _, status, *_ in table[:-2])
