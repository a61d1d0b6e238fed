"""The best model: the lowest held-out loss, whole at every moment, and the same however often the run was interrupted."""

from __future__ import annotations

import errno
import json
import os

import numpy as np
import pytest

import bort.training.best
from bort import BortConfig, BortError
from bort.model_directory import TrainedTask, read_model_directory
from bort.parameters import read_parameters
from bort.training.best import BEST_FOLDER, BestModel, TrainedModel, known_best
from bort.training.checkpoint import forget_later_work

LOSSES = (9.0, 7.0, 8.0, 6.0, 5.0, 5.5, 4.0, 4.0, 6.0)


class Killed(BaseException):
    """Stands for a kill, so nothing may catch it."""


@pytest.fixture
def train(tmp_path, tokenizer):
    """A run that evaluates at every step and has a checkpoint at every third; what it learns is the number of the step."""

    def train(run, losses=LOSSES):
        newest = run / "newest_checkpoint"
        first_step = int(newest.read_text()) if newest.exists() else 0
        forget_later_work(run, first_step)
        best = BestModel(run, first_step, "mlm_loss")
        for step in range(first_step + 1, len(losses) + 1):
            evaluation = {"mlm_loss": losses[step - 1], "mlm_accuracy": 0.5}
            if best.is_beaten_by(evaluation):
                best.replace(
                    step, evaluation, TrainedModel(BortConfig(vocab_size=400), {"weight": np.full(3, step, np.float32)}, tokenizer, "card")
                )
            if step % 3 == 0:
                newest.write_text(str(step))
                best.keep_from(step)

    run = tmp_path / "run"
    run.mkdir()
    return lambda *arguments: train(run, *arguments)


def best_of(run):
    """Step in the parameters and what evaluation.json says; the folder must be one that loads."""
    read_model_directory(run / BEST_FOLDER).tokenizer()
    weight = read_parameters(run / BEST_FOLDER / "bort.params")["weight"]
    evaluation = json.loads((run / BEST_FOLDER / "evaluation.json").read_text())
    assert evaluation["step"] == weight[0]
    assert (run / BEST_FOLDER / "README.md").read_text() == "card"
    return evaluation


def test_the_lowest_loss_is_kept_and_of_two_alike_the_first(train, tmp_path):
    train()
    assert best_of(tmp_path / "run") == {"step": 7, "mlm_loss": 4.0, "mlm_accuracy": 0.5}


def test_where_higher_is_better_the_highest_is_kept_and_of_two_alike_the_first(tmp_path, tokenizer):
    best = BestModel(tmp_path, 0, "score", higher_is_better=True)
    assert best.step == 0
    for step, value in enumerate((-0.5, 0.25, 0.25, np.nan, np.inf, 0.0), 1):
        evaluation = {"score": value, "dev": {"dev": {"accuracy": value}}}
        if best.is_beaten_by(evaluation):
            model = TrainedModel(BortConfig(vocab_size=400), {"weight": np.full(3, step, np.float32)}, tokenizer, "card")
            best.replace(step, evaluation, model)
    assert best.step == 2
    assert best_of(tmp_path) == {"step": 2, "score": 0.25, "dev": {"dev": {"accuracy": 0.25}}}
    again = BestModel(tmp_path, 2, "score", higher_is_better=True)
    assert again.step == 2
    assert not again.is_beaten_by({"score": 0.25})
    assert again.is_beaten_by({"score": 0.26})


def test_a_classifier_says_what_it_was_fine_tuned_for(tmp_path, tokenizer):
    task = TrainedTask("RACE", ("A", "B", "C", "D"), 64, keep_question=True)
    TrainedModel(BortConfig(vocab_size=400), {"weight": np.ones(3, np.float32)}, tokenizer, "card", task).write(tmp_path / "best")
    assert read_model_directory(tmp_path / "best").task == task


def test_a_loss_that_is_not_finite_is_never_the_best(train, tmp_path):
    train((np.nan, np.inf, 3.0, np.nan))
    assert best_of(tmp_path / "run")["step"] == 3


def test_killed_at_any_moment_it_ends_with_the_same_model(train, tmp_path, monkeypatch):
    """Killed before each of its renames and removals in turn, it has a whole best model or none yet, resumes and leaves nothing else."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)
    real = {name: getattr(os, name) for name in ("rename", "unlink", "rmdir")}
    remaining = 0

    def killing(name):
        def operation(*arguments, **options):
            nonlocal remaining
            remaining -= 1
            if remaining == 0:
                raise Killed
            return real[name](*arguments, **options)

        return operation

    for name in real:
        monkeypatch.setattr(os, name, killing(name))
    kills, finished = 0, False
    while not finished:
        remaining = kills + 1
        try:
            train()
            finished = True
        except Killed:
            kills += 1
        remaining = -1
        if (tmp_path / "run" / BEST_FOLDER).exists():
            best_of(tmp_path / "run")
        train()
        assert best_of(tmp_path / "run")["step"] == 7
        assert {path.name for path in (tmp_path / "run").iterdir()} == {"best", "newest_checkpoint"}
        (tmp_path / "run" / "newest_checkpoint").unlink()
    assert kills > 50


def test_a_full_disk_leaves_the_best_model_before(train, tmp_path, monkeypatch):
    train((9.0, 8.0))

    def fail(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    best = BestModel(tmp_path / "run", 2, "mlm_loss")
    monkeypatch.setattr(bort.training.best, "write_model_directory", fail)
    with pytest.raises(BortError, match=r"run/best: cannot be written: No space left on device; there is no checkpoint yet; "):
        best.replace(3, {"mlm_loss": 1.0}, TrainedModel(BortConfig(vocab_size=400), {}, None, ""))
    assert best_of(tmp_path / "run")["step"] == 2


def test_resuming_brings_back_the_best_of_the_checkpoint(train, tmp_path):
    """The run resumes with other losses, as another number of workers would have: the later best of before must not stand in their way."""
    train((9.0, 7.0, 8.0, 6.0, 5.0))
    assert best_of(tmp_path / "run")["step"] == 5
    train((None, None, None, 7.5, 7.25))
    assert best_of(tmp_path / "run")["step"] == 2


def test_a_run_begun_anew_forgets_it(train, tmp_path):
    train()
    (tmp_path / "run" / "newest_checkpoint").unlink()
    train((20.0,))
    assert best_of(tmp_path / "run") == {"step": 1, "mlm_loss": 20.0, "mlm_accuracy": 0.5}


@pytest.mark.parametrize("content", [None, "", "[" * 100_000, '{"step": 1}'])
def test_a_folder_of_someone_else_is_left_alone(tmp_path, content):
    folder = tmp_path / BEST_FOLDER
    folder.mkdir()
    (folder / "mine.txt").touch()
    if content is not None:
        (folder / "evaluation.json").write_text(content)
    with pytest.raises(BortError, match=r"best/evaluation\.json: not the evaluation of a run's best model; move the folder away"):
        BestModel(tmp_path, 0, "mlm_loss")
    assert (folder / "mine.txt").exists()


def test_what_would_be_known_is_found_without_a_change(train, tmp_path):
    run = tmp_path / "run"
    assert known_best(run, 9, "mlm_loss") == 0
    train((9.0, 7.0, 8.0, 6.0))
    # The best of step 2 has stepped aside for that of step 4.
    names = {path.name for path in run.iterdir()}
    assert [known_best(run, step, "mlm_loss") for step in range(5)] == [0, 0, 2, 2, 4]
    assert {path.name for path in run.iterdir()} == names == {"best", ".best_of_checkpoint", "newest_checkpoint"}
