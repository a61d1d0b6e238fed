"""Packing of whole sentences: what holds for any document."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.corpus.packing import pack_full_sentences

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=300)


def pack(lengths, max_tokens, short=0.0, seed=0):
    return pack_full_sentences(np.cumsum(lengths), max_tokens, short, np.random.default_rng(seed))


@DETERMINISTIC
@given(st.lists(st.integers(1, 60), min_size=1, max_size=40), st.integers(2, 50), st.floats(0, 1), st.integers(0, 5))
def test_sequences_cover_the_document_within_the_limit(lengths, max_tokens, short, seed):
    ends = pack(lengths, max_tokens, short, seed)
    sizes = np.diff(ends, prepend=0)
    assert ends[-1] == sum(lengths)
    assert sizes.min() >= 1
    assert sizes.max() <= max_tokens


@DETERMINISTIC
@given(st.lists(st.integers(1, 20), min_size=1, max_size=40), st.integers(20, 80))
def test_sentences_that_fit_are_never_cut_and_sequences_are_as_long_as_they_can_be(lengths, max_tokens):
    sentence_ends = np.cumsum(lengths)
    ends = pack(lengths, max_tokens)
    assert set(ends) <= set(sentence_ends)
    for start, end in zip([0, *ends[:-2]], ends[:-1], strict=False):
        following = sentence_ends[np.searchsorted(sentence_ends, end, side="right")]
        assert following - start > max_tokens


def test_a_sentence_longer_than_the_limit_is_cut_at_the_limit():
    assert pack([3, 25, 4], 10) == [3, 13, 23, 32]


def test_short_sequences_come_about_as_often_as_asked():
    ends = pack([1] * 400_000, 100, short=0.1)
    sizes = np.diff(ends, prepend=0)
    # One in 99 of the drawn limits is the full length itself.
    assert abs((sizes < 100).mean() - 0.1 * 98 / 99) < 0.01
