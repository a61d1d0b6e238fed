"""Every task of the three benchmarks from its rows to a leaderboard's zip, by the commands a user types: on test_data, and on real rows."""

from __future__ import annotations

import json
import math
import zipfile

import pytest

from bort.cli import main
from bort.tasks import TASKS, diagnostic_tasks, get_task
from bort.tasks.submission_checks import check_predictions

TRAINABLE = [task.name for task in TASKS if task.predicted_by is None]
FILES = {
    "glue": ["AX", "CoLA", "MNLI-m", "MNLI-mm", "MRPC", "QNLI", "QQP", "RTE", "SST-2", "STS-B", "WNLI"],
    "superglue": ["AX-b", "AX-g", "BoolQ", "CB", "COPA", "MultiRC", "RTE", "ReCoRD", "WSC", "WiC"],
    "race": ["RACE-H", "RACE-M"],
}


@pytest.fixture(scope="module")
def encoder(tokenizer, tmp_path_factory):
    """Options of an encoder of one layer, drawn at random."""
    folder = tmp_path_factory.mktemp("encoder")
    sizes = {"model_type": "bert", "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    (folder / "config.json").write_text(json.dumps(sizes | {"max_position_embeddings": 64, "vocab_size": len(tokenizer.vocab)}))
    tokenizer.save(folder / "vocab")
    return ["--model", str(folder / "config.json"), "--params", "none", "--vocab", str(folder / "vocab")]


def train_one_step(name, encoder, data, output):
    options = ["--training_steps", "1", "--max_len", "48", "--dev_batch_size", "128", "--cache_dir", "none"]
    return main(["finetune", "--task", name, *encoder, "--data_root", str(data), "--output_dir", str(output), *options])


def test_the_tasks_are_the_23_of_the_three_benchmarks():
    assert len(TASKS) == 23
    assert len(TRAINABLE) == 20
    assert [task.name for task in TASKS if task.predicted_by] == ["AX", "AX-b", "AX-g"]


@pytest.fixture(scope="module")
def runs(encoder, repository, tmp_path_factory, blank_curves):
    """A run of one update for every task of test_data that can be trained."""
    folder = tmp_path_factory.mktemp("all_tasks") / "runs"
    for name in TRAINABLE:
        assert train_one_step(name, encoder, repository / "test_data", folder / name) == 0, name
    return folder


@pytest.mark.parametrize("name", TRAINABLE)
def test_a_run_of_any_task_leaves_what_it_should(name, runs):
    task, run = get_task(name), runs / name
    result = json.loads((run / "result.json").read_text())
    assert (result["steps"], result["epochs"], result["best_epoch"]) == (1, 1, 1)
    assert {segment: set(metrics) for segment, metrics in result["dev"].items()} == {
        segment: set(task.metrics) for segment in task.segment_names("dev")
    }
    assert all(math.isfinite(value) for metrics in result["dev"].values() for value in metrics.values())
    labelled = (task, *diagnostic_tasks(task))
    files = [segment.leaderboard_file for other in labelled for segment in other.segments if segment.leaderboard_file]
    assert result["files"] == [f"predictions/{file}" for file in files]
    assert all((run / file).stat().st_size for file in result["files"])
    picture = "scores.png" if task.is_regression else "confusion_matrix.png"
    names = {"best", "predictions", "config.json", "metrics.jsonl", "tensorboard", "curves.png", "result.json", picture}
    assert {path.name for path in run.iterdir()} == names


@pytest.mark.parametrize("benchmark", FILES)
def test_every_task_trains_predicts_and_can_be_handed_in(benchmark, runs, repository, tmp_path, capsys):
    folder = tmp_path / "runs"
    folder.mkdir()
    for name in TRAINABLE:
        # The run on both levels of RACE at once would be handed in by itself.
        if name != "RACE":
            (folder / name).symlink_to(runs / name)
    assert (
        main(["submit", benchmark, str(folder), "--data_root", str(repository / "test_data"), "--output", str(tmp_path / "out.zip")]) == 0
    )
    ending = ".tsv" if benchmark == "glue" else ".jsonl"
    with zipfile.ZipFile(tmp_path / "out.zip") as archive:
        assert sorted(archive.namelist()) == sorted(name + ending for name in FILES[benchmark])
        assert archive.testzip() is None


@pytest.mark.parametrize("name", ["AX", "AX-b", "AX-g"])
def test_a_diagnostic_set_is_predicted_from_a_checkpoint_as_the_run_did(name, runs, repository, tmp_path):
    parent = get_task(name).predicted_by
    options = ["--data_root", str(repository / "test_data"), "--output", str(tmp_path)]
    assert main(["predict", "--task", name, "--checkpoint", str(runs / parent / "best"), *options]) == 0
    (file,) = tmp_path.iterdir()
    assert file.read_bytes() == (runs / parent / "predictions" / file.name).read_bytes()


@pytest.mark.usefixtures("blank_curves")
@pytest.mark.parametrize("name", TRAINABLE)
def test_real_rows_train_and_give_files_that_are_accepted(name, encoder, shared, tmp_path):
    task = get_task(name, shared / "data")
    missing = [segment for role in ("train", "dev") for segment in task.segment_names(role) if not task.is_present(segment)]
    if missing:
        pytest.skip(f"shared/data has no {', '.join(missing)} of {name}")
    assert train_one_step(name, encoder, shared / "data", tmp_path / "run") == 0
    assert json.loads((tmp_path / "run/result.json").read_text())["steps"] == 1
    for segment in map(task.segment, task.segment_names("test")):
        if task.is_present(segment.name):
            file = tmp_path / "run/predictions" / segment.leaderboard_file
            assert check_predictions(task, task.examples(segment.name), file.read_bytes(), file.name) == []
