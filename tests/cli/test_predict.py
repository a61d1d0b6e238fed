"""bort predict: test sets, files and standard input, in order, from a checkpoint on disk."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bort import BortConfig, get_bort_model
from bort.cli import main
from bort.gluon.parameters import get_arrays
from bort.model_directory import write_model_directory

from .test_main import run_bort


@pytest.fixture(scope="module")
def checkpoints(repository, tokenizer, tmp_path_factory, blank_curves):
    """Runs of SST-2, RTE and STS-B, fine-tuned for an epoch or a few."""
    folder = tmp_path_factory.mktemp("checkpoints")
    config = BortConfig(
        hidden_size=32,
        intermediate_size=24,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )
    net, _ = get_bort_model(config, seed=0)
    write_model_directory(folder / "model", config, get_arrays(net), tokenizer)
    for task, epochs in (("SST-2", 6), ("RTE", 1), ("STS-B", 1)):
        options = ["--epochs", str(epochs), "--batch_size", "16", "--lr", "3e-3", "--warmup_ratio", "0.2", "--max_len", "48"]
        arguments = ["--task", task, "--model", str(folder / "model"), "--data_root", str(repository / "test_data")]
        assert main(["finetune", *arguments, "--output_dir", str(folder / task), *options]) == 0
    return folder


@pytest.mark.parametrize("task", ["SST-2", "RTE", "STS-B"])
def test_a_test_set_gives_the_files_of_fine_tuning(checkpoints, repository, tmp_path, task, capsys):
    best = str(checkpoints / task / "best")
    assert (
        main(["predict", "--checkpoint", best, "--task", task, "--data_root", str(repository / "test_data"), "--output", str(tmp_path)])
        == 0
    )
    assert f"predictions in {tmp_path}/{task}.tsv" in capsys.readouterr().out
    assert (tmp_path / f"{task}.tsv").read_bytes() == (checkpoints / task / "predictions" / f"{task}.tsv").read_bytes()


def test_another_tasks_test_set_is_refused(checkpoints, repository, tmp_path, capsys):
    arguments = ["--task", "STS-B", "--data_root", str(repository / "test_data"), "--output", str(tmp_path / "out")]
    assert main(["predict", "--checkpoint", str(checkpoints / "RTE" / "best"), *arguments]) == 2
    assert "fine-tuned on RTE; it cannot label STS-B" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_lines_of_standard_input_are_labelled_in_order(checkpoints):
    sentences = ["the soup was wonderful", "a terrible film", "x" * 3000, "", "ça va 😀"] * 300
    result = run_bort("predict", "--checkpoint", checkpoints / "SST-2" / "best", "--input", "-", text="\n".join(sentences) + "\n")
    assert result.returncode == 0, result.stderr
    rows = [line.split("\t") for line in result.stdout.splitlines()]
    assert rows[0] == ["index", "prediction"]
    assert [row[0] for row in rows[1:]] == [str(index) for index in range(1500)]
    # The same sentence has the same label wherever it stands.
    assert [row[1] for row in rows[1:]] == [row[1] for row in rows[1:6]] * 300
    assert {row[1] for row in rows[1:]} <= {"0", "1"}


def test_a_file_of_pairs_is_labelled_into_a_file(checkpoints, tmp_path):
    (tmp_path / "rows.tsv").write_text("It rains.\tIt is wet.\r\nHe sings.\tNobody sings.\n")
    arguments = ["--checkpoint", str(checkpoints / "RTE" / "best"), "--input", str(tmp_path / "rows.tsv")]
    assert main(["predict", *arguments, "--output", str(tmp_path / "out.tsv")]) == 0
    rows = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert [row[0] for row in rows] == ["index", "0", "1"]
    assert {row[1] for row in rows[1:]} <= {"entailment", "not_entailment"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"one\ttwo\nonly one\n", "rows.tsv, line 2: 1 tab-separated texts, the task has 2"),
        (b"one\ttwo\nthree\tf\xe9ur\n", "rows.tsv, line 2: not UTF-8"),
    ],
)
def test_a_wrong_row_is_named_and_leaves_no_file(checkpoints, tmp_path, capsys, content, message):
    (tmp_path / "rows.tsv").write_bytes(content)
    arguments = ["--checkpoint", str(checkpoints / "RTE" / "best"), "--input", str(tmp_path / "rows.tsv")]
    assert main(["predict", *arguments, "--output", str(tmp_path / "out.tsv")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "out.tsv").exists()


def test_json_lines_keep_their_ids_and_get_probabilities(checkpoints, tmp_path):
    rows = [{"sentence1": "It rains.", "sentence2": "It is wet.", "idx": 7}, {"text1": "He sings.", "text2": "She is silent.", "id": "b"}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    arguments = ["predict", "--checkpoint", str(checkpoints / "RTE" / "best"), "--input", str(tmp_path / "rows.jsonl")]
    assert main([*arguments, "--probabilities", "--output", str(tmp_path / "out.jsonl")]) == 0
    answers = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [answer["id"] for answer in answers] == [7, "b"]
    for answer in answers:
        assert list(answer["probabilities"]) == ["not_entailment", "entailment"]
        assert sum(answer["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        assert answer["label"] == max(answer["probabilities"], key=answer["probabilities"].get)
    assert main([*arguments, "--output_format", "tsv", "--probabilities", "--output", str(tmp_path / "out.tsv")]) == 0
    header, *lines = [line.split("\t") for line in (tmp_path / "out.tsv").read_text().splitlines()]
    assert header == ["index", "prediction", "probability_not_entailment", "probability_entailment"]
    assert [line[0] for line in lines] == ["7", "b"]
    np.testing.assert_allclose(
        [[float(cell) for cell in line[2:]] for line in lines], [list(answer["probabilities"].values()) for answer in answers], atol=2e-6
    )


def test_a_regression_gives_scores_within_its_range(checkpoints, tmp_path, capfd):
    (tmp_path / "rows.tsv").write_text("a\tb\nc\td\n")
    arguments = ["--checkpoint", str(checkpoints / "STS-B" / "best"), "--input", str(tmp_path / "rows.tsv"), "--output_format", "jsonl"]
    capfd.readouterr()
    assert main(["predict", *arguments]) == 0
    answers = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert [answer["id"] for answer in answers] == [0, 1]
    assert all(0.0 <= answer["score"] <= 5.0 for answer in answers)


def test_a_pipe_that_trickles_is_answered_row_by_row(checkpoints):
    command = [sys.executable, "-m", "bort", "predict", "--checkpoint", str(checkpoints / "SST-2" / "best"), "--input", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        for number in range(3):
            process.stdin.write(b"the soup was wonderful\n")
            process.stdin.flush()
            if number == 0:
                assert process.stdout.readline() == b"index\tprediction\n"
            # Were it not answered before the next row is written, this would wait for ever.
            assert process.stdout.readline().startswith(f"{number}\t".encode())
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0, process.stderr.read()


def test_the_dev_set_is_scored_as_fine_tuning_scored_it(checkpoints, repository, capsys):
    arguments = ["--task", "SST-2", "--segment", "dev", "--data_root", str(repository / "test_data")]
    assert main(["predict", "--checkpoint", str(checkpoints / "SST-2" / "best"), *arguments]) == 0
    evaluations = [json.loads(line) for line in (checkpoints / "SST-2" / "metrics.jsonl").read_text().splitlines()]
    best = max(entry["accuracy"] for entry in evaluations if entry["kind"] == "eval")
    assert f"SST-2 dev accuracy {best:.4f}" in capsys.readouterr().out


MEASURED = """
import re, sys
from bort.cli import main
for name in sys.argv[1:3]:
    status = main(["predict", *sys.argv[3:], "--input", name, "--output", name + ".out"])
    # Not ru_maxrss, which begins with what the parent had when it forked.
    print(status, int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) // 1024, file=sys.stderr)
"""


def test_memory_does_not_grow_with_the_input(checkpoints, tmp_path):
    inputs = {str(tmp_path / f"{num_rows}.tsv"): num_rows for num_rows in (2_000, 40_000)}
    for path, num_rows in inputs.items():
        Path(path).write_text("".join(f"the soup was number {row} and {'very ' * (row % 7)}good\n" for row in range(num_rows)))
    arguments = [*inputs, "--checkpoint", str(checkpoints / "SST-2" / "best"), "--batch_size", "256"]
    result = subprocess.run([sys.executable, "-c", MEASURED, *arguments], capture_output=True, text=True, check=True)
    peaks = []
    for (path, num_rows), line in zip(inputs.items(), result.stderr.splitlines()[-2:], strict=True):
        status, megabytes = line.split()
        assert status == "0"
        assert len(Path(f"{path}.out").read_text().splitlines()) == num_rows + 1
        peaks.append(int(megabytes))
    assert peaks[1] - peaks[0] < 60, peaks


@pytest.mark.parametrize(
    ("name", "options", "header"),
    [
        ("e.tsv", [], "index\tprediction\n"),
        ("e.jsonl", [], ""),
        ("e.jsonl", ["--output_format", "tsv"], "index\tprediction\n"),
        ("e", ["--format", "jsonl"], ""),
        ("e", ["--probabilities"], "index\tprediction\tprobability_not_entailment\tprobability_entailment\n"),
    ],
)
def test_an_empty_input_has_the_header_of_its_output(checkpoints, tmp_path, name, options, header):
    (tmp_path / name).write_bytes(b"")
    arguments = ["--checkpoint", str(checkpoints / "RTE" / "best"), "--input", str(tmp_path / name), *options]
    assert main(["predict", *arguments, "--output", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out").read_text() == header


def test_json_lines_without_a_telling_name_get_json_lines_alone(checkpoints, tmp_path, capfd):
    (tmp_path / "rows").write_text('{"text": "fine", "id": "é"}\n', encoding="utf-8")
    capfd.readouterr()
    assert main(["predict", "--checkpoint", str(checkpoints / "SST-2" / "best"), "--input", str(tmp_path / "rows")]) == 0
    assert [json.loads(line)["id"] for line in capfd.readouterr().out.splitlines()] == ["é"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task", "RTE", "--probabilities"], "--probabilities says nothing with --task"),
        (["--task", "RTE", "--format", "tsv"], "--format says nothing with --task"),
        (["--input", "-", "--segment", "dev"], "--segment says nothing with --input"),
        (["--input", "-", "--data_root", "x"], "--data_root says nothing with --input"),
        (["--task", "AX-b", "--segment", "dev"], "AX-b has no dev rows; it has test"),
    ],
)
def test_options_that_say_nothing_are_refused(checkpoints, capsys, arguments, message):
    assert main(["predict", "--checkpoint", str(checkpoints / "RTE" / "best"), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_a_closed_standard_input_is_said_in_one_line(checkpoints):
    command = f"{sys.executable} -m bort predict --checkpoint {checkpoints}/SST-2/best --input - <&-"
    result = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "standard input is closed" in result.stderr
