"""The journal: what is on disk after a run, after a kill, and after resuming."""

from __future__ import annotations

import errno
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event

import bort.training.journal
from bort import BortError
from bort.training.journal import CURVES_FILE, METRICS_FILE, Journal, read_metrics


def scalars(folder):
    """Tag, step and value of every scalar in the folder's TensorBoard files, read as length-prefixed records."""
    found = []
    for path in sorted(folder.glob("events*")):
        data, position = path.read_bytes(), 0
        while position < len(data):
            length = int.from_bytes(data[position : position + 8], "little")
            event = Event.FromString(data[position + 12 : position + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            position += length + 16
    return found


def test_entries_are_lines_events_and_a_picture(tmp_path):
    with Journal(tmp_path, 10) as journal:
        journal.record(5, "train", {"loss": 2.5})
        journal.record(10, "eval", {"loss": 1.5, "accuracy": math.nan})
        # A line is on disk before the run ends.
        assert len((tmp_path / METRICS_FILE).read_text().splitlines()) == 2
    assert read_metrics(tmp_path) == [
        {"step": 5, "kind": "train", "loss": 2.5},
        {"step": 10, "kind": "eval", "loss": 1.5, "accuracy": None},
    ]
    assert scalars(tmp_path / "tensorboard")[:2] == [("train/loss", 5, 2.5), ("eval/loss", 10, 1.5)]
    assert (tmp_path / CURVES_FILE).stat().st_size > 1000


def test_curves_are_drawn_at_evaluations_but_not_more_than_once_a_minute(tmp_path, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(bort.training.journal, "monotonic", lambda: clock[0])
    drawn = []
    monkeypatch.setattr(bort.training.journal, "draw_curves", lambda run: drawn.append(len(read_metrics(run))))
    with Journal(tmp_path, 10) as journal:
        for step, (seconds, kind) in enumerate([(59, "eval"), (2, "train"), (1, "eval"), (59, "eval"), (2, "eval"), (99, "train")], 1):
            clock[0] += seconds
            journal.record(step, kind, {"loss": 1.0})
        assert drawn == [3, 5]
    assert drawn == [3, 5, 6]


def test_an_error_is_not_hidden_by_a_full_disk(tmp_path, monkeypatch):
    def fail(run):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(bort.training.journal, "draw_curves", fail)
    with pytest.raises(BortError, match="what to do"), Journal(tmp_path, 10):
        raise BortError("what to do")
    with pytest.raises(OSError, match="No space left"), Journal(tmp_path, 10):
        pass


def test_pytorch_is_not_imported_even_where_it_is_installed(tmp_path):
    """tensorboardX would import it, and in one process with Horovod that crashes."""
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n")
    program = (
        "import sys, pathlib; from bort.training.journal import Journal; Journal(pathlib.Path('run'), 1).record(1, 'train', {'loss': 1.0})"
    )
    program += "; assert 'torch' not in sys.modules"
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
        env=os.environ | {"PYTHONPATH": f"{tmp_path}:{Path(__file__).resolve().parents[2]}"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    with Journal(tmp_path, 10) as journal:
        for step in (2, 4, 6):
            journal.record(step, "train", {"loss": float(step)})
    with (tmp_path / METRICS_FILE).open("a") as lines:
        lines.write('{"step": 8, "ki')
    with Journal(tmp_path, 10, first_step=4) as journal:
        journal.record(6, "train", {"loss": 60.0})
    assert [(entry["step"], entry["loss"]) for entry in read_metrics(tmp_path)] == [(2, 2.0), (4, 4.0), (6, 60.0)]


def test_a_new_run_in_an_old_folder_starts_an_empty_record(tmp_path):
    for loss in (1.0, 2.0):
        with Journal(tmp_path, 10) as journal:
            journal.record(5, "train", {"loss": loss})
    assert [json.loads(line)["loss"] for line in (tmp_path / METRICS_FILE).read_text().splitlines()] == [2.0]


def test_other_workers_write_nothing(tmp_path, capsys):
    with Journal(None, 10) as journal:
        journal.record(5, "train", {"loss": 2.5})
        journal.advance()
    assert not list(tmp_path.iterdir())
    assert capsys.readouterr() == ("", "")


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / METRICS_FILE).write_text('{"step": 1, "kind": "train"}\n{"ste\n{"step": 2, "kind": "train"}\n')
    with pytest.raises(BortError, match=r"metrics\.jsonl, line 2"):
        read_metrics(tmp_path)


def test_a_reader_that_has_gone_does_not_end_the_run(tmp_path):
    """As behind ``| head -1``."""
    program = (
        "import sys, pathlib; from bort.training.journal import Journal\n"
        "with Journal(pathlib.Path('run'), 9) as journal:\n"
        "    for step in range(1, 4):\n"
        "        journal.note(f'note {step}')\n"
        "        if step == 1: sys.stdin.readline()\n"
        "        journal.record(step, 'eval', {'loss': 1.0})\n"
        "print('the end')"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program], cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout.readline() == "note 1\n"
    process.stdout.close()
    process.stdin.write("\n")
    process.stdin.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
    assert [entry["step"] for entry in read_metrics(tmp_path / "run")] == [1, 2, 3]
