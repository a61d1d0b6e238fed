"""Opening a folder of shards: however many there are; and one that is no whole set of sound shards is refused by name."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from safetensors import safe_open

from bort import BortError
from bort.corpus.documents import find_text_files
from bort.corpus.shards import Corpus, create_shards, shard_names
from bort.parameters import read_parameters, write_parameters
from bort.settings import ShardSettings


@pytest.fixture(scope="module")
def files(repository):
    return find_text_files([str(repository / "test_data/corpus")])


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


METADATA = {
    "format": "bort-shard",
    "version": "2",
    "vocab_fingerprint": "x",
    "vocab_size": "9",
    "settings": '{"max_seq_length": 9}',
    "source_files": '{"number": 1, "first": [{"path": "a", "size": 1}]}',
    "counts": "{}",
    "contents": "x",
}
ARRAYS = {"token_ids": np.uint16([5, 6, 7, 8]), "sequence_ends": np.int64([4]), "sentence_ends": np.int64([1, 4])}


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
    metadata = METADATA
    arrays = ARRAYS
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays, metadata)
    assert Corpus(tmp_path)[0].tolist() == [5, 6, 7, 8]
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays | change, metadata)
    with pytest.raises(BortError, match=r"shard_0000_of_0001\.safetensors: (its arrays|the ends)"):
        Corpus(tmp_path)
    for name in metadata:
        write_parameters(tmp_path / "shard_0000_of_0001.safetensors", arrays, {k: v for k, v in metadata.items() if k != name})
        with pytest.raises(BortError, match=r"shard_0000_of_0001\.safetensors"):
            Corpus(tmp_path)


@pytest.mark.parametrize("counts", ["[]", "5", '{"documents": "many"}', '{"first": 5}', '{"pages": 5}', "{"])
def test_counts_that_are_none_are_a_damaged_header(tmp_path, counts):
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", ARRAYS, METADATA | {"counts": counts})
    with pytest.raises(BortError, match="the shard's header is damaged"):
        Corpus(tmp_path)


def test_an_id_outside_the_vocabulary_is_refused(tmp_path):
    write_parameters(tmp_path / "shard_0000_of_0001.safetensors", ARRAYS | {"token_ids": np.uint16([5, 9, 7, 8])}, METADATA)
    with pytest.raises(BortError, match=r"safetensors, token 1: id 9 in a vocabulary of 9"):
        Corpus(tmp_path)[0]


def test_more_shards_than_files_may_be_open(tmp_path):
    for number, name in enumerate(shard_names(300)):
        write_parameters(tmp_path / name, ARRAYS, METADATA | {"shard": str(number)})
    program = (
        "import resource, sys\n"
        "from bort.corpus.shards import Corpus\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "corpus = Corpus(sys.argv[1])\n"
        "print(len(corpus), corpus[299].tolist())"
    )
    result = subprocess.run([sys.executable, "-c", program, tmp_path], capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("300 [5, 6, 7, 8]\n", "")
