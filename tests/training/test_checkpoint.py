"""Checkpoints: whole or absent, newest last, only so many kept."""

from __future__ import annotations

import errno

import numpy as np
import pytest

import bort.training.checkpoint
from bort import BortError
from bort.training.checkpoint import forget_later_work, latest_checkpoint, read_checkpoint, remove_whole, require_own, write_checkpoint

STATE = {"layer.weight": np.ones((2, 3), np.float32), "mean/layer.weight": np.zeros((2, 3), np.float32)}


def write(run, step, tokenizer, keep_last=2, state=STATE):
    return write_checkpoint(run, step, state, {"seed": 1}, tokenizer, keep_last)


def test_state_settings_and_vocabulary_go_round(tmp_path, tokenizer):
    path = write(tmp_path, 100, tokenizer)
    assert {file.name for file in path.iterdir()} == {
        "0000100.params", "0000100.states.safetensors", "state.json", "vocab.json", "merges.txt",
    }  # fmt: skip
    checkpoint = read_checkpoint(path)
    assert (checkpoint.step, checkpoint.identity) == (100, {"seed": 1})
    state = checkpoint.engine_state()
    assert state.keys() == STATE.keys()
    assert all(np.array_equal(state[name], STATE[name]) for name in STATE)


def test_the_newest_is_found_by_its_number_and_older_ones_go(tmp_path, tokenizer):
    assert latest_checkpoint(tmp_path) is None
    for step in (999_999, 1_000_000, 10_000_000):
        write(tmp_path, step, tokenizer)
    assert latest_checkpoint(tmp_path).step == 10_000_000
    assert len(list(tmp_path.iterdir())) == 2
    write(tmp_path, 10_000_001, tokenizer, keep_last=0)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_full_disk_leaves_the_previous_checkpoint(tmp_path, tokenizer, monkeypatch):
    write(tmp_path, 1, tokenizer, keep_last=1)

    def fail(path, arrays):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(bort.training.checkpoint, "write_parameters", fail)
    message = r"checkpoint_0000002: cannot be written: No space left on device; the last checkpoint is .*/checkpoint_0000001; "
    with pytest.raises(BortError, match=message):
        write(tmp_path, 2, tokenizer, keep_last=1)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0000001"]
    assert latest_checkpoint(tmp_path).step == 1


@pytest.mark.parametrize("spoilt", ["layer.weight", "mean/layer.weight"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_not_written(tmp_path, tokenizer, spoilt, value):
    write(tmp_path, 1, tokenizer, keep_last=1)
    state = {name: values.copy() for name, values in STATE.items()}
    state[spoilt][1, 2] = value
    with pytest.raises(BortError, match=rf"{spoilt} is not finite by step 2; the last checkpoint is .*/checkpoint_0000001; "):
        write(tmp_path, 2, tokenizer, keep_last=1, state=state)
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint_0000001"]


@pytest.mark.parametrize("content", [None, "", "{}", "[" * 100_000, '{"step": -1, "settings": {}}', '{"step": 1, "settings": []}'])
def test_something_else_is_not_a_checkpoint(tmp_path, content):
    if content is not None:
        (tmp_path / "state.json").write_text(content)
    with pytest.raises(BortError, match=r"state\.json: (not the state of a checkpoint|No such file)"):
        read_checkpoint(tmp_path)


def test_files_that_are_no_checkpoints_are_left_alone(tmp_path, tokenizer):
    for name in ("checkpoint_0000abc", "checkpoint_0000012_backup"):
        (tmp_path / name).mkdir()
    (tmp_path / "checkpoint_0000099").touch()
    (tmp_path / ".checkpoint_0000007.x.partial").mkdir()
    write(tmp_path, 5, tokenizer, keep_last=1)
    assert latest_checkpoint(tmp_path).step == 5
    forget_later_work(tmp_path, 0)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_0000abc", "checkpoint_0000012_backup", "checkpoint_0000099"}


def test_what_a_kill_left_of_an_earlier_removal_does_not_stand_in_the_way(tmp_path):
    for name in ("best", ".best.retired.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").touch()
    remove_whole(tmp_path / "best")
    assert not list(tmp_path.iterdir())


def test_a_folder_is_a_runs_own_beside_its_configuration_and_its_metrics_or_a_checkpoint(tmp_path):
    require_own(tmp_path, tmp_path / "model")
    (tmp_path / "model").mkdir()
    for name in ("metrics.jsonl", "config.json"):
        with pytest.raises(BortError, match=r"model: in the way, and not the work of a run in "):
            require_own(tmp_path, tmp_path / "model")
        (tmp_path / name).touch()
    require_own(tmp_path, tmp_path / "model")
    (tmp_path / "metrics.jsonl").unlink()
    (tmp_path / "checkpoint_0000004").mkdir()
    require_own(tmp_path, tmp_path / "model")
