"""The fine-tuning benchmark at toy size: what it verifies, and what it reports."""

from __future__ import annotations

import json

import numpy as np
import pytest

import bort.bench.finetune
from bort import BortError
from bort.bench.finetune import Turns, bench_finetune, largest_difference
from bort.bench.processes import choose_cores, measure
from bort.cli import main
from bort.tasks import get_task
from bort.tasks.batches import EncodedRows, TrainingPlan


@pytest.fixture(scope="module")
def vocabulary(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench_vocab")
    tokenizer.save(folder)
    return str(folder)


@pytest.fixture(scope="module")
def student(repository):
    return str(repository / "test_data/models/student.json")


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return EncodedRows([random.integers(5, 90, length).astype(np.int32) for length in range(3, 70)], np.zeros(67, np.float32), 1, 128)


class Sums:
    """A predictor whose logit is the sum of a row's ids; ``looks_behind`` includes its padding."""

    def __init__(self, looks_behind=False, scale=1.0):
        self.looks_behind, self.scale = looks_behind, scale

    def predict(self, batch):
        counts = np.arange(batch.input_ids.shape[1]) < batch.valid_length[:, None]
        return self.scale * (batch.input_ids * (counts | self.looks_behind)).sum(axis=1, keepdims=True).astype(np.float32)


def test_the_command_prints_tables_and_a_json_line(repository, student, vocabulary, tmp_path, capsys):
    command = ["bench", "finetune", "--data_root", str(repository / "test_data"), "--model", student, "--vocab", vocabulary]
    more = ["--task", "SST-2", "STS-B", "--repeats", "2", "--updates", "1", "--rows", "40", "--json", str(tmp_path / "line.json")]
    assert main([*command, *more]) == 0
    output = capsys.readouterr().out
    record = json.loads((tmp_path / "line.json").read_text())
    assert json.loads(output.splitlines()[-1]) == record
    assert record["machine"]["cpu"] in output
    assert [(task["task"], task["rows"]) for task in record["tasks"]] == [("SST-2", 160), ("STS-B", 80)]
    for task in record["tasks"]:
        assert task["verification"]["rows_compared"] == 40
        assert 0 <= task["verification"]["largest_difference"] <= 1e-5
        buckets, shuffle, prediction = task["training"]["buckets"], task["training"]["shuffle"], task["prediction"]
        for side in (buckets, shuffle, prediction):
            rows, tokens = (side[name]["samples"] for name in ("rows_per_second", "tokens_per_second"))
            assert len(rows) == len(tokens) == 2
            assert 0 < side["padding"] < 1
            # A row has 3 tokens at least and max_len at most.
            assert all(3 * row <= token <= task["settings"]["max_len"] * row for row, token in zip(rows, tokens, strict=True))
        assert buckets["padding"] < shuffle["padding"]
        assert all(sample > 0 for side in ("cold_seconds", "cached_seconds") for sample in task["tokenising"][side]["samples"])
        assert "memory" not in task
        assert f"{task['task']}, training, plain shuffle" in output


def test_rows_alone_and_in_batches_give_the_same_logits_or_it_is_noticed(rows):
    assert largest_difference(Sums(), rows) == 0
    # A row of 17 tokens stands beside one of 69, and is judged by its padding of ones.
    assert largest_difference(Sums(looks_behind=True), rows) > 1
    assert np.isnan(largest_difference(Sums(scale=np.nan), rows))


@pytest.mark.parametrize("difference", [1e-3, float("nan")])
def test_other_logits_are_refused_before_anything_is_timed(repository, student, tokenizer, monkeypatch, difference):
    monkeypatch.setattr(bort.bench.finetune, "largest_difference", lambda predictor, rows: difference)
    task = get_task("SST-2", repository / "test_data")
    with pytest.raises(BortError, match=r"verification failed: SST-2: logits of batches differ .* by (0\.001|nan), .*nothing was timed"):
        bench_finetune([task], student, tokenizer, Turns(1, 1, 8))


def test_a_plan_that_leaves_a_row_out_is_refused(repository, student, tokenizer, monkeypatch):
    whole = TrainingPlan.rows
    monkeypatch.setattr(TrainingPlan, "rows", lambda plan, step, micro, rank: whole(plan, step, micro, rank)[1 if step == 3 else 0 :])
    task = get_task("SST-2", repository / "test_data")
    with pytest.raises(BortError, match=r"training does not see each of 160 rows once; nothing was timed"):
        bench_finetune([task], student, tokenizer, Turns(1, 1, 8))


def test_memory_is_that_of_a_process_that_labels_a_file(repository, student, tokenizer):
    task = get_task("RTE", repository / "test_data")
    record = bench_finetune([task], student, tokenizer, Turns(1, 1, 8), memory_rows=[250])
    ((measured,),) = (task["memory"] for task in record["tasks"])
    assert measured["rows"] == 250
    # MXNet alone takes more than the lower bound.
    assert 50 < measured["peak_mb"] < 4000


def test_a_prediction_that_fails_is_an_error(tmp_path):
    arguments = {"model": str(tmp_path), "rows": "absent.tsv", "output": str(tmp_path / "out.tsv")}
    with pytest.raises(BortError, match="bort predict ended with exit status 2"):
        measure("bort.bench.prediction_memory:predict_and_weigh", arguments, choose_cores(1))


@pytest.mark.parametrize("turns", [(0, 1, 1), (1, 0, 1), (1, 1, 0)])
def test_there_is_at_least_one_of_everything(turns):
    with pytest.raises(BortError, match="must be at least 1"):
        Turns(*turns)


def test_a_task_without_training_rows_is_refused(repository, student, vocabulary, capsys):
    command = ["bench", "finetune", "--task", "AX", "--data_root", str(repository / "test_data"), "--model", student, "--vocab", vocabulary]
    assert main(command) == 2
    assert "AX has no recipe" in capsys.readouterr().err
