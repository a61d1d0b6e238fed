"""Sequences masked when they are asked for: special tokens around them, answers that restore the text, whole words by sentence."""

from __future__ import annotations

import numpy as np
import pytest

from bort import BortError
from bort.corpus.masking import Masker
from bort.corpus.sequences import DynamicSequences
from bort.corpus.shards import Corpus, create_shards
from bort.settings import ShardSettings
from bort.vocabulary import Vocab


@pytest.fixture(scope="module")
def corpus(tokenizer, repository, tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    texts = sorted((repository / "test_data/corpus").glob("*.txt"))
    create_shards(texts, tokenizer, folder, ShardSettings(max_seq_length=128, num_outputs=2))
    return Corpus(folder, tokenizer.vocab.fingerprint)


@pytest.mark.parametrize("whole_word_mask", [False, True])
def test_putting_the_answers_back_gives_the_corpus(corpus, tokenizer, whole_word_mask):
    vocab = tokenizer.vocab
    sequences = DynamicSequences(corpus, vocab, Masker(vocab, 0.15, 80, 0, whole_word_mask))
    assert len(sequences) == len(corpus)
    assert (sequences.fingerprint, sequences.max_seq_length) == (corpus.fingerprint, 128)
    for index in range(len(corpus)):
        sequence = sequences.masked(2, index)
        restored = sequence.token_ids.copy()
        restored[sequence.positions] = sequence.labels
        assert restored.tolist() == [vocab.bos_id, *corpus[index].tolist(), vocab.eos_id]
        assert len(restored) == sequences.lengths[index]
        assert len(sequence.positions) >= 1


def test_a_vocabulary_of_another_size_is_refused(corpus, tokenizer):
    smaller = Vocab((*tokenizer.vocab.tokens[:-2], tokenizer.vocab.tokens[-1]))
    with pytest.raises(BortError, match=r"vocabulary of 400 tokens, this one has 399; [^\n]*$"):
        DynamicSequences(corpus, smaller, Masker(smaller, 0.15, 80, 0))


def test_epochs_differ_and_repeat(corpus, tokenizer):
    sequences = DynamicSequences(corpus, tokenizer.vocab, Masker(tokenizer.vocab, 0.15, 80, 0))
    longest = int(np.argmax(sequences.lengths))
    first, again, other = (sequences.masked(epoch, longest) for epoch in (0, 0, 1))
    np.testing.assert_array_equal(first.token_ids, again.token_ids)
    assert first.positions.tolist() != other.positions.tolist()


def test_a_word_never_reaches_into_the_next_sentence(corpus, tokenizer):
    """The first word of a sentence has no leading space, so its tokens would otherwise belong to the sentence before."""
    sequences = DynamicSequences(corpus, tokenizer.vocab, Masker(tokenizer.vocab, 0.15, 80, 0, whole_word_mask=True))
    begun, chosen_without_the_one_before = 0, 0
    for index in range(len(corpus)):
        starts = [start for start in corpus.sentence_starts(index).tolist() if start]
        for epoch in range(8):
            positions = set((sequences.masked(epoch, index).positions - 1).tolist())
            begun += len(starts)
            chosen_without_the_one_before += sum(start in positions and start - 1 not in positions for start in starts)
    # Words are chosen with a probability of about 0.15, and two neighbours nearly independently.
    assert chosen_without_the_one_before / begun == pytest.approx(0.15 * 0.85, abs=0.03)
