"""Byte-level BPE: the merges' file, training, and that both libraries agree about every character of Unicode."""

from __future__ import annotations

import subprocess
import sys
import unicodedata

import numpy as np
import pytest

from bort import BortError, Vocab
from bort.byte_pair import Gigatoken, Reference, byte_alphabet, holds_newer_character, merges_text, read_merges, train_merges

TEXTS = ["the cat sat on the mat, the other cat did not", "Der Hund läuft. </s> <mask> the the 力 力"] * 3


def _vocab(*tokens: str) -> Vocab:
    return Vocab((*Vocab.special_tokens, *byte_alphabet(), *tokens))


def test_merges_keep_their_order_through_the_file(tmp_path):
    vocab = _vocab("th", "the", "##", "Ġthe")
    merges = (("t", "h"), ("th", "e"), ("#", "#"), ("Ġ", "the"))
    path = tmp_path / "merges.txt"
    path.write_text(merges_text(merges), encoding="utf-8")
    assert path.read_text(encoding="utf-8") == "#version: 0.2\nt h\nth e\n# #\nĠ the\n"
    assert read_merges(path, vocab) == merges
    path.write_bytes(b"# #\r\nt h\r\n")
    assert read_merges(path, vocab) == (("#", "#"), ("t", "h")), "the header may be absent, and lines may end as on Windows"


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("th", "line 3: 'th' is not two tokens"),
        ("", "line 3: '' is not two tokens"),
        ("t h e", "line 3: 't h e' is not two tokens"),
        ("t  h", "line 3: 't  h' is not two tokens"),
        ("t 力", "line 3: '力' is not in the vocabulary"),
        ("h e", "line 3: 'he' is not in the vocabulary"),
        ("t h", "line 3: the merge of 't' and 'h' stands in the file twice"),
    ],
)
def test_a_bad_merge_is_refused_with_its_line(tmp_path, line, complaint):
    path = tmp_path / "merges.txt"
    path.write_text(f"#version: 0.2\nt h\n{line}\nth e\n", encoding="utf-8")
    with pytest.raises(BortError) as error:
        read_merges(path, _vocab("th", "the"))
    assert f"{path}, {complaint}" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_table_that_would_lose_bytes_is_refused(tmp_path):
    with pytest.raises(BortError, match="lacks 'a', one of the 256 characters"):
        read_merges(tmp_path / "merges.txt", Vocab((*Vocab.special_tokens, *(set(byte_alphabet()) - {"a"}))))


@pytest.fixture(scope="module")
def classifier() -> tuple[Gigatoken, Reference]:
    """Tokenizers whose ids show a character's class: it merges with x if a letter, with 1 if a number, with ! if another sign."""
    merges = tuple((left, right) for left in "x1!Ġ" for right in byte_alphabet())
    vocab = _vocab(*(left + right for left, right in merges))
    return Gigatoken(vocab, merges), Reference(vocab, merges)


def test_both_libraries_class_every_assigned_character_alike(classifier):
    assigned = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in ("Cn", "Cs", "Co")]
    assert len(assigned) > 140_000
    texts = ["".join(f"x{c}\n1{c}\n!{c}\n {c}'s" for c in assigned[start : start + 100]) for start in range(0, len(assigned), 100)]
    fast, reference = (model.encode_batch(texts, np.uint16) for model in classifier)
    different = [text for text, a, b in zip(texts, fast, reference, strict=True) if not np.array_equal(a, b)]
    assert different == []


def test_characters_that_only_one_library_knows_go_to_the_reference(classifier):
    fast, reference = classifier
    newer = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) == "Cn"]
    texts = [f"x{character}" for character in newer[::97]] + [f"x{chr(code)}" for code in (0x088F, 0x0C5C, 0x16EA0, 0x323B0)]
    assert all(map(holds_newer_character, texts))
    expected = [reference.encode(text) for text in texts]
    assert [ids.tolist() for ids in fast.encode_batch(texts, np.uint16)] == [fast.encode(text) for text in texts] == expected
    unguarded = fast._library.encode_batch(texts).to_list()
    assert unguarded != expected, "the libraries know the same Unicode now: the guard can go"
    assert not holds_newer_character("plain, läuft, 力, 👍, \ue000, \x00")


def test_training_lays_the_table_out_as_robertas():
    vocab, merges = train_merges(TEXTS, 270)
    assert vocab.tokens[:4] == ("<s>", "<pad>", "</s>", "<unk>")
    assert vocab.tokens[-1] == "<mask>"
    assert set(byte_alphabet()) <= set(vocab.tokens)
    assert len(vocab) == 270
    assert [left + right for left, right in merges] == list(vocab.tokens[260:-1])
    assert merges[0] == ("h", "e"), "occurs more often than any other pair"


def test_training_stops_where_pairs_become_rare():
    frequent, _ = train_merges(TEXTS, 5000, min_frequency=6)
    rare, _ = train_merges(TEXTS, 5000, min_frequency=3)
    assert 261 < len(frequent) < len(rare) < 5000


def test_training_gives_the_same_in_another_process():
    program = (
        "import sys; from bort.byte_pair import train_merges; from bort.vocabulary import Vocab; "
        f"vocab, merges = train_merges({TEXTS!r}, 300); print(vocab.fingerprint, merges)"
    )
    vocab, merges = train_merges(TEXTS, 300)
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert printed.strip() == f"{vocab.fingerprint} {merges}"


@pytest.mark.parametrize("vocab_size", [-1, 260, 1 << 40])
def test_training_refuses_a_size_that_cannot_be(vocab_size):
    with pytest.raises(BortError, match=f"vocab_size must lie between 261 .* and 1048576, got {vocab_size}"):
        train_merges(TEXTS, vocab_size)


@pytest.mark.parametrize("min_frequency", [0, 1 << 64])
def test_training_refuses_a_frequency_that_cannot_be(min_frequency):
    with pytest.raises(BortError, match="min_frequency must be 1 or more"):
        train_merges(TEXTS, 300, min_frequency)
