"""The journal: what is on disk after a run, after a kill, and after resuming."""

from __future__ import annotations

import json
import math

import pytest
from tensorboardX.proto.event_pb2 import Event

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
