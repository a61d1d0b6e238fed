"""bort predict: test sets, files and standard input, in order, from a checkpoint on disk."""

from __future__ import annotations

import pytest

from bort import BortConfig, get_bort_model
from bort.cli import main
from bort.gluon.parameters import get_arrays
from bort.model_directory import write_model_directory

from .test_main import run_bort


@pytest.fixture(scope="module")
def checkpoints(repository, tokenizer, tmp_path_factory):
    """Classifiers for SST-2, RTE and STS-B, fine-tuned for an epoch or a few, and the run of SST-2."""
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
    for task, epochs in (("SST-2", 6), ("RTE", 1), ("STS-B", 1), ("MNLI", 1)):
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


def test_a_diagnostic_set_is_labelled_by_its_parent_task(checkpoints, repository, tmp_path):
    arguments = ["--task", "AX", "--data_root", str(repository / "test_data"), "--output", str(tmp_path)]
    assert main(["predict", "--checkpoint", str(checkpoints / "MNLI" / "best"), *arguments]) == 0
    words = {line.split("\t")[1] for line in (tmp_path / "AX.tsv").read_text().splitlines()[1:]}
    assert words <= {"neutral", "entailment", "contradiction"}


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
