"""The pre-training loop: it learns, it resumes bit for bit, and it refuses to resume something else."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

import bort.training.journal
import bort.training.pretrain
import bort.training.progress
from bort import BortConfig, BortError
from bort.corpus.batches import PretrainingBatches
from bort.model_directory import read_model_directory
from bort.parameters import read_parameters
from bort.settings import PretrainingSettings, RunSettings
from bort.training.journal import CURVES_FILE, read_metrics
from bort.training.pretrain import evaluate, pretrain, training_measures

SETTINGS = PretrainingSettings(num_steps=12, batch_size=8, lr=3e-3, warmup_ratio=0.2)


@pytest.fixture
def train(make_engine, tokenizer, corpora, masked, blank_curves):
    def run(output, settings=SETTINGS, stop_after=None, spoil=None, **options):
        engine, config = make_engine(settings.seed)
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
        run_settings = RunSettings(**{"log_interval": 4, "eval_interval": 6, "ckpt_interval": 4, "keep_last": 2} | options)
        sequences, held_out = (masked(corpus, settings) for corpus in corpora)
        return pretrain(engine, config, tokenizer, sequences, held_out, output, settings, run_settings)

    return run


def parameters(output):
    return read_parameters(output / "model" / "bort.params")


def test_a_run_leaves_metrics_curves_events_checkpoints_and_a_model(train, tmp_path, tokenizer, blank_curves, monkeypatch):
    monkeypatch.setattr(bort.training.journal, "draw_curves", blank_curves)
    evaluation = train(tmp_path / "run")
    entries = read_metrics(tmp_path / "run")
    assert [(entry["step"], entry["kind"]) for entry in entries] == [
        (4, "train"), (6, "train"), (6, "eval"), (8, "train"), (12, "train"), (12, "eval"),
    ]  # fmt: skip
    assert entries[-1]["mlm_loss"] == evaluation["mlm_loss"]
    assert entries[-2]["mlm_loss"] < entries[0]["mlm_loss"]
    assert entries[0].keys() == {
        "step", "kind", "mlm_loss", "mlm_accuracy", "student_entropy", "gradient_norm", "parameter_norm", "padding", "learning_rate",
        "tokens_per_second", "waiting", "memory_mb",
    }  # fmt: skip
    assert 0 < entries[0]["padding"] < 0.5
    assert 0 <= entries[0]["waiting"] <= 1
    assert 50 < entries[0]["memory_mb"] < 100_000
    assert entries[0]["learning_rate"] == pytest.approx(3e-3 * (12 - 3) / 10)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {
        "checkpoint_0000008", "checkpoint_0000012", "model", "best", "config.json", "data_card.md", "metrics.jsonl", "curves.png",
        "tensorboard",
    }  # fmt: skip
    assert BortConfig.from_json(tmp_path / "run" / "config.json") == read_model_directory(tmp_path / "run" / "model").config
    assert (tmp_path / "run" / CURVES_FILE).read_bytes().startswith(b"\x89PNG")
    model = read_model_directory(tmp_path / "run" / "model")
    assert model.tokenizer().vocab.fingerprint == tokenizer.vocab.fingerprint
    assert "word_embed.0.weight" in mx.nd.load(str(tmp_path / "run" / "checkpoint_0000012" / "0000012.params"))


def test_the_same_command_gives_the_same_bits(train, tmp_path):
    for name in ("one", "two"):
        train(tmp_path / name)
    one, two = parameters(tmp_path / "one"), parameters(tmp_path / "two")
    assert all(np.array_equal(one[name], two[name]) for name in one)


def test_an_interrupted_run_resumes_bit_for_bit(train, tmp_path):
    train(tmp_path / "straight")
    for stop_after in (2, 7):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "resumed", stop_after=stop_after)
    train(tmp_path / "resumed")
    for name in ("bort.params", "evaluation.json", "README.md"):
        assert (tmp_path / "resumed/best" / name).read_bytes() == (tmp_path / "straight/best" / name).read_bytes()
    straight, resumed = parameters(tmp_path / "straight"), parameters(tmp_path / "resumed")
    assert all(np.array_equal(straight[name], resumed[name]) for name in straight)
    quantities = ("step", "kind", "mlm_loss", "mlm_accuracy", "gradient_norm")
    entries = [
        [{name: entry.get(name) for name in quantities} for entry in read_metrics(tmp_path / name)] for name in ("straight", "resumed")
    ]
    assert entries[0] == entries[1]


@pytest.mark.usefixtures("blank_curves")
def test_accumulation_is_a_larger_batch(tmp_path, make_engine, tokenizer, corpora, masked):
    """Without dropout the two differ by rounding only."""
    states = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        engine, config = make_engine(dropout=0.0)
        settings = PretrainingSettings(num_steps=3, batch_size=batch_size, accumulate=accumulate, lr=1e-3)
        sequences = masked(corpora[0], settings)
        pretrain(engine, config, tokenizer, sequences, None, tmp_path / str(accumulate), settings, RunSettings(ckpt_interval=0))
        states.append(engine.state())
    assert max(np.abs(states[0][name] - states[1][name]).max() for name in states[0]) < 1e-5


@pytest.mark.parametrize(("change", "message"), [({"lr": 1e-4}, "lr"), ({"seed": 3}, "seed"), ({"batch_size": 4}, "global_batch")])
def test_resuming_with_other_settings_is_refused(train, tmp_path, change, message):
    train(tmp_path / "run", SETTINGS)
    other = PretrainingSettings(**{**SETTINGS.__dict__, **change})
    with pytest.raises(BortError, match=f"checkpoint_0000012: made with {message} .*--resume never"):
        train(tmp_path / "run", other)


def test_a_run_begun_anew_forgets_the_old_one(train, tmp_path):
    other = PretrainingSettings(**{**SETTINGS.__dict__, "seed": 3})
    train(tmp_path / "run", SETTINGS)
    (tmp_path / "run" / "checkpoint_0000012_mine").mkdir()
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", other, resume="never", stop_after=6)
    assert {path.name for path in (tmp_path / "run").glob("checkpoint*")} == {"checkpoint_0000004", "checkpoint_0000012_mine"}
    train(tmp_path / "run", other)
    train(tmp_path / "fresh", other)
    run, fresh = parameters(tmp_path / "run"), parameters(tmp_path / "fresh")
    assert all(np.array_equal(run[name], fresh[name]) for name in fresh)


def test_the_best_model_is_the_one_with_the_lowest_held_out_loss(train, tmp_path):
    """With this rate and warm-up the loss falls for four updates and then rises; the interrupted run resumes from before that and after."""
    settings = PretrainingSettings(**{**SETTINGS.__dict__, "lr": 0.02, "warmup_ratio": 0.9})
    train(tmp_path / "run", settings, eval_interval=1, ckpt_interval=3, keep_last=1)
    for stop_after in (5, 5):
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path / "resumed", settings, eval_interval=1, ckpt_interval=3, keep_last=1, stop_after=stop_after)
    train(tmp_path / "resumed", settings, eval_interval=1, ckpt_interval=3, keep_last=1)
    evaluations = [entry for entry in read_metrics(tmp_path / "run") if entry["kind"] == "eval"]
    best = min(evaluations, key=lambda entry: entry["mlm_loss"])
    assert 1 < best["step"] < 12
    expected = {name: value for name, value in best.items() if name != "kind"}
    for name in ("run", "resumed"):
        assert json.loads((tmp_path / name / "best" / "evaluation.json").read_text()) == expected
        assert read_model_directory(tmp_path / name / "best").tokenizer()
    same, other = (read_parameters(tmp_path / name / "best" / "bort.params") for name in ("run", "resumed"))
    assert all(np.array_equal(same[name], other[name]) for name in same)
    assert not np.array_equal(same["decoder.2.gamma"], parameters(tmp_path / "run")["decoder.2.gamma"])


def test_speed_is_that_of_training_alone(train, tmp_path, slow_clock):
    """By a clock that moves a second per update, and a thousand per batch of an evaluation and per checkpoint."""

    def spoil(engine):
        engine.update = slow_clock.taking(1, engine.update)
        engine.evaluate, engine.state = slow_clock.taking(1000, engine.evaluate), slow_clock.taking(1000, engine.state)

    speeds = []
    for name, intervals in (("both", {"eval_interval": 4, "ckpt_interval": 2}), ("neither", {"eval_interval": 0, "ckpt_interval": 0})):
        train(tmp_path / name, spoil=spoil, log_interval=1, **intervals)
        entries = [entry for entry in read_metrics(tmp_path / name) if entry["kind"] == "train"]
        speeds.append([(entry["step"], entry["tokens_per_second"]) for entry in entries])
    assert slow_clock.now > 4000
    assert len(speeds[0]) == 12
    assert speeds[0] == speeds[1]


def test_a_finished_run_gives_its_scores_again(train, tmp_path):
    first = train(tmp_path / "run")
    assert train(tmp_path / "run") == first


def test_divergence_is_reported_with_the_last_good_checkpoint(train, tmp_path):
    with pytest.raises(BortError, match=r"the loss is not finite by step \d+; .*checkpoint"):
        train(tmp_path / "run", PretrainingSettings(**{**SETTINGS.__dict__, "lr": 1e30}))
    assert not (tmp_path / "run" / "model").exists()


def test_parameters_that_are_not_finite_are_not_written(train, tmp_path):
    """They are spoilt behind the last entry of the journal, so only the checkpoint can see it."""

    def spoil(engine):
        update, done = engine.update, []

        def update_then_spoil(learning_rate):
            update(learning_rate)
            done.append(learning_rate)
            if len(done) == 7:
                state = engine.state()
                state["decoder.2.gamma"][3] = np.nan
                engine.load_state(state)

        engine.update = update_then_spoil

    message = r"decoder\.2\.gamma is not finite by step 8; the last checkpoint is .*checkpoint_0000004; train again with a lower --lr"
    with pytest.raises(BortError, match=message):
        train(tmp_path / "run", spoil=spoil, log_interval=100, eval_interval=0)
    assert [path.name for path in (tmp_path / "run").glob("checkpoint*")] == ["checkpoint_0000004"]
    with pytest.raises(BortError, match=r"the (loss|norm of the parameters) is not finite by step 12; there is no checkpoint yet"):
        train(tmp_path / "none", spoil=spoil, log_interval=100, eval_interval=0, ckpt_interval=0)
    assert not (tmp_path / "none" / "model").exists()


def test_a_loss_scale_that_falls_and_falls_ends_the_run(train, tmp_path):
    """As an engine of mixed precision reports it; at 1 there is still hope."""
    scales = iter((1.0, 1.0, 0.5))

    def spoil(engine):
        drain = engine.drain
        engine.drain = lambda: drain() | {"loss_scale": next(scales), "skipped_updates": 1.0}

    message = r"gradients overflow even at a loss scale of 0\.5 by step 12; the last checkpoint is .*checkpoint_0000008; train again with"
    with pytest.raises(BortError, match=message):
        train(tmp_path / "run", spoil=spoil, eval_interval=0)
    assert [entry["loss_scale"] for entry in read_metrics(tmp_path / "run")] == [1.0, 1.0]


@pytest.mark.usefixtures("blank_curves")
def test_gradients_that_are_not_finite_end_the_run(make_engine, tokenizer, corpora, masked, tmp_path):
    """Their updates are skipped, so the loss stays finite, and without this a run would do nothing to its end."""
    engine, config = make_engine()
    accumulate = engine.accumulate

    def overflow(batch):
        accumulate(batch)
        engine._optimizer.gradients["decoder.0.bias"][0] = np.inf

    engine.accumulate = overflow
    with pytest.raises(BortError, match=r"the norm of the gradient is not finite by step 4; there is no checkpoint yet"):
        pretrain(engine, config, tokenizer, masked(corpora[0], SETTINGS), None, tmp_path, SETTINGS, RunSettings(log_interval=4))


def test_resuming_on_other_text_is_refused(train, make_engine, tokenizer, corpora, masked, tmp_path):
    train(tmp_path / "run")
    engine, config = make_engine()
    with pytest.raises(BortError, match="made with corpus"):
        pretrain(engine, config, tokenizer, masked(corpora[1], SETTINGS), None, tmp_path / "run", SETTINGS, RunSettings())


def test_a_damaged_checkpoint_is_named(train, tmp_path):
    train(tmp_path / "run")
    state = tmp_path / "run" / "checkpoint_0000012" / "state.json"
    state.write_text("{}")
    with pytest.raises(BortError, match=r"checkpoint_0000012/state\.json"):
        train(tmp_path / "run")
    state.write_text(json.dumps({"step": 12, "settings": {}}))
    (state.parent / "0000012.params").write_bytes(b"\0" * 50)
    with pytest.raises(BortError, match=r"checkpoint_0000012"):
        train(tmp_path / "run")


def test_evaluation_is_the_same_however_it_is_batched(make_engine, tokenizer, corpora, masked):
    engine, _ = make_engine()
    scores = []
    for batch_size in (1, 5, 16):
        settings = PretrainingSettings(batch_size=batch_size)
        scores.append(evaluate(engine, PretrainingBatches(masked(corpora[1], settings), tokenizer.vocab.pad_id, settings, world_size=1)))
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-5)


def test_measures_are_means_over_masked_tokens():
    sums = {"masked_tokens": 4.0, "mlm_loss": 8.0, "mlm_correct": 1.0, "student_entropy": 6.0, "updates": 2.0, "gradient_norm": 3.0}
    sums |= {"kd_loss": 2.0, "teacher_entropy": 1.0, "agreement": 3.0, "teacher_correct": 2.0}
    sums |= {"tokens": 30.0, "slots": 40.0, "parameter_norm": 7.0}
    measures = training_measures(sums)
    assert measures["mlm_loss"] == 2.0
    assert measures["mlm_accuracy"] == 0.25
    assert measures["gradient_norm"] == 1.5
    assert (measures["parameter_norm"], measures["padding"]) == (7.0, 0.25)
    assert (measures["kd_loss"], measures["agreement"], measures["teacher_accuracy"]) == (0.5, 0.75, 0.5)
    assert "kd_loss" not in training_measures(sums | {"teacher_entropy": 0.0})
    assert "loss_scale" not in measures
    assert (
        training_measures(sums | {"loss_scale": 8.0, "skipped_updates": 1.0}).items() >= {"loss_scale": 8.0, "skipped_updates": 1.0}.items()
    )


def test_a_model_folder_that_no_run_has_written_is_left_alone(train, tmp_path):
    (tmp_path / "run" / "model").mkdir(parents=True)
    (tmp_path / "run" / "model" / "mine.txt").touch()
    with pytest.raises(BortError, match=r"run/model: in the way, and not the work of a run in .*run; move it away"):
        train(tmp_path / "run", stop_after=0)
    assert (tmp_path / "run" / "model" / "mine.txt").exists()


def test_begun_anew_the_checkpoints_go_before_the_best_model_that_they_need(train, tmp_path, monkeypatch):
    """Killed in between, it resumes from a checkpoint whose best model is there."""
    train(tmp_path / "run")

    def fail(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(bort.training.pretrain, "BestModel", fail)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", resume="never")
    assert (tmp_path / "run" / "best").exists()
    assert not list((tmp_path / "run").glob("checkpoint_*"))
