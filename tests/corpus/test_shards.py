"""Shards: all text, once, in memory-mapped files that say how they were made."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors import safe_open

from bort import BortError
from bort.corpus.documents import ReadingReport, find_text_files, read_documents
from bort.corpus.shards import Corpus, create_shards
from bort.parameters import read_parameters, write_parameters
from bort.settings import ShardSettings


@pytest.fixture(scope="module")
def files(repository):
    return find_text_files([str(repository / "test_data/corpus")])


def documents_of(files, tokenizer):
    return [np.concatenate(tokenizer.encode_batch(sentences)) for sentences in read_documents(files, ReadingReport())]


def test_every_document_is_stored_once_and_whole(files, tokenizer, tmp_path):
    report = create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=32, num_outputs=3))
    expected = documents_of(files, tokenizer)
    assert report.documents == len(expected)
    for shard in range(3):
        with safe_open(tmp_path / f"shard_{shard:04d}_of_0003.safetensors", framework="np") as opened:
            assert opened.metadata()["vocab_fingerprint"] == tokenizer.vocab.fingerprint
            tokens, ends = opened.get_tensor("token_ids"), opened.get_tensor("document_ends")
            sentence_ends, sequence_ends = opened.get_tensor("sentence_ends"), opened.get_tensor("sequence_ends")
        assert tokens.dtype == np.uint16
        found = np.split(tokens, ends[:-1])
        assert len(found) == len(expected[shard::3])
        assert all(np.array_equal(one, two) for one, two in zip(found, expected[shard::3], strict=True))
        # No sequence goes beyond a document, and every document's end is a sentence's end.
        assert set(ends) <= set(sentence_ends)
        assert set(ends) <= set(sequence_ends)


def test_the_corpus_gives_every_sequence_once(files, tokenizer, tmp_path):
    create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=24, num_outputs=4))
    corpus = Corpus(tmp_path, tokenizer.vocab.fingerprint)
    sequences = [corpus[index] for index in range(len(corpus))]
    assert max(map(len, sequences)) <= 22
    assert sequences[0].dtype == np.int32
    assert not np.isin(np.concatenate(sequences), tokenizer.vocab.special_ids).any()
    assert sum(map(len, sequences)) == sum(map(len, documents_of(files, tokenizer)))


def test_the_number_of_shards_changes_no_sequence(files, tokenizer, tmp_path):
    sets = []
    for outputs in (1, 5):
        create_shards(files, tokenizer, tmp_path / str(outputs), ShardSettings(max_seq_length=24, num_outputs=outputs, seed=3))
        corpus = Corpus(tmp_path / str(outputs))
        sets.append(sorted(corpus[index].tobytes() for index in range(len(corpus))))
    assert sets[0] == sets[1]


def test_the_same_input_gives_the_same_bytes(files, tokenizer, tmp_path):
    for name in ("one", "two"):
        create_shards(files, tokenizer, tmp_path / name, ShardSettings(max_seq_length=24))
    one, two = (next((tmp_path / name).iterdir()).read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize("text", ["", "\n\n \n"])
def test_an_empty_corpus_is_an_error_and_leaves_nothing(tmp_path, tokenizer, text):
    (tmp_path / "empty.txt").write_text(text)
    with pytest.raises(BortError, match=r"empty\.txt: 0 documents do not fill 1 shards"):
        create_shards([tmp_path / "empty.txt"], tokenizer, tmp_path / "out", ShardSettings())
    assert not (tmp_path / "out").exists()


def test_what_is_no_shard_is_refused_by_name(files, tokenizer, tmp_path):
    with pytest.raises(BortError, match="no shards"):
        Corpus(tmp_path)
    create_shards(files, tokenizer, tmp_path / "a", ShardSettings(max_seq_length=24))
    path = next((tmp_path / "a").iterdir())
    with pytest.raises(BortError, match="another vocabulary"):
        Corpus(path.parent, "0" * 64)
    arrays = read_parameters(path)
    write_parameters(tmp_path / "b" / path.name, arrays, {"format": "other"})
    with pytest.raises(BortError, match="not a shard"):
        Corpus(tmp_path / "b")
    with safe_open(path, framework="np") as opened:
        metadata = opened.metadata()
    write_parameters(tmp_path / "c" / path.name, arrays | {"sequence_ends": arrays["sequence_ends"][:-1]}, metadata)
    with pytest.raises(BortError, match="do not fit"):
        Corpus(tmp_path / "c")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / path.name).write_bytes(path.read_bytes()[:-10])
    with pytest.raises(BortError, match=r"shard_0000_of_0001\.safetensors"):
        Corpus(tmp_path / "d")


def test_making_shards_again_replaces_the_old_set(files, tokenizer, tmp_path):
    for outputs in (4, 2):
        create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=24, num_outputs=outputs))
    create_shards(files, tokenizer, tmp_path / "once", ShardSettings(max_seq_length=24, num_outputs=2))
    assert len(Corpus(tmp_path)) == len(Corpus(tmp_path / "once"))


def test_a_set_that_is_not_whole_is_refused(files, tokenizer, tmp_path):
    create_shards(files, tokenizer, tmp_path, ShardSettings(max_seq_length=24, num_outputs=3))
    create_shards(files[:2], tokenizer, tmp_path / "other", ShardSettings(max_seq_length=24, num_outputs=3))
    name = "shard_0001_of_0003.safetensors"
    (tmp_path / "other" / name).replace(tmp_path / name)
    with pytest.raises(BortError, match="made from different texts or with different settings"):
        Corpus(tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(BortError, match="its 2 shards are not one whole set"):
        Corpus(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"sequence_ends": np.float64([4.0])},
        {"sequence_ends": np.int64(4)},
        {"token_ids": np.ones(4, bool)},
        {"token_ids": np.ones((2, 2), np.uint16)},
        {"sequence_ends": np.int64([0, 4])},
        {"sequence_ends": np.int64([5])},
    ],
)
def test_arrays_that_are_no_shards_are_refused(tmp_path, change):
    metadata = {"format": "bort-shard", "version": "1", "vocab_fingerprint": "x", "vocab_size": "9", "settings": '{"max_seq_length": 9}'}
    arrays = {"token_ids": np.uint16([5, 6, 7, 8]), "sequence_ends": np.int64([4])}
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays, metadata)
    assert Corpus(tmp_path)[0].tolist() == [5, 6, 7, 8]
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays | change, metadata)
    with pytest.raises(BortError, match=r"shard_0000_of_0001\.safetensors: (its arrays|the ends)"):
        Corpus(tmp_path)
    for name in metadata:
        write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays, {k: v for k, v in metadata.items() if k != name})
        with pytest.raises(BortError, match=r"shard_0000_of_0001\.safetensors"):
            Corpus(tmp_path)


def test_an_id_outside_the_vocabulary_is_refused(tmp_path):
    metadata = {"format": "bort-shard", "version": "1", "vocab_fingerprint": "x", "vocab_size": "9", "settings": '{"max_seq_length": 9}'}
    arrays = {"token_ids": np.uint16([5, 9, 7, 8]), "sequence_ends": np.int64([4])}
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays, metadata)
    with pytest.raises(BortError, match="token id 9 in a vocabulary of 9"):
        Corpus(tmp_path)[0]
