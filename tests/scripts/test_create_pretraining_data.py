"""The published script's options, in a process of its own."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bort.corpus.shards import Corpus


@pytest.fixture(scope="module")
def vocabulary(tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocab")
    tokenizer.save(folder)
    return folder


def run(repository, vocabulary, output, *options):
    command = [sys.executable, repository / "scripts/create_pretraining_data.py", "--input_file", repository / "test_data/heldout"]
    command += ["--output_dir", output, "--vocab", vocabulary, "--max_seq_length", 64, *options]
    return subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)


def test_the_published_names_reach_the_command(repository, vocabulary, tmp_path):
    result = run(repository, vocabulary, tmp_path, "--num_outputs", 2, "--num_workers", 2, "--short_seq_prob", 0.5, "--random_seed", 5)
    assert result.returncode == 0, result.stderr
    assert Corpus(tmp_path).description["settings"] == {
        "documents": "blank_line",
        "text_key": "text",
        "max_seq_length": 64,
        "short_seq_prob": 0.5,
        "num_outputs": 2,
        "seed": 5,
    }


def test_npz_files_have_the_published_arrays(repository, vocabulary, tmp_path):
    masks = ["--dupe_factor", 2, "--masked_lm_prob", 0.2, "--max_predictions_per_seq", 5, "--whole_word_mask"]
    result = run(repository, vocabulary, tmp_path, "--format", "npz", *masks)
    assert result.returncode == 0, result.stderr
    (path,) = tmp_path.iterdir()
    arrays = np.load(path)
    assert arrays["masked_lm_positions"].shape[1] == 5
    assert len(arrays["valid_lengths"]) % 2 == 0


def test_an_unknown_option_is_one_line(repository, vocabulary, tmp_path):
    result = run(repository, vocabulary, tmp_path, "--nonsense", 1)
    assert result.returncode == 2
    assert result.stderr.splitlines() == ["bort: error: unrecognized arguments: --nonsense 1; see bort --help"]
