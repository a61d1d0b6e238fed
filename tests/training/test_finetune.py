"""Fine-tuning on test_data: it learns, it keeps the best epoch, it resumes bit for bit, and it refuses what is not its own.

That every task trains and predicts, ``cli/test_all_tasks.py`` shows.
"""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bort.training.answers
import bort.training.journal
import bort.training.progress
from bort import BortConfig, BortError
from bort.gluon.finetuning import build_engine, load_predictor
from bort.model_directory import TrainedTask, read_model_directory
from bort.parameters import read_parameters
from bort.settings import FinetuningRunSettings, FinetuningSettings, OptimizerSettings
from bort.tasks import get_task
from bort.tasks.batches import prediction_batches
from bort.tasks.cache import encode_segment
from bort.tasks.metrics import task_score
from bort.training.finetune import finetune
from bort.training.finetuning_result import FinetuningResult, read_result
from bort.training.journal import CURVES_FILE, read_metrics
from bort.training.task_rows import predict_together

from ..real_runs import assert_same_finetuning, journal


def small_config(tokenizer, hidden_size=32, positions=64):
    return BortConfig(
        hidden_size=hidden_size,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=4,
        max_position_embeddings=positions,
        vocab_size=len(tokenizer.vocab),
    )


@pytest.fixture
def run(repository, tokenizer, tmp_path, blank_curves):
    """Trains a task with a small random encoder; ``stop_after`` interrupts it before that many updates more."""

    def run(
        name, output="run", data_root=None, stop_after=None, hidden_size=32, positions=64, spoil=None, cache=None, options=None, **settings
    ):
        task = get_task(name, data_root or repository / "test_data")
        config = small_config(tokenizer, hidden_size, positions)
        settings = FinetuningSettings(**{"epochs": 4, "batch_size": 16, "lr": 2e-3, "warmup_ratio": 0.2, "max_len": 48} | settings)
        engine = build_engine(config, task.num_classes, task.is_regression, settings.dropout, OptimizerSettings(), settings.seed, None)
        if stop_after is not None:
            update, done = engine.update, []

            def update_or_stop(learning_rate):
                if len(done) == stop_after:
                    raise KeyboardInterrupt
                done.append(learning_rate)
                update(learning_rate)

            engine.update = update_or_stop
        if spoil is not None:
            spoil(engine)
        run_settings = FinetuningRunSettings(**{"log_interval": 3} | (options or {}))
        result = finetune(engine, config, tokenizer, task, tmp_path / output, settings, run_settings, cache=cache)
        return task, result

    return run


@pytest.fixture
def data(repository, tmp_path):
    """A copy of a task's folder, to damage; returns the data root and the folder."""

    def copy(folder):
        target = tmp_path / "data" / folder
        shutil.copytree(repository / "test_data" / folder, target)
        return tmp_path / "data", target

    return copy


def prediction_rows(path):
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines, delimiter="\t"))


def test_the_result_is_what_the_run_did(run, tmp_path, blank_curves, monkeypatch):
    monkeypatch.setattr(bort.training.journal, "draw_curves", blank_curves)
    task, result = run("MNLI", epochs=2)
    assert (tmp_path / "run" / CURVES_FILE).read_bytes().startswith(b"\x89PNG")
    assert read_result(tmp_path / "run") == result
    assert list(result.dev) == ["dev_matched", "dev_mismatched"]
    assert result.files == ("predictions/MNLI-m.tsv", "predictions/MNLI-mm.tsv", "predictions/AX.tsv")
    assert result.score == pytest.approx(np.mean([metrics["accuracy"] for metrics in result.dev.values()]))
    evaluations = [entry for entry in read_metrics(tmp_path / "run") if entry["kind"] == "eval"]
    assert evaluations[result.best_epoch - 1].keys() == {"step", "kind", "score", "dev_matched_accuracy", "dev_mismatched_accuracy"}
    assert result.train_rows == len(task.examples("train"))
    assert result.parameters == sum(array.size for array in read_parameters(tmp_path / "run" / "best" / "bort.params").values())
    assert result.settings["lr"] == 2e-3
    assert (result.settings["batch_size"], result.settings["accumulate"], result.settings["global_batch"]) == (16, 1, 16)
    card = (tmp_path / "run" / "best" / "README.md").read_text()
    assert f"{result.train_rows}" in card
    assert result.seconds >= read_metrics(tmp_path / "run")[-2]["seconds"] > 0


@pytest.mark.parametrize(("name", "pieces"), [("RTE", {"entailment", "not_entailment"}), ("SST-2", {"0", "1"})])
def test_classification_learns_more_than_the_majority_class(run, tmp_path, name, pieces):
    task, result = run(name, hidden_size=64, epochs=12, lr=1e-3)
    assert result.dev["dev"]["accuracy"] > result.majority["dev"]["accuracy"]
    rows = prediction_rows(tmp_path / "run" / "predictions" / f"{name}.tsv")
    assert rows[0] == ["index", "prediction"]
    assert [row[0] for row in rows[1:]] == [str(number) for number in range(len(task.examples("test")))]
    assert {row[1] for row in rows[1:]} <= pieces


def test_regression_learns_scores(run, data, tmp_path):
    """Judged on the rows it learns from: of the 24 dev rows a correlation would say little."""
    root, folder = data("glue/STS-B")
    shutil.copyfile(folder / "train.tsv", folder / "dev.tsv")
    task, result = run("STS-B", data_root=root, hidden_size=64, epochs=30, dropout=0.0)
    assert min(result.dev["dev"].values()) > 0.8 > 0.0 == max(result.majority["dev"].values())
    scores = [float(row[1]) for row in prediction_rows(tmp_path / "run" / "predictions" / "STS-B.tsv")[1:]]
    assert len(scores) == len(task.examples("test"))
    assert all(0.0 <= score <= 5.0 for score in scores)
    assert len(set(scores)) > 3
    assert "accuracy" not in read_metrics(tmp_path / "run")[0]


def test_the_best_epoch_is_on_disk_and_made_the_predictions(run, tokenizer, tmp_path):
    task, result = run("RTE", epochs=6, lr=5e-3)
    scores = [entry["score"] for entry in read_metrics(tmp_path / "run") if entry["kind"] == "eval"]
    assert len(scores) == 6
    assert result.best_epoch == scores.index(max(scores)) + 1
    assert result.dev["dev"]["accuracy"] == max(scores) == task_score(task, result.dev)
    model = read_model_directory(tmp_path / "run" / "best")
    assert model.task == TrainedTask("RTE", ("not_entailment", "entailment"), 48)
    predictor = load_predictor(model.config, 2, model.parameters)
    examples = task.examples("test")
    rows = encode_segment(task, "test", examples, tokenizer, 48, False, None)
    labels = dict(row for row in prediction_rows(tmp_path / "run" / "predictions" / "RTE.tsv")[1:])
    for chosen, batch in prediction_batches(rows, 3):
        logits = predictor.predict(batch)[: len(chosen)]
        assert [task.labels[int(value)] for value in logits.argmax(axis=1)] == [labels[str(row)] for row in chosen]


def test_the_same_seed_gives_the_same_bits_and_another_does_not(run, tmp_path):
    for output, seed in (("one", 1), ("two", 1), ("three", 2)):
        run("SST-2", output, epochs=2, seed=seed)
    assert_same_finetuning(tmp_path / "one", tmp_path / "two")
    assert journal(tmp_path / "one") != journal(tmp_path / "three")


@pytest.mark.parametrize("early_stop", [0, 2])
def test_an_interrupted_run_resumes_bit_for_bit(run, tmp_path, early_stop):
    """Between epochs and within them, with checkpoints that do not fall on the journal's entries."""
    settings = {"epochs": 6, "lr": 5e-3, "early_stop": early_stop, "options": {"ckpt_interval": 5}}
    run("RTE", "straight", **settings)
    for stop_after in (2, 14, 17):
        with pytest.raises(KeyboardInterrupt):
            run("RTE", "resumed", stop_after=stop_after, **settings)
    run("RTE", "resumed", **settings)
    assert_same_finetuning(tmp_path / "resumed", tmp_path / "straight")


def test_a_run_that_is_cut_after_its_last_update_still_ends(run, tmp_path, monkeypatch):
    run("MNLI", "straight", epochs=2)

    def fail(*arguments):
        raise KeyboardInterrupt

    moments = ((bort.training.answers, "_draw_errors"), (bort.training.answers, "write_predictions"), (FinetuningResult, "write"))
    for owner, name in moments:
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, fail)
            with pytest.raises(KeyboardInterrupt):
                run("MNLI", "cut", epochs=2)
        assert not (tmp_path / "cut" / "result.json").exists()
        assert list((tmp_path / "cut").glob("checkpoint_*"))
    run("MNLI", "cut", epochs=2, stop_after=0)
    assert_same_finetuning(tmp_path / "cut", tmp_path / "straight")


def test_speed_is_that_of_training_alone(run, tmp_path, slow_clock):
    """By a clock that moves a second per update, and a thousand per batch of an evaluation and per checkpoint."""

    def spoil(engine):
        engine.update = slow_clock.taking(1, engine.update)
        engine.predict, engine.state = slow_clock.taking(1000, engine.predict), slow_clock.taking(1000, engine.state)

    _, result = run("RTE", epochs=2, spoil=spoil, options={"log_interval": 1})
    speeds = {entry["step"]: entry["rows_per_second"] for entry in read_metrics(tmp_path / "run") if entry["kind"] == "train"}
    # The last update of an epoch has the rows that are left.
    assert speeds == {step: result.train_rows % 16 if step % 13 == 0 else 16 for step in range(1, 27)}
    assert result.seconds > 26 + 2 * 2000


def test_early_stopping_ends_after_so_many_evaluations_without_a_better_score(run, tmp_path):
    run("RTE", "whole", epochs=12, lr=5e-3)
    scores = [entry["score"] for entry in read_metrics(tmp_path / "whole") if entry["kind"] == "eval"]
    best, expected = 0, None
    for epoch, value in enumerate(scores, 1):
        if value > scores[best - 1] or best == 0:
            best = epoch
        if epoch - best == 2:
            expected = epoch
            break
    assert expected is not None
    _, result = run("RTE", "early", epochs=12, lr=5e-3, early_stop=2)
    assert (result.epochs, result.best_epoch) == (expected, best)
    assert [entry["score"] for entry in read_metrics(tmp_path / "early") if entry["kind"] == "eval"] == scores[:expected]
    assert result.steps == expected * 13


def test_a_number_of_updates_overrides_the_epochs(run, tmp_path):
    _, result = run("RTE", training_steps=20, epochs=1)
    assert (result.steps, result.epochs, result.settings["epochs"]) == (20, 2, 2)
    assert [entry["step"] for entry in read_metrics(tmp_path / "run") if entry["kind"] == "eval"] == [13, 20]
    rates = {entry["step"]: entry["learning_rate"] for entry in read_metrics(tmp_path / "run") if entry["kind"] == "train"}
    assert rates[3] == pytest.approx(2e-3 * 3 / 4)
    assert rates[20] == pytest.approx(2e-3 / 16)
    _, result = run("RTE", "constant", training_steps=20, use_scheduler=False)
    constant = [entry["learning_rate"] for entry in read_metrics(tmp_path / "constant") if entry["step"] >= 4 and entry["kind"] == "train"]
    assert len(constant) > 4
    assert set(constant) == {2e-3}


def test_micro_batches_make_up_a_larger_batch(run, tmp_path):
    """Without dropout the two differ by rounding only."""
    for output, batch_size, accumulate in (("one", 16, 1), ("two", 8, 2)):
        run("SST-2", output, batch_size=batch_size, accumulate=accumulate, dropout=0.0, epochs=2)
    one, two = (read_parameters(tmp_path / name / "best" / "bort.params") for name in ("one", "two"))
    assert max(float(np.abs(one[name] - two[name]).max()) for name in one) < 1e-5
    assert [entry["score"] for entry in journal(tmp_path / "one") if entry["kind"] == "eval"] == [
        entry["score"] for entry in journal(tmp_path / "two") if entry["kind"] == "eval"
    ]


def test_a_complete_run_is_not_trained_again_and_other_settings_are_refused(run, tmp_path, capsys):
    _, first = run("RTE", epochs=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    capsys.readouterr()
    _, again = run("RTE", epochs=1, stop_after=0)
    assert again == first
    assert "run: complete already, so nothing is trained" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    # The same updates, divided in another way.
    assert run("RTE", epochs=1, stop_after=0, batch_size=8, accumulate=2)[1] == first
    with pytest.raises(BortError, match=r"result\.json: made with lr 0\.002, this run has 0\.003; give .* or --resume never"):
        run("RTE", epochs=1, lr=3e-3)
    _, anew = run("RTE", epochs=1, lr=3e-3, options={"resume": "never"})
    assert anew.settings["lr"] == 3e-3


def test_rows_that_have_changed_are_other_settings(run, data):
    root, folder = data("glue/RTE")
    run("RTE", data_root=root, epochs=1)
    lines = (folder / "train.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "train.tsv").write_text("".join([lines[0], *reversed(lines[1:])]), encoding="utf-8")
    with pytest.raises(BortError, match=r"result\.json: made with rows "):
        run("RTE", data_root=root, epochs=1)


def test_a_run_begun_anew_forgets_the_old_one(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("RTE", stop_after=20)
    with pytest.raises(BortError, match=r"checkpoint_0000013: made with seed 0, this run has 3; .*--resume never"):
        run("RTE", seed=3)
    run("RTE", seed=3, options={"resume": "never"})
    run("RTE", "fresh", seed=3)
    assert_same_finetuning(tmp_path / "run", tmp_path / "fresh")


def test_checkpoints_go_when_the_run_is_complete_unless_all_are_wanted(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("RTE", stop_after=30, options={"ckpt_interval": 10})
    assert {path.name for path in (tmp_path / "run").glob("checkpoint_*")} == {"checkpoint_0000030"}
    run("RTE", options={"ckpt_interval": 10})
    assert not list((tmp_path / "run").glob("checkpoint_*"))
    run("RTE", "all", epochs=2, options={"keep_last": 0, "ckpt_interval": 10})
    steps = [int(path.name.removeprefix("checkpoint_")) for path in sorted((tmp_path / "all").glob("checkpoint_*"))]
    assert steps == [10, 13, 20, 26]


def test_a_checkpoint_is_resumed_from_in_its_own_folder_alone(run, tmp_path):
    options = {"keep_last": 0, "ckpt_interval": 10}
    run("RTE", "all", epochs=2, options=options)
    message = r"--resume .*/all/checkpoint_0000010: not in .*/from, .*copy that whole folder .*, or .*--init_from"
    with pytest.raises(BortError, match=message):
        run("RTE", "from", epochs=2, options=options | {"resume": str(tmp_path / "all" / "checkpoint_0000010")})
    assert not (tmp_path / "from").exists()
    shutil.copytree(tmp_path / "all", tmp_path / "copy")
    run("RTE", "copy", epochs=2, options=options | {"resume": str(tmp_path / "copy" / "checkpoint_0000010")})
    assert_same_finetuning(tmp_path / "copy", tmp_path / "all")


def test_a_run_whose_best_model_is_lost_does_not_resume_with_a_worse_one(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run("RTE", stop_after=14)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")}
    (tmp_path / "run" / "best").rename(tmp_path / "elsewhere")
    with pytest.raises(BortError, match=r"run/best: the best model of the first 13 updates is not kept any more, .*--resume never"):
        run("RTE")
    (tmp_path / "elsewhere").rename(tmp_path / "run" / "best")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*")} == before
    # Before the end of the first epoch there is none to lose.
    with pytest.raises(KeyboardInterrupt):
        run("RTE", "early", stop_after=9, options={"ckpt_interval": 4})
    assert run("RTE", "early", options={"ckpt_interval": 4})[1].steps == 52


def test_the_complete_run_announces_what_is_there(run, tmp_path, capsys):
    run("RTE", epochs=1)
    (tmp_path / "run" / "predictions" / "RTE.tsv").rename(tmp_path / "RTE.tsv")
    message = r"predictions/RTE\.tsv: not there, .*; bort predict --task RTE --checkpoint .*/run/best labels .*--resume never"
    with pytest.raises(BortError, match=message):
        run("RTE", epochs=1)
    (tmp_path / "RTE.tsv").rename(tmp_path / "run" / "predictions" / "RTE.tsv")
    evaluation = tmp_path / "run" / "best" / "evaluation.json"
    evaluation.write_text(json.dumps(json.loads(evaluation.read_text()) | {"score": 2.0}))
    with pytest.raises(BortError, match=r"run/best: not the classifier that result\.json tells of"):
        run("RTE", epochs=1)
    evaluation.unlink()
    with pytest.raises(BortError, match=r"best/evaluation\.json: not the evaluation"):
        run("RTE", epochs=1)
    # As a sweep does with all runs but its best.
    shutil.rmtree(tmp_path / "run" / "best")
    capsys.readouterr()
    assert run("RTE", epochs=1, stop_after=0)[1].epochs == 1
    assert "its classifier was not kept: a sweep keeps that of its best run alone" in capsys.readouterr().out


def test_test_rows_that_come_or_change_after_a_run_are_told_of(run, data, tmp_path, capsys):
    root, folder = data("glue/RTE")
    lines = (folder / "test.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (folder / "test.tsv").unlink()
    run("RTE", "come", data_root=root, epochs=1)
    (folder / "test.tsv").write_text("".join(lines), encoding="utf-8")
    run("RTE", "changed", data_root=root, epochs=1)
    capsys.readouterr()
    run("RTE", "changed", data_root=root, epochs=1, stop_after=0)
    assert "since the run" not in capsys.readouterr().out
    (folder / "test.tsv").write_text("".join(lines[:-1]), encoding="utf-8")
    for word in ("come", "changed"):
        assert run("RTE", word, data_root=root, epochs=1, stop_after=0)[1].epochs == 1
        remedy = f"bort predict --task RTE --checkpoint {tmp_path / word / 'best'} labels them"
        assert f"the test rows for RTE.tsv have {word} since the run; {remedy}" in capsys.readouterr().out


def test_predictions_that_no_run_has_written_are_left_alone(run, tmp_path):
    (tmp_path / "run" / "predictions").mkdir(parents=True)
    (tmp_path / "run" / "predictions" / "RTE.tsv").write_text("mine")
    for resume in ("auto", "never"):
        with pytest.raises(BortError, match=r"run/predictions: in the way, and not the work of a run in .*run; move it away"):
            run("RTE", epochs=1, options={"resume": resume})
    assert [str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")] == ["run/predictions/RTE.tsv"]


def test_a_second_process_is_refused_while_the_first_is_at_work(run, tmp_path):
    refused = []

    def begin_another(engine):
        update = engine.update

        def update_and_begin(learning_rate):
            if not refused:
                with pytest.raises(BortError) as error:
                    run("RTE", epochs=1, options={"resume": "never"})
                refused.append(str(error.value))
            update(learning_rate)

        engine.update = update_and_begin

    _, result = run("RTE", epochs=1, spoil=begin_another)
    assert refused == [f"{tmp_path / 'run'}: another run is at work there; wait for its end, or give another --output_dir"]
    assert result.steps == 13
    assert not list((tmp_path / "run").glob(".*"))


def test_killed_before_any_file_operation_it_ends_with_the_same_bits(repository, tokenizer, tmp_path):
    """Also where it takes the place of a complete run: that is complete, resumed or gone, and never without its best model."""
    tokenizer.save(tmp_path / "vocab")
    program = [
        sys.executable,
        str(Path(__file__).with_name("killed_finetuning.py")),
        str(repository),
        str(tmp_path / "vocab"),
        str(tmp_path),
    ]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(repository)}
    result = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert result.stdout == "12 kills\n", result.stdout + result.stderr


def test_more_positions_than_the_encoder_has_are_refused(run, tmp_path):
    with pytest.raises(BortError, match="max_len is 65, but the encoder has 64 positions"):
        run("RTE", max_len=65)
    assert not (tmp_path / "run").exists()


def test_the_order_of_prediction_is_the_files_whatever_the_batch(repository, tokenizer):
    task = get_task("SST-2", repository / "test_data")
    engine = build_engine(small_config(tokenizer), 2, False, 0.0, OptimizerSettings(), 3, None)
    rows = encode_segment(task, "train", task.examples("train"), tokenizer, 48, False, None)
    engine.load_state({name: value * 20 if name.endswith("weight") else value for name, value in engine.state().items()})
    alone = np.concatenate([engine.predict(rows.batch([row], 1)) for row in range(30)])
    together = predict_together(engine, rows, 7, 2)[:30]
    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert len(np.unique(alone[:, 0])) > 20


def test_without_test_files_there_are_scores_but_no_predictions(run, data, tmp_path):
    root, folder = data("glue/SST-2")
    (folder / "test.tsv").unlink()
    _, result = run("SST-2", data_root=root, epochs=1)
    assert result.files == ()
    assert result.dev["dev"]["accuracy"] > 0
    assert not (tmp_path / "run" / "predictions").exists()


def test_of_several_test_files_those_that_are_here_are_predicted(run, data):
    root, folder = data("glue/MNLI")
    (folder / "test_matched.tsv").unlink()
    assert run("MNLI", data_root=root, epochs=1)[1].files == ("predictions/MNLI-mm.tsv",)


def test_keeping_the_question_is_for_race_and_is_remembered(run, tmp_path):
    with pytest.raises(BortError, match=r"--keep_question is for RACE, .*; RTE has none"):
        run("RTE", keep_question=True)
    assert not (tmp_path / "run").exists()
    _, result = run("RACE-M", keep_question=True, training_steps=1, hidden_size=16)
    assert result.settings["keep_question"] is True
    assert read_model_directory(tmp_path / "run" / "best").task.keep_question
    run("RACE-M", "cut", training_steps=1, hidden_size=16)
    rows = [json.loads((tmp_path / name / "result.json").read_text())["settings"]["rows"] for name in ("run", "cut")]
    assert rows[0] != rows[1]


def test_a_damaged_row_is_named_before_training_and_leaves_nothing(run, data, tmp_path):
    root, folder = data("glue/RTE")
    lines = (folder / "dev.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    lines[6] = lines[6].rsplit("\t", 1)[0] + "\tentails\n"
    (folder / "dev.tsv").write_text("".join(lines), encoding="utf-8")
    with pytest.raises(BortError, match=r'dev\.tsv, line 7: label "entails" is not one of not_entailment, entailment'):
        run("RTE", data_root=root)
    assert not (tmp_path / "run").exists()


def test_tokenised_rows_are_kept_and_change_nothing(run, tmp_path):
    run("RTE", "without", epochs=1)
    for output in ("filling", "filled"):
        run("RTE", output, epochs=1, cache=tmp_path / "cache")
        assert_same_finetuning(tmp_path / output, tmp_path / "without")
    # Training, dev and test rows.
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_divergence_is_reported_and_leaves_no_predictions(run, tmp_path):
    with pytest.raises(BortError, match=r"(the loss|the norm of the (gradient|parameters)) is not finite by step \d+; .*lower --lr"):
        run("SST-2", lr=1e30, epochs=2)
    assert not {path.name for path in (tmp_path / "run").iterdir()} & {"best", "predictions", "result.json"}


def test_outputs_that_are_not_finite_are_reported(run, tmp_path):
    """Parameters that spoil the evaluation only, as an overflow in prediction would."""

    def spoil(engine):
        predict = engine.predict
        engine.predict = lambda batch: predict(batch) + np.float32(np.inf)

    with pytest.raises(BortError, match=r"an output of the model is not finite by step 13; there is no checkpoint yet; .*lower --lr"):
        run("RTE", spoil=spoil)
    assert not (tmp_path / "run" / "best").exists()


@pytest.mark.parametrize("content", ["", "[]", "{}", "[" * 100_000])
def test_a_damaged_result_is_refused(run, tmp_path, content):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "result.json").write_text(content)
    with pytest.raises(BortError, match=r"result\.json: not the result of a fine-tuning run(: task is missing or damaged)?; move it away"):
        run("RTE")
