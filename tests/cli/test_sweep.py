"""``bort finetune`` as a sweep: two seeds on test_data with a tiny encoder, gone on with, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def base(tmp_path_factory, repository, tokenizer):
    """Words of a fine-tuning on RTE with a tiny encoder at random."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "model.json").write_text(json.dumps(sizes))
    inputs = f"--task RTE --data_root {repository}/test_data --model {folder}/model.json --params none --vocab {folder}/vocab"
    return f"{inputs} --max_len 32 --epochs 1 --cache_dir none".split()


def finetune(base, *words, status=0):
    command = [sys.executable, "-m", "bort", "finetune", *base, *map(str, words)]
    result = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def outcomes(folder):
    results = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")}
    return {name: {key: value for key, value in result.items() if key != "seconds"} for name, result in results.items()}


def test_two_seeds_are_two_runs_with_a_report_and_more_may_come(base, tmp_path):
    printed = finetune(base, "--output_dir", tmp_path / "two", "--seeds", 0, 1, "--jobs", 2).stdout
    runs = outcomes(tmp_path / "two")
    assert runs.keys() == {"seed=0", "seed=1"}
    assert [runs[name]["settings"]["seed"] for name in sorted(runs)] == [0, 1]
    report = json.loads((tmp_path / "two/report.json").read_text())
    assert report["best"]["scores"] == {"0": runs["seed=0"]["score"], "1": runs["seed=1"]["score"]}
    assert report["headline"] in printed
    assert len(list((tmp_path / "two").glob("runs/*/best"))) == 1
    assert len(list((tmp_path / "two").glob("runs/*/predictions/RTE.tsv"))) == 2
    # A run of the sweep is what the same command without a sweep makes, whatever ran beside it.
    finetune(base, "--output_dir", tmp_path / "alone", "--seed", 1)
    alone = json.loads((tmp_path / "alone/result.json").read_text())
    assert {key: value for key, value in alone.items() if key != "seconds"} == runs["seed=1"]
    predictions = [folder / "predictions/RTE.tsv" for folder in (tmp_path / "alone", tmp_path / "two/runs/seed=1")]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()

    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "two").glob("runs/*/result.json")}
    finetune(base, "--output_dir", tmp_path / "two", "--seeds", 1, 2, "--jobs", 1)
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert outcomes(tmp_path / "two").keys() == {"seed=0", "seed=1", "seed=2"}
    assert json.loads((tmp_path / "two/report.json").read_text())["best"]["n"] == 3
    error = finetune(base, "--output_dir", tmp_path / "two", "--seeds", 1, "--max_gradient_norm", "0.5", status=2).stderr
    assert "the sweep there has max_gradient_norm its default, this one 0.5" in error


def test_a_grid_with_a_point_that_fails(base, tmp_path):
    (tmp_path / "grid.yaml").write_text("lr: [1e-3, 1e38]\nuse_scheduler: [false]\n")
    result = finetune(base, "--output_dir", tmp_path / "grid", "--grid", tmp_path / "grid.yaml", "--keep_models", "all", status=2)
    good, bad = "lr=1e-3,use_scheduler=false,seed=0", "lr=1e38,use_scheduler=false,seed=0"
    assert result.stderr.startswith(f"bort: error: 1 of 2 runs failed: {bad}; see log.txt")
    assert result.stderr.count("\n") == 1
    assert f"{bad}  failed: bort: error: " in result.stdout
    runs = outcomes(tmp_path / "grid")
    assert runs.keys() == {good}
    assert (runs[good]["settings"]["lr"], runs[good]["settings"]["use_scheduler"]) == (1e-3, False)
    report = json.loads((tmp_path / "grid/report.json").read_text())
    assert report["failed"].keys() == {bad}
    assert "1 of 2 runs complete, 1 failed" in (tmp_path / "grid/report.md").read_text()


WRONG = {
    "jobs without a sweep": ("--jobs 2", "are for sweeps; give --seeds or --grid too"),
    "a seed twice": ("--seeds 1 1", "--seeds: 1 is there twice"),
    "a negative seed": ("--seeds=-1", "--seeds: seed must be at least 0"),
    "no jobs": ("--seeds 1 --jobs 0", "--jobs must be at least 1"),
    "seed and seeds": ("--seeds 1 2 --seed 3", "--seed is given, and so are its values in the sweep"),
    "grid and option": ("--grid published --lr 1e-3", "--lr is given, and so are its values in the sweep"),
    "no such grid": ("--grid nowhere.yaml", "nowhere.yaml: No such file"),
    "no Ray there": ("--seeds 1 --ray 127.0.0.1:1", "--ray 127.0.0.1:1: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name, base, tmp_path):
    words, message = WRONG[name]
    if "--ray" in words:
        pytest.importorskip("ray", reason="Ray is not installed")
    result = finetune(base, "--output_dir", tmp_path / "out", *words.split(), status=2)
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert not list((tmp_path / "out").glob("runs/*"))
