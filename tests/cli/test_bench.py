"""``bort bench``: a table for people, and one JSON line for programs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest

from bort.cli import main


def test_the_last_line_is_json_and_so_is_the_file(repository, tokenizer, tmp_path, capsys):
    tokenizer.save(tmp_path / "vocab")
    workers = [str(count) for count in (1, 2) if count <= len(os.sched_getaffinity(0))]
    arguments = ["--input", str(repository / "test_data/heldout"), "--vocab", str(tmp_path / "vocab"), "--repeats", "1"]
    assert main(["bench", "data", *arguments, "--workers", *workers, "--json", str(tmp_path / "line.json")]) == 0
    printed = capsys.readouterr().out
    line = printed.splitlines()[-1]
    assert (tmp_path / "line.json").read_text(encoding="utf-8") == line + "\n"
    record = json.loads(line)
    assert set(record) == {
        "benchmark", "machine", "text", "vocabulary", "settings", "verification", "runs", "speed_up", "encoding_alone", "reference_alone",
    }  # fmt: skip
    assert [str(run["workers"]) for run in record["runs"]] == workers
    assert list(record["speed_up"]) == workers[1:]
    assert record["verification"]["same_bytes_with_workers"] == [int(count) for count in workers]
    assert all(f"text to shards, {count} worker" in printed for count in workers)
    assert record["machine"]["cpu"] in printed


@pytest.mark.parametrize("arguments", [["bench"], ["bench", "data"], ["bench", "nothing"]])
def test_a_benchmark_and_its_input_must_be_named(arguments, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    "command",
    [
        "pretrain --model {t}/model.json --teacher_model none --shapes 2x16 --repeats 1 --updates 1",
        "finetune --model {t}/model.json --vocab {t}/vocab --task RTE --data_root {r}/test_data --repeats 1 --updates 1 --rows 4",
    ],
)
def test_threads_may_be_given_for_each_level_of_openmp(command, repository, tokenizer, tmp_path):
    """Which MXNet, read before its first operator, does not take."""
    tokenizer.save(tmp_path / "vocab")
    sizes = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}
    (tmp_path / "model.json").write_text(json.dumps(sizes | {"vocab_size": 400}))
    words = command.format(t=tmp_path, r=repository).split()
    program = [sys.executable, "-m", "bort", "bench", *words, "--json", str(tmp_path / "line.json")]
    result = subprocess.run(program, env=os.environ | {"OMP_NUM_THREADS": "1,1"}, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert json.loads((tmp_path / "line.json").read_text(encoding="utf-8"))["threads"] == 1


def test_wrong_input_is_one_line(tmp_path, capsys):
    assert main(["bench", "data", "--input", str(tmp_path / "nowhere.txt")]) == 2
    assert capsys.readouterr().err.startswith(f"bort: error: {tmp_path / 'nowhere.txt'}: no such text file")


SIZES = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 64}


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="needs pip install .[onnx]")
def test_inference_prints_tables_and_writes_the_report_and_the_line(tmp_path, capsys):
    (tmp_path / "model.json").write_text(json.dumps(SIZES | {"vocab_size": 400}))
    words = ["bench", "inference", "--model", str(tmp_path / "model.json"), "--rows", "bort/gluon/*", "bort/onnxruntime/fp32"]
    words += ["--shapes", "1x16", "2x20", "--repeats", "1", "--threads", "1"]
    assert main([*words, "--report", str(tmp_path / "report"), "--json", str(tmp_path / "line.json")]) == 0
    printed = capsys.readouterr().out
    record = json.loads((tmp_path / "line.json").read_text(encoding="utf-8"))
    assert (
        json.loads(printed.splitlines()[-1]) == record == json.loads((tmp_path / "report" / "inference.json").read_text(encoding="utf-8"))
    )
    assert {path.name for path in (tmp_path / "report").iterdir()} == {"inference.json", "inference.md", "inference.png"}
    assert [row["name"] for row in record["rows"]] == ["bort/gluon/fp32", "bort/onnxruntime/fp32"]
    assert "Latency of 2x20" in printed
    assert record["roofline"] == {"reason": "bort/openvino/int8 was not measured"}
    assert main([*words, "--report", str(tmp_path / "report")]) == 2
    assert capsys.readouterr().err == f"bort: error: {tmp_path / 'report'}: there already; give another --report, or remove it\n"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["inference", "--rows", "bort/tensorrt/*"], "bort: error: no row is called bort/tensorrt/*; there are bort/gluon/fp32"),
        (["inference", "--shapes", "32"], "bort: error: 32: not a shape"),
        (["soak", "--exported", "nowhere"], "bort: error: nowhere/export.json: cannot read"),
    ],
)
def test_what_cannot_be_measured_is_one_line(words, says, capsys):
    assert main(["bench", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith(says)
    assert len(error.splitlines()) == 1
