"""``bort pretrain``: what it takes as data, what it says before it starts, and what a run's folder says of itself."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from bort.cli import main
from bort.corpus.npz_writing import write_npz
from bort.parameters import read_parameters
from bort.settings import NpzSettings
from bort.training.journal import read_metrics


@pytest.fixture(scope="module")
def folder(tmp_path_factory, repository, tokenizer):
    """Vocabulary, a configuration, and one text as shards and as .npz files."""
    folder = tmp_path_factory.mktemp("pretrain")
    tokenizer.save(folder / "vocab")
    sizes = {"hidden_size": 32, "intermediate_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "max_position_embeddings": 64}
    (folder / "config.json").write_text(json.dumps(sizes))
    source = ["--input", str(repository / "test_data/corpus"), "--vocab", str(folder / "vocab"), "--max_seq_length", "32"]
    assert main(["data", *source, "--output", str(folder / "shards")]) == 0
    write_npz(folder / "shards", tokenizer.vocab, folder / "npz", NpzSettings(), seed=0)
    return folder


@pytest.fixture
def pretrain(folder, tmp_path, capsys):
    """Runs the command in a new folder; returns its status, that folder, and what was printed."""

    def pretrain(data, options=""):
        capsys.readouterr()
        inputs = f"--data {data} --vocab {folder}/vocab --model {folder}/config.json --teacher_model none --num_steps 3 --log_interval 1"
        status = main(["pretrain", *inputs.split(), "--output_dir", str(tmp_path / "run"), *options.split()])
        printed = capsys.readouterr()
        return status, tmp_path / "run", printed.out if status == 0 else printed.err

    return pretrain


def test_it_says_what_it_will_do_and_leaves_cards(pretrain, folder):
    status, run, printed = pretrain(f"{folder}/shards", f"--data_eval {folder}/shards --batch_size 5 --accumulate 2")
    assert status == 0
    lines = printed.splitlines()
    sizes = json.loads((run / "config.json").read_text())
    assert (sizes["vocab_size"], sizes["hidden_size"]) == (400, 32)
    counted = sum(array.size for name, array in read_parameters(run / "model" / "bort.params").items() if name != "decoder.3.weight")
    assert lines[0] == f"student: {folder}/config.json, 3 layers of hidden size 32, {counted:,} parameters with the head, on the CPU"
    assert lines[1] == "teacher: none"
    assert lines[3].startswith("run: 3 updates = 0.")
    assert re.search(r" epochs, each of 10 sequences \(1 worker × 2 × 5\), \d+\.\d% padding$", lines[3])
    card = (run / "model" / "README.md").read_text()
    assert f"{counted:,}" in card
    # The words that were run, which are not those of the process here.
    assert f"\nbort pretrain --data {folder}/shards --vocab {folder}/vocab --model " in card
    evaluation = json.loads((run / "best" / "evaluation.json").read_text())
    assert f"{evaluation['mlm_loss']:.4f}".rstrip("0") in (run / "best" / "README.md").read_text()
    card = (run / "data_card.md").read_text()
    assert "test_data/corpus/" in card
    assert "{" not in card


def test_shards_and_npz_files_of_one_text_train_alike(pretrain, folder, tmp_path):
    """The .npz files hold the masks of epoch 0 of a run with the same seed, and three updates do not go beyond that epoch."""
    losses = []
    for form in ("shards", "npz"):
        status, run, printed = pretrain(f"{folder}/{form}", "--resume never")
        assert status == 0, printed
        losses.append([entry["mlm_loss"] for entry in read_metrics(run)])
    assert losses[0] == losses[1]


def test_a_folder_with_both_is_refused(pretrain, folder, tmp_path):
    for form in ("shards", "npz"):
        for file in (folder / form).iterdir():
            (tmp_path / file.name).symlink_to(file)
    status, _, printed = pretrain(tmp_path)
    assert status == 2
    assert (
        printed
        == f"bort: error: {tmp_path}: holds shards (shard_*.safetensors) and *.npz files; move one of the sets to a folder of its own\n"
    )


def test_pickled_npz_files_need_a_word(pretrain, tmp_path):
    rows = {
        "input_ids": [[0, 5, 6, 7, 2], [0, 8, 2]], "masked_lm_positions": [[2], [1]], "masked_lm_ids": [[9], [8]],
        "masked_lm_weights": [[1.0], [1.0]], "segment_ids": [[0] * 5, [0] * 3],
    }  # fmt: skip
    arrays = {}
    for name, values in rows.items():
        arrays[name] = np.empty(2, dtype=object)
        for row, value in enumerate(values):
            arrays[name][row] = np.array(value)
    np.savez(tmp_path / "part-000.npz", **arrays, valid_lengths=np.array([5, 3]), next_sentence_labels=np.zeros(2, int))
    status, _, printed = pretrain(tmp_path)
    assert status == 2
    assert "allow_pickle" in printed
    status, run, printed = pretrain(tmp_path, "--allow_pickle")
    assert status == 0, printed
    assert len(read_metrics(run)) == 3
