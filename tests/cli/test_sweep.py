"""``bort finetune`` as a sweep: a grid on test_data with a tiny encoder, resumed, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest

from bort.cli import main

ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def base(tmp_path_factory, repository, tokenizer):
    """Words of a fine-tuning on RTE with a tiny encoder at random."""
    folder = tmp_path_factory.mktemp("model")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "model.json").write_text(json.dumps(sizes))
    inputs = f"--task RTE --data_root {repository}/test_data --model {folder}/model.json --params none --vocab {folder}/vocab"
    return f"{inputs} --max_len 32 --training_steps 14 --cache_dir none".split()


def finetune(base, *words, status=0):
    command = [sys.executable, "-m", "bort", "finetune", *base, *map(str, words)]
    result = subprocess.run(command, env=ONE_THREAD, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def outcomes(folder):
    results = {path.parent.name: json.loads(path.read_text()) for path in folder.glob("runs/*/result.json")}
    return {name: {key: value for key, value in result.items() if key != "seconds"} for name, result in results.items()}


@pytest.fixture(scope="module")
def finished(base, tmp_path_factory):
    """Folder of a sweep of two runs at a time, and what it printed."""
    folder = tmp_path_factory.mktemp("sweep")
    (folder / "grid.yaml").write_text("batch_size: [8, 16]\nlr: [1e-3]\nuse_scheduler: [false]\n")
    words = ("--output_dir", folder / "out", "--grid", folder / "grid.yaml", "--seeds", 1, "--jobs", 2)
    return folder / "out", finetune(base, *words).stdout


def test_a_sweep_is_the_runs_of_its_points_with_a_report(base, finished, tmp_path):
    folder, printed = finished
    runs = outcomes(folder)
    assert runs.keys() == {"batch_size=8,seed=1", "batch_size=16,seed=1"}
    # Both are 14 updates, which are more epochs of the larger ones; that the settings differ so far keeps nobody from comparing them.
    varied = ("batch_size", "global_batch", "epochs", "seed", "lr", "use_scheduler")
    assert [[run["settings"][name] for name in varied] for _, run in sorted(runs.items())] == [
        [16, 16, 2, 1, 1e-3, False],
        [8, 8, 1, 1, 1e-3, False],
    ]
    report = json.loads((folder / "report.json").read_text())
    assert {row["setting"]["batch_size"]: row["scores"] for row in report["settings"]} == {
        size: {"1": runs[f"batch_size={size},seed=1"]["score"]} for size in (8, 16)
    }
    assert report["headline"] in printed
    assert len(list(folder.glob("runs/*/best"))) == 1
    assert len(list(folder.glob("runs/*/predictions/RTE.tsv"))) == 2
    # A run of the sweep is what the same command without a sweep makes, whatever ran beside it.
    finetune(base, "--output_dir", tmp_path, "--seed", 1, "--lr", "1e-3", "--no-use_scheduler", "--batch_size", 8)
    alone = json.loads((tmp_path / "result.json").read_text())
    assert {key: value for key, value in alone.items() if key != "seconds"} == runs["batch_size=8,seed=1"]
    predictions = [run / "predictions/RTE.tsv" for run in (tmp_path, folder / "runs/batch_size=8,seed=1")]
    assert predictions[0].read_bytes() == predictions[1].read_bytes()


def test_more_points_may_come_one_of_which_fails(base, finished, tmp_path):
    folder = tmp_path / "out"
    shutil.copytree(finished[0], folder, copy_function=shutil.copy2)
    times = {path: path.stat().st_mtime_ns for path in folder.glob("runs/*/result.json")}
    (tmp_path / "grid.yaml").write_text("batch_size: [8]\nlr: [1e-3, 1e38]\nuse_scheduler: [false]\n")
    words = ("--output_dir", folder, "--grid", tmp_path / "grid.yaml", "--jobs", 2, "--keep_models", "all")
    result = finetune(base, *words, status=2)
    good, bad = "batch_size=8,seed=0", "batch_size=8,lr=1e38,seed=0"
    assert result.stderr.startswith(f"bort: error: 1 of 2 runs failed: {bad}; see log.txt")
    assert result.stderr.count("\n") == 1
    assert f"{bad}  failed: bort: error: " in result.stdout
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert outcomes(folder).keys() == {"batch_size=8,seed=1", "batch_size=16,seed=1", good}
    report = json.loads((folder / "report.json").read_text())
    assert report["failed"].keys() == {bad}
    assert (report["best"]["setting"]["batch_size"], report["best"]["n"]) == (8, 2)
    assert "3 of 4 runs complete, 1 failed" in (folder / "report.md").read_text()


@pytest.fixture
def refused(base, capsys):
    """What ``bort finetune`` prints on standard error where it refuses."""

    def refused(*words, base=base):
        assert main(["finetune", *base, *map(str, words)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        return error

    return refused


def test_a_finished_sweep_is_not_resumed_under_other_options(finished, refused):
    grid = finished[0].parent / "grid.yaml"
    error = refused("--output_dir", finished[0], "--grid", grid, "--seeds", 1, "--max_gradient_norm", "0.5")
    assert "the sweep there has max_gradient_norm its default, this one 0.5" in error


WHAT_EVERY_RUN_REFUSES = {
    "no such encoder": ("--model typo.json", "typo.json"),
    "no training rows": ("--task AX", "AX has no training rows; its test set is labelled by a model of MNLI: bort predict"),
    "no files": ("--data_root .", "RTE: no train.tsv in"),
    "no epochs": ("--epochs 0", "epochs must be at least 1, got 0"),
    "no log": ("--log_interval 0", "log_interval must be at least 1"),
    "keep_question": ("--keep_question", "--keep_question is for RACE, whose articles are followed by a question; RTE has none"),
    "longer than the encoder": ("--max_len 65", "--max_len 65: the encoder random has 64 positions; give at most so many"),
    "half precision without a GPU": ("--dtype float16", "--dtype float16 needs --gpu"),
}


@pytest.mark.parametrize("name", WHAT_EVERY_RUN_REFUSES)
@pytest.mark.parametrize("sweep", ["--seeds 0 1", ""], ids=["sweep", "single"])
def test_a_sweep_refuses_what_its_runs_would_before_there_is_a_folder(name, sweep, base, refused, tmp_path, monkeypatch):
    words, message = WHAT_EVERY_RUN_REFUSES[name]
    monkeypatch.chdir(tmp_path)
    # Of an option that is given twice, the last counts.
    assert message in refused("--output_dir", "out", *words.split(), *sweep.split(), base=base)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ("max_len: [32, 65]", "--max_len 65: the encoder random has 64 positions"),
        ("keep_question: [false, true]", "--keep_question is for RACE"),
        ("dtype: [float32, float16]", "--dtype float16 needs --gpu"),
    ],
)
def test_a_sweep_refuses_what_one_point_of_its_grid_would(grid, message, base, refused, tmp_path):
    (tmp_path / "grid.yaml").write_text(f"{grid}\nlr: [1e-3, 1e-4]\n")
    without_length = [word for word in base if word not in ("--max_len", "32")]
    assert message in refused("--output_dir", tmp_path / "out", "--grid", tmp_path / "grid.yaml", base=without_length)
    assert not (tmp_path / "out").exists()


def test_what_draws_a_new_classifier_is_refused_beside_one_that_is_taken_over(classifier, repository, refused, tmp_path):
    """QNLI's labels are RTE's. Also where the option gives what is its default anyway, and where a grid gives it."""
    (tmp_path / "grid.yaml").write_text("init: [gaussian]\n")
    base = f"--task QNLI --data_root {repository}/test_data --init_from {classifier} --cache_dir none".split()
    for words in ("--init gaussian", "--prob 0.02", "--init gaussian --seeds 0 1", f"--grid {tmp_path}/grid.yaml"):
        error = refused("--output_dir", tmp_path / "out", *words.split(), base=base)
        assert "--init and --prob draw a new classifier, but that of RTE is taken over, since its labels are the same" in error
    assert not (tmp_path / "out").exists()


WRONG = {
    "jobs without a sweep": ("--jobs 2", "are for sweeps; give --seeds or --grid too"),
    "a seed twice": ("--seeds 1 1", "--seeds: 1 is there twice"),
    "a negative seed": ("--seeds=-1", "--seeds: seed must be at least 0"),
    "no jobs": ("--seeds 1 --jobs 0", "--jobs must be at least 1"),
    "seed and seeds": ("--seeds 1 2 --seed 3", "--seed is given, and so are its values in the sweep"),
    "an option with its default beside the grid": ("--grid dropout.yaml --dropout 0.1", "--dropout is given, and so are its values"),
    "the default seed and seeds": ("--seeds 1 2 --seed 0", "--seed is given, and so are its values in the sweep"),
    "to train from the start": ("--seeds 1 --resume never", "--resume never: a sweep always resumes; to train from the start, remove"),
    "to resume from elsewhere": ("--seeds 1 --resume runs/checkpoint_0000001", "--resume runs/checkpoint_0000001: a sweep always"),
    "grid and option": ("--grid published --lr 1e-3", "--lr is given, and so are its values in the sweep"),
    "no such grid": ("--grid nowhere.yaml", "nowhere.yaml: No such file"),
    "no Ray there": ("--seeds 1 --ray 127.0.0.1:1", "--ray 127.0.0.1:1: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_one_line(name, refused, tmp_path, monkeypatch):
    words, message = WRONG[name]
    if "--ray" in words:
        pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dropout.yaml").write_text("dropout: [0.1, 0.2]\n")
    assert message in refused("--output_dir", tmp_path / "out", *words.split())
    assert not list((tmp_path / "out").glob("runs/*"))
