"""Packing of whole sentences: what holds for any document, and that portions of it do not matter."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.corpus.packing import Packer

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=300)
NONE = np.empty(0, dtype=np.int64)


def pack_whole(documents, max_tokens, short=0.0, seed=0, file=0):
    """Ends of all sequences of documents of sentence lengths, document i beginning at byte 100 · i of its file."""
    packer = Packer(max_tokens, short, seed, file)
    lengths = [length for document in documents for length in document]
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    closed = packer.add(np.cumsum(lengths), starts, 100 * np.arange(len(documents)))
    return [*closed.tolist(), *packer.finish().tolist()]


def pack(lengths, max_tokens, short=0.0, seed=0):
    return pack_whole([lengths], max_tokens, short, seed)


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
    drawn = np.bincount(np.diff(pack([1] * 400_000, 100, short=1.0), prepend=0)[:-1], minlength=101)
    assert not drawn[:2].any()
    # About 79 of each length.
    assert drawn[2:].min() > 40
    assert drawn[2:].max() < 120


def test_first_sequences_of_many_documents_are_short_as_often_as_others():
    ends = pack_whole([[1] * 150] * 20_000, 100, short=0.3)
    sizes = np.diff(ends, prepend=0)
    firsts = sizes[np.searchsorted(ends, 150 * np.arange(20_000), side="right")]
    assert abs((firsts < 100).mean() - 0.3 * 98 / 99) < 0.015
    assert abs(firsts[firsts < 100].mean() - 50.5) < 1.5


@DETERMINISTIC
@given(
    st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=12), min_size=1, max_size=8),
    st.integers(2, 50),
    st.sampled_from([0.0, 0.3, 1.0]),
    st.lists(st.integers(0, 60), max_size=6),
)
def test_portions_of_any_size_give_the_sequences_of_the_whole(documents, max_tokens, short, cuts):
    lengths = [length for document in documents for length in document]
    sentence_ends = np.cumsum(lengths)
    starts = np.cumsum([0, *map(len, documents)])[:-1]
    packer = Packer(max_tokens, short, 3, 1)
    ends = []
    bounds = sorted({0, len(lengths), *(cut for cut in cuts if cut < len(lengths))})
    for first, last in pairwise(bounds):
        here = (starts >= first) & (starts < last)
        ends += packer.add(sentence_ends[first:last], starts[here] - first, 100 * np.flatnonzero(here)).tolist()
        assert ends == sorted(ends)
    ends += packer.finish().tolist()
    assert ends == pack_whole(documents, max_tokens, short, seed=3, file=1)
    assert {int(sentence_ends[start - 1]) for start in starts[1:]} <= set(ends)


def test_what_is_short_depends_on_seed_file_and_place():
    documents = [[1] * 2000]
    reference = pack_whole(documents, 50, 0.5)
    assert pack_whole(documents, 50, 0.5) == reference
    assert pack_whole(documents, 50, 0.5, seed=1) != reference
    assert pack_whole(documents, 50, 0.5, file=1) != reference
    twice = pack_whole(documents * 2, 50, 0.5)
    assert twice[: len(reference)] == reference
    assert [end - 2000 for end in twice[len(reference) :]] != reference


def test_a_document_without_end_needs_no_more_memory_than_a_sequence():
    packer = Packer(100, 0.1, 0, 0)
    packer.add(np.arange(1, 11), np.array([0]), np.array([0]))
    for portion in range(1, 200):
        packer.add(1000 * portion + np.arange(1, 1001), NONE, NONE)
        assert len(packer._pending) <= 100
