"""Fine-tuning on test_data: pairs, single sentences and a regression; the best epoch is kept, and its files are the leaderboard's."""

from __future__ import annotations

import csv
import shutil

import numpy as np
import pytest

from bort import BortConfig, BortError
from bort.gluon.finetuning import build_engine, load_predictor
from bort.model_directory import TrainedTask, read_model_directory
from bort.settings import FinetuningSettings, OptimizerSettings
from bort.tasks import get_task
from bort.training.finetune import encode_rows, finetune, predict, predict_logits
from bort.training.journal import read_metrics


@pytest.fixture(scope="module")
def config(tokenizer):
    return BortConfig(
        hidden_size=64,
        intermediate_size=48,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )


@pytest.fixture
def run(repository, tokenizer, config, tmp_path):
    def run(name, output="run", data_root=None, **settings):
        task = get_task(name, data_root or repository / "test_data")
        settings = FinetuningSettings(**{"epochs": 4, "batch_size": 16, "lr": 2e-3, "warmup_ratio": 0.2, "max_len": 48} | settings)
        engine = build_engine(config, task.num_classes, task.is_regression, settings.dropout, OptimizerSettings(), settings.seed)
        return task, finetune(engine, config, tokenizer, task, tmp_path / output, settings)

    return run


def prediction_rows(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines, delimiter="\t"))


@pytest.mark.parametrize(("name", "pieces"), [("RTE", {"entailment", "not_entailment"}), ("SST-2", {"0", "1"})])
def test_classification_learns_more_than_the_majority_class(run, name, pieces):
    task, result = run(name, epochs=12)
    assert result.dev["dev"]["accuracy"] > result.majority["dev"]["accuracy"]
    (file,) = result.files
    assert file.name == f"{name}.tsv"
    rows = prediction_rows(file)
    assert rows[0] == ["index", "prediction"]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(len(task.examples("test")))]
    assert {row[1] for row in rows[1:]} <= pieces


def test_regression_learns_scores(run, repository, tmp_path):
    """Judged on the rows it learns from: of the 24 dev rows a correlation would say little."""
    shutil.copytree(repository / "test_data/glue/STS-B", tmp_path / "data/glue/STS-B")
    shutil.copyfile(tmp_path / "data/glue/STS-B/train.tsv", tmp_path / "data/glue/STS-B/dev.tsv")
    task, result = run("STS-B", data_root=tmp_path / "data", epochs=30, dropout=0.0)
    assert min(result.dev["dev"].values()) > 0.8 > 0.0 == max(result.majority["dev"].values())
    scores = [float(row[1]) for row in prediction_rows(result.files[0])[1:]]
    assert len(scores) == len(task.examples("test"))
    assert all(0.0 <= score <= 5.0 for score in scores)
    assert len(set(scores)) > 3


def test_the_best_epoch_is_on_disk_and_made_the_predictions(run, tokenizer, config, tmp_path):
    task, result = run("RTE", epochs=6)
    scores = [entry["score"] for entry in read_metrics(tmp_path / "run") if entry["kind"] == "eval"]
    assert len(scores) == 6
    assert result.best_epoch == scores.index(max(scores)) + 1
    assert result.dev["dev"]["accuracy"] == max(scores)
    model = read_model_directory(tmp_path / "run" / "best")
    assert model.task == TrainedTask("RTE", ("not_entailment", "entailment"), 48)
    engine = load_predictor(config, 2, model.parameters)
    test = task.examples("test")
    again = predict(engine, task, encode_rows(test, tokenizer, 48), batch_size=3)
    assert [task.labels[int(value)] for value in again] == [row[1] for row in prediction_rows(result.files[0])[1:]]


def test_the_same_seed_gives_the_same_predictions_and_another_does_not(run, tmp_path):
    outputs = [run("SST-2", output, epochs=2, seed=seed) for output, seed in (("one", 1), ("two", 1), ("three", 2))]
    metrics = [read_metrics(tmp_path / name) for name in ("one", "two", "three")]
    assert metrics[0] == metrics[1]
    assert metrics[0] != metrics[2]
    assert outputs[0][1].files[0].read_bytes() == outputs[1][1].files[0].read_bytes()


def test_the_order_of_prediction_is_the_files_whatever_the_batch(repository, tokenizer, config):
    task = get_task("SST-2", repository / "test_data")
    engine = build_engine(config, 2, False, 0.0, OptimizerSettings(), 3)
    rows = encode_rows(task.examples("train"), tokenizer, 48)
    engine.load_state({name: value * 20 if name.endswith("weight") else value for name, value in engine.state().items()})
    alone = np.concatenate([engine.predict(rows.batch([row], 1)) for row in range(30)])
    together = predict_logits(engine, rows, batch_size=7)[:30]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len(np.unique(alone[:, 0])) > 20


def test_without_a_test_file_there_are_scores_but_no_predictions(run, repository, tmp_path):
    folder = tmp_path / "data" / "glue" / "SST-2"
    folder.mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv"):
        (folder / name).write_bytes((repository / "test_data/glue/SST-2" / name).read_bytes())
    _, result = run("SST-2", data_root=tmp_path / "data", epochs=1)
    assert result.files == ()
    assert result.dev["dev"]["accuracy"] > 0


def test_a_damaged_row_is_named_before_training_and_leaves_nothing(run, repository, tmp_path):
    folder = tmp_path / "data" / "glue" / "RTE"
    folder.mkdir(parents=True)
    for name in ("train.tsv", "dev.tsv", "test.tsv"):
        (folder / name).write_bytes((repository / "test_data/glue/RTE" / name).read_bytes())
    lines = (folder / "dev.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    lines[6] = lines[6].rsplit("\t", 1)[0] + "\tentails\n"
    (folder / "dev.tsv").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(BortError, match=r'dev\.tsv, line 7: label "entails" is not one of not_entailment, entailment'):
        run("RTE", data_root=tmp_path / "data")
    assert not (tmp_path / "run").exists()


def test_a_diagnostic_set_cannot_be_trained_on(run):
    with pytest.raises(BortError, match=r"AX has no training rows; .*MNLI"):
        run("AX")


def test_divergence_is_reported_and_leaves_no_predictions(run, tmp_path):
    with pytest.raises(BortError, match=r"SST-2: the loss is not finite in epoch 1; .*lower --lr"):
        run("SST-2", lr=1e30, epochs=2)
    assert not (tmp_path / "run" / "predictions").exists()
