"""Model folders: they go round, and what is missing or damaged is named."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest

from bort import BortConfig, BortError
from bort.model_directory import ModelSource, TrainedTask, find_model, read_model_directory, write_model_directory
from bort.parameters import read_parameters

ARRAYS = {"word_embed.0.weight": np.arange(6, dtype=np.float32).reshape(2, 3)}
TASK = {"name": "RTE", "labels": ["not_entailment", "entailment"], "max_len": 48, "keep_question": False}


@pytest.fixture
def folder(tokenizer, tmp_path):
    config = BortConfig(hidden_size=64, vocab_size=len(tokenizer.vocab))
    write_model_directory(tmp_path / "model", config, ARRAYS, tokenizer, TrainedTask("RTE", ("not_entailment", "entailment"), 48))
    return tmp_path / "model"


def test_everything_goes_round(folder, tokenizer):
    model = read_model_directory(folder)
    assert model.config == BortConfig(hidden_size=64, vocab_size=400)
    assert model.task == TrainedTask("RTE", ("not_entailment", "entailment"), 48)
    assert model.tokenizer().vocab == tokenizer.vocab
    np.testing.assert_array_equal(read_parameters(model.parameters)["word_embed.0.weight"], ARRAYS["word_embed.0.weight"])
    assert sorted(path.name for path in folder.iterdir()) == ["bort.params", "config.json", "merges.txt", "vocab.json"]


@pytest.mark.parametrize("name", ["config.json", "bort.params", "vocab.json"])
def test_a_missing_file_is_named(folder, name):
    (folder / name).unlink()
    with pytest.raises(BortError, match=rf"{name.split('.')[0]}"):
        read_model_directory(folder).tokenizer()


def test_a_vocabulary_of_another_size_is_refused(folder):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"vocab_size": 401}))
    with pytest.raises(BortError, match=r"the vocabulary has 400 tokens, config\.json says 401"):
        read_model_directory(folder).tokenizer()


@pytest.mark.parametrize(
    "task",
    [[], "RTE", {"name": "RTE"}, {"name": 3, "labels": None, "max_len": 9}, TASK | {"max_len": "48"}, TASK | {"labels": "yes"}]
    + [{name: value for name, value in TASK.items() if name != left_out} for left_out in TASK],
)
def test_a_damaged_task_is_refused(folder, task):
    fields = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(fields | {"task": task}))
    with pytest.raises(BortError, match=r"config\.json: task must hold name, labels, max_len and keep_question"):
        read_model_directory(folder)


def test_a_model_without_a_task_has_none(tokenizer, tmp_path):
    write_model_directory(tmp_path / "model", BortConfig(vocab_size=400), ARRAYS, tokenizer)
    assert read_model_directory(tmp_path / "model").task is None


def test_a_model_is_found_by_folder_architecture_or_file(folder, tmp_path):
    assert find_model(str(folder)) == ModelSource(str(folder), read_model_directory(folder).config, folder / "bort.params", folder)
    assert find_model(folder) == find_model(str(folder))
    other = tmp_path / "other.params"
    assert find_model(str(folder), str(other)).parameters == other
    assert find_model("bort_2_16_512_1024", None).parameters is None
    config = BortConfig(hidden_size=64)
    assert find_model(config, other) == ModelSource("given by a configuration", config, other)
    with pytest.raises(BortError, match=r"a config\.json or a model folder"):
        find_model("nowhere", None)
    with pytest.raises(BortError, match=r"is a folder, so it says itself what model it is"):
        find_model("bort_2_16_512_1024", str(folder))
    (folder / "bort.params").unlink()
    with pytest.raises(BortError, match=r"no bort\.params of ours, no model\.safetensors and no model\.safetensors\.index\.json"):
        find_model(folder)
    with pytest.raises(BortError, match=r"bort_2_16_512_1024 names an architecture without parameters"):
        find_model("bort_2_16_512_1024").read_parameters()


def test_a_fingerprint_is_the_files_content_whatever_its_name(folder, tmp_path):
    source = find_model(str(folder), None)
    (tmp_path / "copy.params").write_bytes((folder / "bort.params").read_bytes())
    copy = find_model(str(folder), str(tmp_path / "copy.params"))
    assert copy.fingerprint() == source.fingerprint() == hashlib.sha256((folder / "bort.params").read_bytes()).hexdigest()
    assert find_model("bort_2_16_512_1024", None).fingerprint() is None
    with pytest.raises(BortError, match=r"nowhere\.params: cannot read"):
        find_model(str(folder), str(tmp_path / "nowhere.params")).fingerprint()
