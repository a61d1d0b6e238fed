"""A benchmark's figures count only if what was timed is right: any difference from the slow path is found and named."""

from __future__ import annotations

import numpy as np
import pytest

from bort import BortError
from bort.bench.data_verification import read_sentences, verify_shard
from bort.byte_pair import Reference
from bort.corpus.shards import create_shards
from bort.parameters import map_safetensors, write_parameters
from bort.settings import ShardSettings
from bort.tokenizer import Tokenizer

NAME = "shard_0000_of_0001.safetensors"
WORDS = ["the", "river", "runs", "to", "the", "grey", "sea", "past", "a", "mill", "and", "nobody", "sees", "straße", "東京", "it"]


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Two files, 2,400 sentences in documents of 1 to 9; some white space, a byte that is not UTF-8, an end without a line end."""
    folder = tmp_path_factory.mktemp("text")
    random = np.random.default_rng(3)
    for name in ("a.txt", "b.txt"):
        lines = []
        while len(lines) < 1500:
            size = random.integers(1, 10)
            lines += [f"{' '.join(random.choice(WORDS, 6))} {len(lines) + number}." for number in range(size)] + [" \t"]
        (folder / name).write_bytes("\n".join(lines).encode()[:-4])
    content = (folder / "a.txt").read_bytes()
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf \n  " + content.replace(b"river", b"ri\xffver", 1))
    return [folder / "a.txt", folder / "b.txt"]


@pytest.fixture(scope="module")
def reference(tokenizer):
    return Tokenizer(Reference(tokenizer.vocab, tokenizer.merges))


@pytest.fixture(scope="module")
def shard(files, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    create_shards(files, tokenizer, folder, ShardSettings(max_seq_length=64))
    return folder / NAME


class WrongOnce(Tokenizer):
    """Encodes one sentence as if a token were missing."""

    def __init__(self, tokenizer, sentence):
        super().__init__(tokenizer._model)
        self.sentence = sentence

    def encode_ragged(self, texts):
        ids, bounds = super().encode_ragged(texts)
        if self.sentence in texts:
            place = texts.index(self.sentence)
            ids = np.delete(ids, bounds[place + 1] - 1)
            bounds = bounds - (np.arange(len(bounds)) > place)
        return ids, bounds


def test_right_shards_pass_and_everything_is_counted(files, shard, reference):
    result = verify_shard(files, shard, reference)
    arrays, _ = map_safetensors(shard)
    assert result.sentences == result.sentences_encoded == len(arrays["sentence_ends"]) > 2000
    assert result.documents == len(arrays["document_ends"])
    assert result.tokens == len(arrays["token_ids"])
    assert result.bytes_encoded > 60_000


def test_a_sample_encodes_less_and_says_so(files, shard, reference):
    result = verify_shard(files, shard, reference, share=0.2)
    assert 0 < result.sentences_encoded < result.sentences
    assert result.sentences_encoded == verify_shard(files, shard, reference, share=0.2).sentences_encoded


def test_however_small_the_sample_something_is_compared(files, shard, reference):
    assert verify_shard(files, shard, reference, share=1e-9).sentences_encoded == 1000


@pytest.mark.parametrize("number", [0, 1234, -1])
def test_a_fast_path_that_is_wrong_in_one_sentence_is_caught_and_the_sentence_named(files, tokenizer, reference, tmp_path, number):
    wrong = list(read_sentences(files))[number]
    create_shards(files, WrongOnce(tokenizer, wrong.text), tmp_path, ShardSettings(max_seq_length=64))
    with pytest.raises(BortError) as caught:
        verify_shard(files, tmp_path / NAME, reference)
    assert f"{wrong.file}, line {wrong.line} ({wrong.text!r}) has other ids than by the reference, from token " in str(caught.value)


def edited(arrays, **changes):
    return {name: changes.get(name, array) for name, array in arrays.items()}


def test_ends_that_are_wrong_are_caught_though_no_id_is(files, shard, reference, tmp_path):
    arrays, metadata = map_safetensors(shard)
    ends, documents = arrays["sentence_ends"], arrays["document_ends"]
    moved = ends.copy()
    moved[7] -= 1
    wrong = {
        "other ids than by the reference": edited(arrays, sentence_ends=moved),
        "ends after sentence 50": edited(arrays, sentence_ends=ends[:50]),
        "holds 2[0-9]+ sentences": edited(arrays, sentence_ends=np.append(ends, ends[-1])),
        "documents do not end where": edited(arrays, document_ends=np.delete(documents, 3)),
    }
    for message, changed in wrong.items():
        write_parameters(tmp_path / NAME, changed, metadata)
        with pytest.raises(BortError, match=message):
            verify_shard(files, tmp_path / NAME, reference)


def test_a_line_that_would_be_cut_is_refused(tmp_path):
    (tmp_path / "long.txt").write_text("short\n" + "word " * 300_000)
    with pytest.raises(BortError, match=r"long\.txt, line 2: 1500000 bytes"):
        list(read_sentences([tmp_path / "long.txt"]))
