"""Masking: its statistics, what it never touches, whole words, and that it is a function of (seed, epoch, sequence)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.corpus.masking import Masker, begins_word
from bort.vocabulary import Vocab

VOCAB_SIZE, MASK_ID = 600, 599
SPECIAL_IDS = (0, 1, 2, 3, MASK_ID)


class SmallVocab:
    """As much of a vocabulary as masking asks for."""

    mask_id = MASK_ID
    special_ids = SPECIAL_IDS

    def __len__(self):
        return VOCAB_SIZE


def masker(probability=0.15, most=80, seed=0):
    return Masker(SmallVocab(), probability, most, seed)


def sequences(count, length, seed=1):
    return np.random.default_rng(seed).integers(4, MASK_ID, size=(count, length)).astype(np.int32)


def test_four_in_five_become_the_mask_one_in_ten_a_random_token_one_in_ten_stays():
    tokens = sequences(2000, 200)
    masked, random, kept, total = 0, 0, 0, 0
    for index, row in enumerate(tokens):
        out, positions = masker().mask(row, 0, index)
        total += len(positions)
        masked += (out[positions] == MASK_ID).sum()
        kept += (out[positions] == row[positions]).sum()
        random += ((out[positions] != MASK_ID) & (out[positions] != row[positions])).sum()
    assert total == 2000 * 30
    # A random token is the original one in 595 draws; four standard deviations of a share of 60000 are under 0.007.
    assert abs(masked / total - 0.8) < 0.007
    assert abs(random / total - 0.1) < 0.005
    assert abs(kept / total - 0.1) < 0.005


def test_every_position_and_every_ordinary_token_is_drawn_and_no_special_one():
    tokens = sequences(4000, 40)
    chosen, drawn = np.zeros(40), np.zeros(VOCAB_SIZE)
    for index, row in enumerate(tokens):
        out, positions = masker(0.5).mask(row, 3, index)
        chosen[positions] += 1
        changed = positions[(out[positions] != MASK_ID) & (out[positions] != row[positions])]
        np.add.at(drawn, out[changed], 1)
    assert not drawn[list(SPECIAL_IDS)].any()
    assert np.delete(drawn, SPECIAL_IDS).min() > 0
    assert np.abs(chosen / 4000 - 0.5).max() < 0.04


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.integers(1, 300), st.floats(0.01, 1.0), st.integers(1, 40), st.integers(0, 3), st.integers(0, 10**9))
def test_the_number_of_predictions_and_untouched_tokens(length, probability, most, epoch, sequence):
    row = sequences(1, length)[0]
    before = row.copy()
    out, positions = masker(probability, most).mask(row, epoch, sequence)
    assert len(positions) == min(most, max(1, round(length * probability)))
    assert (np.diff(positions) > 0).all()
    untouched = np.setdiff1d(np.arange(length), positions)
    np.testing.assert_array_equal(out[untouched], row[untouched])
    np.testing.assert_array_equal(row, before)


def test_masks_depend_on_seed_epoch_and_sequence_alone():
    row = sequences(1, 200)[0]
    reference = masker(seed=5).mask(row, 2, 7)[1]
    np.testing.assert_array_equal(masker(seed=5).mask(row, 2, 7)[1], reference)
    for other in (masker(seed=6).mask(row, 2, 7), masker(seed=5).mask(row, 3, 7), masker(seed=5).mask(row, 2, 8)):
        assert len(np.intersect1d(other[1], reference)) < 20


@pytest.mark.parametrize("length", [1, 2])
def test_the_shortest_sequences_have_one_prediction(length):
    assert len(masker().mask(sequences(1, length)[0], 0, 0)[1]) == 1


@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_special_tokens_are_never_chosen(whole_word_mask):
    """A SentencePiece model writes ``<unk>`` for a character it does not know."""
    vocab = words_vocab()
    row = np.array([UNKNOWN, BEGIN, UNKNOWN, INSIDE, INSIDE, BEGIN, UNKNOWN, BEGIN], dtype=np.int32)
    chosen = set()
    for epoch in range(200):
        out, positions = Masker(vocab, 0.4, 80, 0, whole_word_mask).mask(row, epoch, 0)
        assert len(positions) in ((1, 2, 3) if whole_word_mask else (2,))
        assert (out[row == UNKNOWN] == UNKNOWN).all()
        assert not set(out[positions]) & {0, 1, 2, UNKNOWN}
        chosen |= set(positions.tolist())
    assert chosen == {1, 3, 4, 5, 7}
    out, positions = Masker(vocab, 0.4, 80, 0, whole_word_mask).mask(row[[0, 2]], 0, 0)
    assert out.tolist() == [UNKNOWN, UNKNOWN]
    assert len(positions) == 0


def test_recorded_masks():
    """A run begun with one release must be resumable with the next."""
    row = np.arange(4, 44, dtype=np.int32)
    out, positions = masker(seed=3).mask(row, 1, 2)
    assert positions.tolist() == [4, 14, 16, 25, 33, 37]
    assert out[positions].tolist() == [599, 599, 478, 599, 599, 599]
    _, positions = Masker(words_vocab(), 0.3, 80, 3, True).mask(words([1, 2, 3, 1, 4, 2, 1, 1]), 1, 2)
    assert positions.tolist() == [1, 2, 11, 12]


UNKNOWN, BEGIN, INSIDE = 3, 4, 104


def words_vocab():
    """Ids 4 to 103 begin a word, ids 104 to 203 do not."""
    ordinary = [f"Ġw{number}" for number in range(100)] + [f"w{number}" for number in range(100)]
    return Vocab(("<s>", "<pad>", "</s>", "<unk>", *ordinary, "<mask>"))


def words(sizes):
    """Ids of a sequence of words of these sizes."""
    return np.concatenate([[BEGIN + number % 100] + [INSIDE] * (size - 1) for number, size in enumerate(sizes)]).astype(np.int32)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=60), st.floats(0.01, 1.0), st.integers(1, 30), st.integers(0, 10**6))
def test_words_are_chosen_whole_and_as_many_as_fit(sizes, probability, most, sequence):
    row = words(sizes)
    out, positions = Masker(words_vocab(), probability, most, 0, True).mask(row, 0, sequence)
    limit = min(most, max(1, round(len(row) * probability)))
    word = np.repeat(np.arange(len(sizes)), sizes)
    chosen = np.bincount(word[positions], minlength=len(sizes))
    assert (np.diff(positions) > 0).all()
    if len(positions) > limit or (chosen != 0).sum() == 1:
        # The first word is taken in any case, and alone if it is beyond the limit.
        (first,) = np.flatnonzero(chosen)
        assert chosen[first] == min(sizes[first], most)
        assert (np.diff(positions) == 1).all()
    else:
        assert all(count in (0, size) for count, size in zip(chosen, sizes, strict=True))
    if len(positions) <= limit:
        assert all(size > limit - len(positions) for count, size in zip(chosen, sizes, strict=True) if not count)
    untouched = np.setdiff1d(np.arange(len(row)), positions)
    np.testing.assert_array_equal(out[untouched], row[untouched])


def test_whole_words_keep_the_share_and_every_word_and_fate():
    sizes = np.random.default_rng(0).choice([1, 2, 3, 4, 6], p=[0.6, 0.2, 0.1, 0.07, 0.03], size=250)
    row, vocab = words(sizes), words_vocab()
    first_tokens = np.cumsum(sizes) - sizes
    whole_word_masker = Masker(vocab, 0.15, 80, 0, True)
    epochs = 3000
    chosen, fates, mixed, long_words = np.zeros(len(row)), np.zeros(3), 0, 0
    for epoch in range(epochs):
        out, positions = whole_word_masker.mask(row, epoch, 0)
        chosen[positions] += 1
        is_mask, is_same = out[positions] == vocab.mask_id, out[positions] == row[positions]
        fates += is_mask.sum(), (~is_mask & ~is_same).sum(), is_same.sum()
        for first in first_tokens[(sizes == 2)]:
            if first in positions:
                long_words += 1
                mixed += (out[first] == vocab.mask_id) != (out[first + 1] == vocab.mask_id)
    assert chosen.sum() / epochs / len(row) == pytest.approx(0.15, abs=0.002)
    np.testing.assert_allclose(fates / fates.sum(), [0.8, 0.1, 0.1], atol=0.005)
    # Each token of a word has its own fate: of two, exactly one becomes <mask> in 2 · 0.8 · 0.2 of the cases.
    assert mixed / long_words == pytest.approx(0.32, abs=0.02)
    share = chosen[first_tokens] / epochs
    for size in (1, 2, 3, 4, 6):
        # Only the last places of the limit favour short words.
        assert share[sizes == size].mean() == pytest.approx(0.15, abs=0.012)
        assert share[sizes == size].min() > 0.1


def test_a_word_longer_than_all_predictions_is_masked_in_part_and_everywhere():
    row = words([50, 1])
    counts = np.zeros(51)
    for epoch in range(400):
        _, positions = Masker(words_vocab(), 0.15, 6, 0, True).mask(row, epoch, 0)
        assert len(positions) in (1, 6)
        counts[positions] += 1
    assert counts.min() > 0


def test_a_sentence_begins_a_word():
    row = words([3, 2, 2])
    row[3] = INSIDE
    starts = np.array([3])
    positions = [Masker(words_vocab(), 0.3, 80, 0, True).mask(row, epoch, 0, starts)[1].tolist() for epoch in range(50)]
    assert {tuple(chosen) for chosen in positions} == {(0, 1, 2), (3, 4), (5, 6)}
    joined = [Masker(words_vocab(), 0.3, 80, 0, True).mask(row, epoch, 0)[1].tolist() for epoch in range(50)]
    assert {tuple(chosen) for chosen in joined} == {(0, 1, 2, 3, 4), (5, 6)}


def test_a_word_is_what_stands_between_spaces(tokenizer, repository):
    begins = begins_word(tokenizer.vocab)
    for path in (repository / "test_data/corpus").glob("*.txt"):
        for sentence in filter(None, path.read_text(encoding="utf-8").splitlines()):
            ids = np.array(tokenizer.encode(sentence))
            parts = np.split(ids, np.flatnonzero(begins[ids]))
            assert [tokenizer.decode(part.tolist()).strip() for part in parts if len(part)] == sentence.split()


def test_marks_of_both_kinds_of_vocabulary():
    specials = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
    byte_level = Vocab((*specials, "Ġthe", "the", "Ċ", "ĉĉ", "Ġ", "aĠ", "Âł"))
    assert begins_word(byte_level).tolist() == [False] * 5 + [True, False, True, True, True, False, False]
    # In Maltese, ġ is a letter.
    sentencepiece = Vocab((*specials, "▁il", "Ġimgħa", "▁"))
    assert begins_word(sentencepiece).tolist() == [False] * 5 + [True, False, True]
