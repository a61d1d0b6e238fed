"""The pre-training benchmark at toy size: what it verifies, what it reports, and the peer where PyTorch is installed."""

from __future__ import annotations

import importlib.util
import json
import math

import numpy as np
import pytest

import bort.bench.pretrain
from bort import BortError
from bort.bench.pretrain import Shape, bench_pretrain, make_batches
from bort.cli import main

HAS_PEER = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))


@pytest.fixture(scope="module")
def models(repository):
    return {name: str(repository / "test_data" / "models" / f"{name}.json") for name in ("student", "teacher")}


def test_the_command_prints_two_tables_and_a_json_line(models, tmp_path, capsys):
    command = ["bench", "pretrain", "--model", models["student"], "--teacher_model", models["teacher"], "--shapes", "2x32", "3x16"]
    assert main([*command, "--repeats", "2", "--updates", "1", "--json", str(tmp_path / "line.json")]) == 0
    output = capsys.readouterr().out
    record = json.loads((tmp_path / "line.json").read_text())
    assert json.loads(output.splitlines()[-1]) == record
    assert [(row["shape"], row["teacher"] is not None) for row in record["rows"]] == [
        ("2x32", False), ("2x32", True), ("3x16", False), ("3x16", True),
    ]  # fmt: skip
    for row in record["rows"]:
        assert row["initial_loss"] == pytest.approx(math.log(_vocab_size(models["student"])), rel=0.02)
        assert len(row["tokens_per_second"]["samples"]) == 2
        assert all(sample > 0 for sample in row["tokens_per_second"]["samples"])
        stages = row["stages_ms"]
        assert row["teacher"] is None or stages["teacher"] > 1e-2
        assert all(stages[name] > 0 for name in ("student forward", "loss", "backward", "optimiser", "logging"))
        assert 0 <= row["data_wait_share"] < 1
        assert "peer" not in row
    assert "Where the time goes" in output


def _vocab_size(path):
    with open(path, encoding="utf-8") as stream:
        return json.load(stream).get("vocab_size", 50265)


def test_a_wrong_loss_is_refused_before_anything_is_timed(models, monkeypatch):
    monkeypatch.setattr(bort.bench.pretrain, "_initial_loss", lambda engine, batch: 1.0)
    with pytest.raises(BortError, match=r"verification failed: the loss is 1\.00000.*nothing was timed"):
        bench_pretrain(models["student"], None, [Shape(2, 16)], 1, False)


@pytest.mark.skipif(HAS_PEER, reason="PyTorch and Transformers are here")
def test_without_the_peer_it_says_how_to_install_it(models):
    with pytest.raises(BortError, match=r"--vs torch needs .*torch.*pip install"):
        bench_pretrain(models["student"], None, [Shape(2, 16)], 1, True)


@pytest.mark.skipif(not HAS_PEER, reason="needs PyTorch and Transformers, which are an extra: pip install .[peers]")
def test_the_peer_has_the_same_loss_for_the_same_weights(models):
    record = bench_pretrain(models["student"], None, [Shape(2, 32)], 2, True, updates=1)
    (row,) = record["rows"]
    assert row["peer"]["initial_loss"] == pytest.approx(row["initial_loss"], rel=1e-4)
    assert len(row["peer"]["ratio"]["samples"]) == 2
    assert {"torch", "transformers"} <= record["machine"]["versions"].keys()


def test_batches_are_full_and_masked_as_in_pre_training():
    (batch,) = make_batches(Shape(3, 64), 500, 1).update(0, 0)
    assert batch.input_ids.shape == (3, 64)
    assert (batch.valid_length == 64).all()
    assert batch.masked_weights.sum() == 3 * round(0.15 * 62)
    assert np.all((batch.masked_labels[batch.masked_weights > 0] >= 4) & (batch.masked_labels[batch.masked_weights > 0] < 499))


@pytest.mark.parametrize("text", ["8", "8x", "x128", "0x128", "8x8", "8 x 128"])
def test_a_shape_is_sequences_times_tokens(text):
    with pytest.raises(BortError, match="not a shape"):
        Shape.parse(text)
