"""Encoders that others made: what is read of every form, of which vocabularies, and what is refused unopened."""

from __future__ import annotations

import json
import tracemalloc

import numpy as np
import pytest

from bort import BortConfig, BortError
from bort.encoder_files import encoder_files, read_encoder, read_tokens
from bort.hugging_face_names import from_hugging_face
from bort.model_directory import find_model, write_model_directory
from bort.parameters import read_parameters, write_parameters
from bort.tokenizer import Tokenizer
from bort.vocabulary import Vocab

from .test_hugging_face_names import assert_equal, published, roberta

INDEX = "model.safetensors.index.json"
PICKLE = b"PK\x03\x04 and whatever else"


@pytest.fixture
def folder(tmp_path):
    """A RoBERTa as Transformers writes it, without a vocabulary."""
    folder = tmp_path / "roberta"
    folder.mkdir()
    sizes = {"hidden_size": 4, "intermediate_size": 3, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 7}
    (folder / "config.json").write_text(json.dumps(sizes | {"model_type": "roberta", "max_position_embeddings": 7}))
    write_parameters(folder / "model.safetensors", roberta(), {"format": "pt"})
    return folder


def split(folder, parts=3):
    """Shard a folder's parameters as Transformers does."""
    arrays = read_parameters(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    places = {name: f"model-{number % parts + 1:05}-of-{parts:05}.safetensors" for number, name in enumerate(sorted(arrays))}
    for file in set(places.values()):
        write_parameters(folder / file, {name: arrays[name] for name, place in places.items() if place == file}, {"format": "pt"})
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 715000}, "weight_map": places}))
    return places


def test_every_form_is_read_under_published_names(folder, tmp_path):
    expected = from_hugging_face(roberta())
    whole = find_model(folder)
    assert whole.parameters == folder / "model.safetensors"
    assert_equal(whole.read_parameters(), expected)
    split(folder)
    sharded = find_model(folder)
    assert [file.name for file in encoder_files(sharded.parameters)] == [f"model-{number:05}-of-00003.safetensors" for number in (1, 2, 3)]
    assert_equal(sharded.read_parameters(), expected)
    write_parameters(tmp_path / "bert.params", published() | {"token_type_embed.0.weight": np.zeros((2, 4), np.float32)})
    assert_equal(read_encoder(tmp_path / "bert.params"), published())


def test_reading_holds_one_copy(folder):
    arrays = {
        name: array if "position" in name or "token_type" in name else np.ones((20_000, *array.shape[1:]), np.float32)
        for name, array in roberta().items()
    }
    write_parameters(folder / "model.safetensors", arrays)
    size = sum(array.nbytes for array in arrays.values())
    for sharded in (False, True):
        if sharded:
            split(folder)
        tracemalloc.start()
        try:
            find_model(folder).read_parameters()
            assert size <= tracemalloc.get_traced_memory()[1] < 1.1 * size
        finally:
            tracemalloc.stop()


# Vocabularies.


def test_without_a_vocabulary_there_is_nothing_to_compare(folder, tokenizer):
    assert read_tokens(folder) is None
    find_model(folder).check_vocabulary("teacher", tokenizer.vocab)
    find_model("roberta_12_768_12", "some.params").check_vocabulary("teacher", tokenizer.vocab)


def vocabulary_files(folder, form, tokens):
    """Write ``tokens`` as one of the forms in which folders hold them."""
    table = {token: position for position, token in enumerate(tokens)}
    if form == "vocab.json":
        (folder / form).write_text(json.dumps(table))
    elif form == "added_tokens.json":
        (folder / "vocab.json").write_text(json.dumps({token: position for token, position in table.items() if token != "<mask>"}))
        (folder / form).write_text(json.dumps({"<mask>": table["<mask>"]}))
    elif form == "vocab.txt":
        (folder / form).write_text("\n".join(tokens) + "\n")
    else:
        added = [{"id": table["<mask>"], "content": "<mask>", "special": True}]
        del table["<mask>"]
        vocab = table if form == "tokenizer.json" else [[token, 0.0] for token in table]
        (folder / "tokenizer.json").write_text(json.dumps({"version": "1.0", "added_tokens": added, "model": {"vocab": vocab}}))


FORMS = ("vocab.json", "added_tokens.json", "vocab.txt", "tokenizer.json", "tokenizer.json with scores")


@pytest.mark.parametrize("form", FORMS)
def test_a_teachers_own_vocabulary_must_be_the_datas(folder, tokenizer, form):
    vocab, tokens = tokenizer.vocab, list(tokenizer.vocab.tokens)
    vocabulary_files(folder, form, tokens)
    assert read_tokens(folder) == dict(enumerate(tokens))
    source = find_model(str(folder))
    source.check_vocabulary("teacher", vocab)
    tokens[300], tokens[301] = tokens[301], tokens[300]
    vocabulary_files(folder, form, tokens)
    with pytest.raises(BortError) as caught:
        source.check_vocabulary("teacher", vocab)
    assert str(caught.value) == (
        f"the teacher {folder} has another vocabulary: id 300 is {tokens[300]!r} in the model's vocabulary of 400 and "
        f"{tokens[301]!r} in the data's of 400; make the data with its own, or take another teacher"
    )


def test_a_word_piece_vocabulary_is_another(folder, tokenizer):
    (folder / "vocab.txt").write_text("[PAD]\n[UNK]\nthe\n")
    with pytest.raises(BortError, match=r"id 0 is '\[PAD\]' in the model's vocabulary of 3 and '<s>' in the data's of 400"):
        find_model(folder).check_vocabulary("teacher", tokenizer.vocab)


def test_a_longer_vocabulary_is_another(folder, tokenizer):
    vocabulary_files(folder, "vocab.json", [*tokenizer.vocab.tokens, "more"])
    with pytest.raises(BortError, match=r"id 400 is 'more' in the model's vocabulary of 401 and nothing in the data's of 400"):
        find_model(folder).check_vocabulary("student", tokenizer.vocab)


def test_our_own_folders_vocabulary_is_compared_too(tmp_path, tokenizer):
    write_model_directory(tmp_path / "model", BortConfig(vocab_size=400), {"x": np.ones(1, np.float32)}, tokenizer)
    source = find_model(tmp_path / "model")
    source.check_vocabulary("teacher", tokenizer.vocab)
    with pytest.raises(BortError, match=r"id 399 is '<mask>' in the model's vocabulary of 400 and 'other' in the data's of 401"):
        source.check_vocabulary("teacher", Vocab((*tokenizer.vocab.tokens[:-1], "other", "<mask>")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("vocab.json", "{"),
        ("vocab.json", "[]"),
        ("vocab.json", "{}"),
        ("vocab.json", '{"a": "0"}'),
        ("vocab.json", '{"a": [0]}'),
        ("tokenizer.json", "7"),
        ("tokenizer.json", '{"model": {}}'),
        ("tokenizer.json", '{"model": {"vocab": 3}}'),
        ("tokenizer.json", '{"model": {"vocab": [[], 3]}}'),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": [], "content": "b"}]}'),
        ("tokenizer.json", '{"model": {"vocab": {"a": 0}}, "added_tokens": [{"id": 1}]}'),
        ("tokenizer.json", "[" * 100_000),
    ],
)
def test_a_damaged_vocabulary_is_refused(folder, tokenizer, name, content):
    (folder / name).write_text(content)
    with pytest.raises(BortError, match=rf"{name}: not (JSON|a vocabulary's table).*the file is damaged, get it again"):
        find_model(folder).check_vocabulary("teacher", tokenizer.vocab)


# Files that are missing, damaged, or must not be opened.


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json"])
def test_a_folder_of_pickles_is_refused_with_the_way_to_convert_it(folder, name):
    (folder / "model.safetensors").unlink()
    (folder / name).write_bytes(PICKLE)
    with pytest.raises(BortError, match=rf"^[^\n]*{name}: a PyTorch pickle[^\n]*transformers[^\n]* {folder} NEW_FOLDER$"):
        find_model(folder)


@pytest.mark.parametrize("content", [PICKLE, b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."])
def test_a_pickle_under_any_name_is_refused(tmp_path, content):
    (tmp_path / "teacher.params").write_bytes(content)
    with pytest.raises(BortError, match=r"teacher\.params: a PyTorch pickle"):
        read_encoder(tmp_path / "teacher.params")


def test_a_quantised_model_is_refused(folder):
    name = "roberta.encoder.layer.0.output.dense.weight"
    arrays = roberta()
    write_parameters(folder / "model.safetensors", arrays | {name: arrays[name].astype(np.int8)})
    with pytest.raises(BortError, match=r"model\.safetensors: encoder\.transformer_cells\.0\.ffn\.ffn_2\.weight is of type int8"):
        find_model(folder).read_parameters()


def test_a_safetensors_file_beside_a_pickle_is_taken(folder):
    (folder / "pytorch_model.bin").write_bytes(PICKLE)
    assert find_model(folder).parameters == folder / "model.safetensors"


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": [1]}'])
def test_a_damaged_index_is_refused(folder, content):
    split(folder)
    (folder / INDEX).write_text(content)
    source = find_model(folder)
    for action in (source.read_parameters, source.fingerprint):
        with pytest.raises(BortError, match=rf"{INDEX}: (not JSON|no weight_map)"):
            action()


@pytest.mark.parametrize("file", ["../model.safetensors", "/etc/passwd", "model.bin", "", 3, None])
def test_an_index_cannot_lead_elsewhere(folder, file):
    split(folder)
    (folder / INDEX).write_text(json.dumps({"weight_map": {"lm_head.bias": file}}))
    with pytest.raises(BortError, match=r"is not the name of a safetensors file beside it"):
        find_model(folder).read_parameters()


def test_a_missing_shard_and_a_missing_parameter_are_named(folder):
    places = split(folder)
    last = sorted(set(places.values()))[-1]
    (folder / INDEX).write_text(json.dumps({"weight_map": places | {"lm_head.more": last}}))
    with pytest.raises(BortError, match=rf"{last}: lm_head\.more is not in it, though {INDEX} says so"):
        find_model(folder).read_parameters()
    (folder / last).unlink()
    with pytest.raises(BortError, match=rf"{INDEX}: {last} is missing, one of the 3 files that it names; download it too"):
        find_model(folder).read_parameters()


def test_a_shard_cut_short_is_refused(folder):
    first = sorted(set(split(folder).values()))[0]
    (folder / first).write_bytes((folder / first).read_bytes()[:-1])
    with pytest.raises(BortError, match=rf"{first}, offset \d+: .*damaged or incomplete"):
        find_model(folder).read_parameters()


def test_a_fingerprint_covers_every_shard(folder):
    split(folder)
    source = find_model(folder)
    before = source.fingerprint()
    assert source.fingerprint() == before
    last = encoder_files(source.parameters)[-1]
    arrays = read_parameters(last)
    next(iter(arrays.values())).flat[-1] += 1
    write_parameters(last, arrays)
    assert source.fingerprint() != before


def test_a_sentencepiece_folder_has_tokens(repository, tmp_path):
    from bort.cli import main

    options = ["--vocab_size", "800", "--model_type", "sentencepiece"]
    assert main(["vocab", "train", "--input", str(repository / "test_data/corpus"), "--output", str(tmp_path), *options]) == 0
    assert read_tokens(tmp_path) == dict(enumerate(Tokenizer.from_directory(tmp_path).vocab.tokens))
