"""Folders for Transformers: what is in them, that they come back unchanged, and that Transformers computes what we compute."""

from __future__ import annotations

import copy
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers

import bort.gluon  # noqa: F401  before mxnet: it restores what MXNet needs of NumPy
from bort import BortConfig, BortError, get_bort_model
from bort.cli import main
from bort.export.hugging_face import write_hugging_face
from bort.model_directory import TrainedTask, read_model_directory, write_model_directory
from bort.parameters import read_parameters, write_safetensors
from bort.sentencepiece_model import SentencePiece, train_model
from bort.settings import OptimizerSettings
from bort.tasks import get_task
from bort.tasks.encoding import encode_examples
from bort.tasks.task import Example
from bort.tokenizer import Tokenizer

HAS_TRANSFORMERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_transformers = pytest.mark.skipif(
    not HAS_TRANSFORMERS, reason="needs PyTorch and Transformers, which are an extra: pip install .[peers]"
)
PAIRS = [
    ("It rains.",),
    ("It rains.", "It is wet."),
    ("", "only the second"),
    ("  two  spaces\tand\na line", "Zoë’s café – naïve 你好 🙂"),
    ("a" * 300, "b c d"),
    ("<s> and </s > are not special", "x\x00y"),
]


@pytest.fixture(scope="module")
def config(tokenizer):
    return BortConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )


def spread_out(parameters):
    """Weights as a trained model has them, each its own: fresh ones are zeros, ones and numbers so small that an error would not show."""
    random = np.random.default_rng(7)
    spread = {name: (array + random.normal(0, 0.2, array.shape)).astype(np.float32) for name, array in parameters.items()}
    return spread | ({"decoder.3.weight": spread["word_embed.0.weight"]} if "decoder.3.weight" in spread else {})


@pytest.fixture(scope="module")
def pretrained(config, tokenizer, tmp_path_factory):
    """Model folder of a Bort with its head."""
    from bort.gluon.parameters import get_arrays

    folder = tmp_path_factory.mktemp("pretrained") / "model"
    net, _ = get_bort_model(config)
    write_model_directory(folder, config, spread_out(get_arrays(net)), tokenizer)
    return folder


@pytest.fixture(scope="module", params=["RTE", "STS-B", "WSC"])
def classifier(request, config, tokenizer, tmp_path_factory):
    """Model folder of a classifier: of words, of a regression, and of truth values."""
    from bort.gluon.finetuning import build_engine

    task, folder = get_task(request.param), tmp_path_factory.mktemp("classifier") / "best"
    engine = build_engine(config, task.num_classes, task.is_regression, 0.1, OptimizerSettings(), 0, None)
    write_model_directory(folder, config, spread_out(engine.parameters()), tokenizer, TrainedTask(task.name, task.labels, 48))
    return folder


def export(model, output, form="huggingface"):
    assert main(["export", "--format", form, "--model", str(model), "--output", str(output)]) == 0
    return output


def assert_same_model(folder, expected):
    assert (folder / "config.json").read_bytes() == (expected / "config.json").read_bytes()
    for name in ("vocab.json", "merges.txt"):
        assert (folder / name).read_bytes() == (expected / name).read_bytes()
    found, wanted = read_parameters(folder / "bort.params"), read_parameters(expected / "bort.params")
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)


def test_a_pretrained_model_goes_there_and_back(pretrained, tmp_path, capsys):
    folder = export(pretrained, tmp_path / "theirs")
    assert capsys.readouterr().out == f"{folder}: BertForMaskedLM\n"
    names = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.json", "merges.txt"}
    assert {path.name for path in folder.iterdir()} == names
    assert_same_model(export(folder, tmp_path / "ours", "gluon"), pretrained)


def test_a_classifier_goes_there_and_back(classifier, tmp_path):
    folder = export(classifier, tmp_path / "theirs")
    assert_same_model(export(folder, tmp_path / "ours", "gluon"), classifier)
    fields, task = json.loads((folder / "config.json").read_text()), read_model_directory(classifier).task
    if task.labels is None:
        assert (fields["problem_type"], fields["num_labels"]) == ("regression", 1)
    else:
        names = {"RTE": ["not_entailment", "entailment"], "WSC": ["False", "True"]}[task.name]
        assert fields["id2label"] == {str(number): name for number, name in enumerate(names)}
        assert fields["label2id"] == {name: number for number, name in enumerate(names)}


@pytest.fixture
def bare(pretrained, config, tokenizer, tmp_path):
    """Model folder of an encoder without its head."""
    parameters = read_parameters(pretrained / "bort.params")
    write_model_directory(
        tmp_path / "bare", config, {name: array for name, array in parameters.items() if not name.startswith("decoder.")}, tokenizer
    )
    return tmp_path / "bare"


def test_an_encoder_without_its_head_goes_there_and_back(bare, tmp_path, capsys):
    folder = export(bare, tmp_path / "theirs")
    assert capsys.readouterr().out == f"{folder}: BertModel\n"
    assert_same_model(export(folder, tmp_path / "ours", "gluon"), bare)


def test_the_exported_tokenizer_gives_the_ids_of_fine_tuning(pretrained, tokenizer, tmp_path):
    library = tokenizers.Tokenizer.from_file(str(export(pretrained, tmp_path / "theirs") / "tokenizer.json"))
    for texts in PAIRS:
        if "<s>" in texts[0]:
            continue  # there a special token in a text is special
        (ids,) = encode_examples([Example(0, texts, None, 1)], tokenizer, 10_000)
        found = library.encode(*texts)
        assert found.ids == ids.tolist()
        assert set(found.type_ids) == {0}


def test_a_special_token_in_a_text_is_special_there(pretrained, tokenizer, tmp_path):
    library = tokenizers.Tokenizer.from_file(str(export(pretrained, tmp_path / "theirs") / "tokenizer.json"))
    vocab = tokenizer.vocab
    expected = [vocab.bos_id, *tokenizer.encode("It is"), vocab.mask_id, *tokenizer.encode("."), vocab.eos_id]
    assert library.encode("It is <mask>.").ids == expected


def test_what_cannot_be_exported_is_one_line(pretrained, tmp_path, capsys):
    (tmp_path / "taken").mkdir()
    new = tmp_path / "new"
    for model, output, words, wrong in [
        (tmp_path / "nowhere", new, ["huggingface"], "no architecture"),
        ("bort_4_8_768_1024", new, ["huggingface", "--vocab", str(pretrained)], "the vocabulary has 400 tokens, the model 50265"),
        (pretrained, tmp_path / "taken", ["huggingface"], "there already; give another --output"),
        (pretrained, new, ["gluon"], "model.safetensors: no such"),
        (pretrained, new, ["gluon", "--vocab", str(pretrained)], "--vocab and --dataset_name go with --format huggingface"),
    ]:
        assert main(["export", "--model", str(model), "--output", str(output), "--format", *words]) == 2
        said = capsys.readouterr().err
        assert wrong in said
        assert said.count("\n") == 1
        assert not new.exists()


@pytest.mark.parametrize(
    ("damage", "wrong"),
    [
        (lambda arrays, fields: arrays.pop("bert.pooler.dense.bias"), "a classifier without its pooler"),
        (lambda arrays, fields: arrays.pop("bert.encoder.layer.0.output.dense.bias"), "1 missing"),
        (lambda arrays, fields: fields.pop("task"), "no task; only a classifier that bort export wrote"),
        (lambda arrays, fields: fields.update(task={"name": "RTE"}), "task must hold name, labels"),
    ],
)
def test_a_damaged_folder_does_not_come_back(classifier, tmp_path, capsys, damage, wrong):
    folder = export(classifier, tmp_path / "theirs")
    arrays, fields = read_parameters(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    damage(arrays, fields)
    write_safetensors(folder / "model.safetensors", arrays, {"format": "pt"})
    (folder / "config.json").write_text(json.dumps(fields))
    capsys.readouterr()
    assert main(["export", "--format", "gluon", "--model", str(folder), "--output", str(tmp_path / "ours")]) == 2
    assert wrong in capsys.readouterr().err
    assert not (tmp_path / "ours").exists()


def test_a_sentencepiece_vocabulary_is_refused(config, tmp_path):
    text = (f"line {number} of a small text with {number * 7919} in it" for number in range(500))
    tokenizer = Tokenizer(SentencePiece(train_model(text, 300)))
    with pytest.raises(BortError, match=r"SentencePiece model, which this export does not convert"):
        write_hugging_face(tmp_path / "theirs", config, {}, tokenizer)
    assert not (tmp_path / "theirs").exists()


def by_transformers(folder, work, input_ids, lengths):
    """What Transformers makes of a folder: its outputs, what it tells, and the folder that it saved."""
    mask = (np.arange(input_ids.shape[1]) < lengths[:, None]).astype(np.int64)
    np.savez(work / "inputs.npz", input_ids=input_ids.astype(np.int64), attention_mask=mask)
    command = [sys.executable, str(Path(__file__).with_name("transformers_outputs.py"))]
    words = [str(path) for path in (folder, work / "inputs.npz", work / "outputs.npz", work / "saved")]
    process = subprocess.run([*command, *words], input=json.dumps(PAIRS) + "\n", capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    with np.load(work / "outputs.npz") as arrays:
        return dict(arrays), json.loads(process.stdout.splitlines()[-1]), work / "saved"


def random_rows(config, tokenizer):
    random = np.random.default_rng(3)
    lengths = np.array([3, 64, 17, 40, 5])
    ids = random.integers(4, config.vocab_size - 1, (5, 64))
    return np.where(np.arange(64) < lengths[:, None], ids, tokenizer.vocab.pad_id), lengths


@needs_transformers
def test_transformers_computes_the_same_masked_language_model(pretrained, config, tokenizer, tmp_path):
    import mxnet as mx

    input_ids, lengths = random_rows(config, tokenizer)
    found, told, saved = by_transformers(export(pretrained, tmp_path / "theirs"), tmp_path, input_ids, lengths)
    assert told["class"] == "BertForMaskedLM"
    assert (told["missing"], told["unexpected"]) == ([], [])
    net, _ = get_bort_model(pretrained)
    positions = mx.nd.array(np.tile(np.arange(3), (5, 1)))
    hidden, logits = net(mx.nd.array(input_ids), mx.nd.array(lengths), masked_positions=positions)
    is_token = np.arange(64) < lengths[:, None]
    np.testing.assert_allclose(found["hidden"][is_token], hidden.asnumpy()[is_token], atol=1e-5)
    np.testing.assert_allclose(found["exact_logits"][:, :3], logits.asnumpy(), atol=1e-4)
    # The head's LayerNorm has another epsilon there.
    difference = np.abs(found["logits"] - found["exact_logits"])[is_token].max()
    assert 0 < difference < 1e-3
    print(f"largest difference that the epsilon makes: {difference:.2g} of logits up to {np.abs(found['logits']).max():.1f}")
    assert_same_model(export(saved, tmp_path / "back", "gluon"), pretrained)
    compare_tokenizers(told, tokenizer)


@needs_transformers
def test_transformers_computes_the_same_without_a_head(bare, pretrained, config, tokenizer, tmp_path):
    rows = random_rows(config, tokenizer)
    found, told, _ = by_transformers(export(bare, tmp_path / "theirs"), tmp_path, *rows)
    assert (told["class"], [name for name in told["missing"] if "pooler" not in name], told["unexpected"]) == ("BertModel", [], [])
    with_head, _, _ = by_transformers(export(pretrained, tmp_path / "with_head"), tmp_path, *rows)
    np.testing.assert_array_equal(found["hidden"], with_head["hidden"])


@needs_transformers
def test_transformers_computes_the_same_classifier(classifier, config, tokenizer, tmp_path):
    from bort.gluon.finetuning import load_predictor
    from bort.tasks.batches import EncodedRows

    input_ids, lengths = random_rows(config, tokenizer)
    found, told, saved = by_transformers(export(classifier, tmp_path / "theirs"), tmp_path, input_ids, lengths)
    task = get_task(read_model_directory(classifier).task.name)
    assert told["class"] == "BertForSequenceClassification"
    assert (told["missing"], told["unexpected"]) == ([], [])
    if task.labels:
        assert told["labels"] == [label if isinstance(label, str) else json.dumps(label) for label in task.leaderboard_labels]
    input_ids = [ids[:length].astype(np.int32) for ids, length in zip(input_ids, lengths, strict=True)]
    rows = EncodedRows(input_ids, np.zeros(5, dtype=np.float32), tokenizer.vocab.pad_id, 64)
    logits = load_predictor(config, task.num_classes, classifier / "bort.params").predict(rows.batch(list(range(5)), 5))
    np.testing.assert_allclose(found["logits"], logits, atol=1e-5)
    assert_same_model(export(saved, tmp_path / "back", "gluon"), classifier)
    compare_tokenizers(told, tokenizer)


@needs_transformers
def test_the_snippet_of_the_docs_runs(config, tokenizer, repository, tmp_path):
    from bort.gluon.finetuning import build_engine

    snippets = re.findall(r"```python\n(.*?)```", (repository / "docs/deploy.md").read_text(encoding="utf-8"), re.DOTALL)
    (snippet,) = (snippet for snippet in snippets if "transformers" in snippet)
    task = get_task("RTE")
    engine = build_engine(config, task.num_classes, task.is_regression, 0.1, OptimizerSettings(), 0, None)
    write_model_directory(tmp_path / "best", config, engine.parameters(), tokenizer, TrainedTask(task.name, task.labels, 48))
    export(tmp_path / "best", tmp_path / "runs/docs/transformers")
    process = subprocess.run([sys.executable, "-c", snippet], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert "entailment" in process.stdout


def test_published_parameters_and_a_vocabulary_are_enough(pretrained, config, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    words = [
        "--model",
        tmp_path / "config.json",
        "--params",
        pretrained / "bort.params",
        "--vocab",
        pretrained,
        "--output",
        tmp_path / "new",
    ]
    assert main(["export", "--format", "huggingface", *map(str, words)]) == 0
    export(pretrained, tmp_path / "other")
    for path in (tmp_path / "other").iterdir():
        assert (tmp_path / "new" / path.name).read_bytes() == path.read_bytes()


def test_a_tokenizer_that_transformers_saved_is_read_and_a_damaged_one_refused(pretrained, tmp_path, capsys):
    folder = export(pretrained, tmp_path / "theirs")
    for name in ("vocab.json", "merges.txt"):
        (folder / name).unlink()
    assert_same_model(export(folder, tmp_path / "ours", "gluon"), pretrained)
    whole = json.loads((folder / "tokenizer.json").read_text())
    for damage in (
        lambda fields: fields.update(model=None),
        lambda fields: fields.update(pre_tokenizer=None),
        lambda fields: fields["pre_tokenizer"].update(add_prefix_space=True),
        lambda fields: fields["model"]["merges"].append(["q", "nowhere"]),
        lambda fields: fields["model"]["vocab"].pop("</s>"),
    ):
        fields = copy.deepcopy(whole)
        damage(fields)
        (folder / "tokenizer.json").write_text(json.dumps(fields))
        capsys.readouterr()
        assert main(["export", "--format", "gluon", "--model", str(folder), "--output", str(tmp_path / "new")]) == 2
        assert "tokenizer.json: not the byte-level BPE that bort export writes" in capsys.readouterr().err
        assert not (tmp_path / "new").exists()


def compare_tokenizers(told, tokenizer):
    assert told["mask"] == tokenizer.vocab.mask_id
    for texts, ids in zip(PAIRS, told["ids"], strict=True):
        if "<s>" not in texts[0]:
            assert ids == encode_examples([Example(0, texts, None, 1)], tokenizer, 10_000)[0].tolist()
