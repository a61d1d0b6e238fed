"""Texts of an exact number of tokens, by the library and by our own tokenizer."""

from __future__ import annotations

import numpy as np
import pytest

from bort.bench.inference.cases import digest
from bort.bench.inference.texts import BATCHES, make_texts, open_library, open_own, read_texts

SHAPES = [(1, 16), (3, 40)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """A folder for each kind of vocabulary, and what was said of it."""
    root = tmp_path_factory.mktemp("texts")
    return {kind: (root / kind, make_texts(root / kind, kind, 600, SHAPES)) for kind in ("wordpiece", "bpe")}


@pytest.mark.parametrize("kind", ["wordpiece", "bpe"])
def test_every_text_has_its_number_of_tokens(folders, kind):
    folder, described = folders[kind]
    texts, digests = read_texts(folder)
    encode = open_library(folder)
    assert described["kind"] == kind
    assert described["vocab_size"] == 600
    assert described["tokens_per_word"] > 1
    for size, length in SHAPES:
        batches = [encode(batch) for batch in texts[f"{size}x{length}"]]
        assert len(batches) == BATCHES
        assert {batch["input_ids"].shape for batch in batches} == {(size, length)}
        assert all(batch["attention_mask"].all() for batch in batches)
        assert digest(batches) == digests[f"{size}x{length}"]
        # Different texts, and not mostly the full stops that fill up.
        assert len({text for batch in texts[f"{size}x{length}"] for text in batch}) == BATCHES * size
        assert all(text.count(".") < length / 2 for batch in texts[f"{size}x{length}"] for text in batch)


def test_our_tokenizer_makes_the_same_ids_as_the_library(folders):
    folder, _ = folders["bpe"]
    texts, _ = read_texts(folder)
    own, library = open_own(folder), open_library(folder)
    for batches in texts.values():
        for batch in batches:
            one, other = own(batch), library(batch)
            assert one.keys() == other.keys()
            assert all(np.array_equal(one[name], other[name]) and one[name].dtype == other[name].dtype for name in one)


def test_special_tokens_stand_at_both_ends(folders):
    folder, _ = folders["wordpiece"]
    texts, _ = read_texts(folder)
    ids = open_library(folder)(texts["3x40"][0])["input_ids"]
    assert set(ids[:, 0].tolist()) == {2}
    assert set(ids[:, -1].tolist()) == {3}
    assert (ids[:, 1:-1] > 4).all()
