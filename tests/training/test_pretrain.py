"""The pre-training loop: it learns, it resumes bit for bit, and it refuses to resume something else."""

from __future__ import annotations

import json

import mxnet as mx
import numpy as np
import pytest

from bort import BortError
from bort.model_directory import read_model_directory
from bort.parameters import read_parameters
from bort.settings import PretrainingSettings, RunSettings
from bort.training.journal import CURVES_FILE, read_metrics
from bort.training.pretrain import evaluate, pretrain, training_measures

SETTINGS = PretrainingSettings(num_steps=12, batch_size=8, lr=3e-3, warmup_ratio=0.2)


@pytest.fixture
def train(make_engine, tokenizer, corpora):
    def run(output, settings=SETTINGS, stop_after=None, **options):
        engine, config = make_engine(settings.seed)
        if stop_after is not None:
            update, done = engine.update, []

            def update_or_stop(learning_rate):
                if len(done) == stop_after:
                    raise KeyboardInterrupt
                done.append(learning_rate)
                update(learning_rate)

            engine.update = update_or_stop
        run_settings = RunSettings(**{"log_interval": 4, "eval_interval": 6, "ckpt_interval": 4, "keep_last": 2} | options)
        return pretrain(engine, config, tokenizer, *corpora, output, settings, run_settings)

    return run


def parameters(output):
    return read_parameters(output / "model" / "bort.params")


def test_a_run_leaves_metrics_curves_events_checkpoints_and_a_model(train, tmp_path, tokenizer):
    evaluation = train(tmp_path / "run")
    entries = read_metrics(tmp_path / "run")
    assert [(entry["step"], entry["kind"]) for entry in entries] == [
        (4, "train"), (6, "train"), (6, "eval"), (8, "train"), (12, "train"), (12, "eval"),
    ]  # fmt: skip
    assert entries[-1]["mlm_loss"] == evaluation["mlm_loss"]
    assert entries[-2]["mlm_loss"] < entries[0]["mlm_loss"]
    assert entries[0]["learning_rate"] == pytest.approx(3e-3 * (12 - 3) / 10)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"checkpoint_0000008", "checkpoint_0000012", "metrics.jsonl", "curves.png", "tensorboard", "model"}
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
    straight, resumed = parameters(tmp_path / "straight"), parameters(tmp_path / "resumed")
    assert all(np.array_equal(straight[name], resumed[name]) for name in straight)
    quantities = ("step", "kind", "mlm_loss", "mlm_accuracy", "gradient_norm")
    entries = [
        [{name: entry.get(name) for name in quantities} for entry in read_metrics(tmp_path / name)] for name in ("straight", "resumed")
    ]
    assert entries[0] == entries[1]


def test_accumulation_is_a_larger_batch(train, tmp_path, make_engine, tokenizer, corpora):
    """Without dropout the two differ by rounding only."""
    states = []
    for batch_size, accumulate in ((8, 1), (4, 2)):
        engine, config = make_engine()
        for block in (engine._net, *engine._net._children.values()):
            block.apply(lambda child: setattr(child, "_rate", 0.0) if type(child).__name__ == "Dropout" else None)
        settings = PretrainingSettings(num_steps=3, batch_size=batch_size, accumulate=accumulate, lr=1e-3)
        pretrain(engine, config, tokenizer, corpora[0], None, tmp_path / str(accumulate), settings, RunSettings(ckpt_interval=0))
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


def test_a_finished_run_gives_its_scores_again(train, tmp_path):
    first = train(tmp_path / "run")
    assert train(tmp_path / "run") == first


def test_divergence_is_reported_with_the_last_good_checkpoint(train, tmp_path):
    with pytest.raises(BortError, match=r"the loss is not finite by step \d+; .*checkpoint"):
        train(tmp_path / "run", PretrainingSettings(**{**SETTINGS.__dict__, "lr": 1e30}))
    assert not (tmp_path / "run" / "model").exists()


def test_resuming_on_other_text_is_refused(train, make_engine, tokenizer, corpora, tmp_path):
    train(tmp_path / "run")
    engine, config = make_engine()
    with pytest.raises(BortError, match="made with corpus"):
        pretrain(engine, config, tokenizer, corpora[1], None, tmp_path / "run", SETTINGS, RunSettings())


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


def test_evaluation_is_the_same_however_it_is_batched(make_engine, tokenizer, corpora):
    engine, _ = make_engine()
    scores = [evaluate(engine, corpora[1], tokenizer, PretrainingSettings(batch_size=batch_size)) for batch_size in (1, 5, 16)]
    for score in scores[1:]:
        assert score == pytest.approx(scores[0], rel=1e-5)


def test_measures_are_means_over_masked_tokens():
    sums = {"masked_tokens": 4.0, "mlm_loss": 8.0, "mlm_correct": 1.0, "student_entropy": 6.0, "updates": 2.0, "gradient_norm": 3.0}
    sums |= {"kd_loss": 2.0, "teacher_entropy": 1.0, "agreement": 3.0, "teacher_correct": 2.0}
    measures = training_measures(sums)
    assert measures["mlm_loss"] == 2.0
    assert measures["mlm_accuracy"] == 0.25
    assert measures["gradient_norm"] == 1.5
    assert (measures["kd_loss"], measures["agreement"], measures["teacher_accuracy"]) == (0.5, 0.75, 0.5)
    assert "kd_loss" not in training_measures(sums | {"teacher_entropy": 0.0})
