"""Dynamic masking for masked language modelling, as a pure function of (seed, epoch, sequence).

The rule is BERT's (Devlin et al. 2019, section 3.1): of the chosen tokens 80 % become ``<mask>``, 10 % a random token, 10 % stay. Special
tokens are never chosen and never drawn.

With whole words, the tokens of a word are chosen together, and then each has its own fate. A word begins where the sequence or a sentence
does and at every token that begins with white space; so punctuation belongs to the word it touches, and where a language has no spaces a
word is as long as a sentence.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bort.randomness import Purpose, generator
from bort.vocabulary import Vocab

_MASKED, _RANDOM = 0.8, 0.9
_SENTENCEPIECE_SPACE = "▁"
# A byte-level BPE writes the bytes below 33 as the characters from U+0100 on.
_BYTE_LEVEL_SPACES = tuple(chr(0x100 + byte) for byte in b"\t\n\v\f\r ")


class Masker:
    """Masks sequences with one vocabulary.

    Args:
        vocab: names the mask token and the special tokens.
        masked_lm_prob: share of a sequence's tokens that are chosen, in (0, 1].
        max_predictions_per_seq: at most so many of them.
        seed: of the run.
        whole_word_mask: choose words, not tokens.
    """

    def __init__(self, vocab: Vocab, masked_lm_prob: float, max_predictions_per_seq: int, seed: int, whole_word_mask: bool = False) -> None:
        self.whole_word_mask = whole_word_mask
        self._mask_id = vocab.mask_id
        self._ordinary_ids = np.setdiff1d(np.arange(len(vocab), dtype=np.int32), vocab.special_ids)
        self._is_ordinary = np.isin(np.arange(len(vocab)), self._ordinary_ids)
        self._begins_word = begins_word(vocab) if whole_word_mask else None
        self._masked_lm_prob = masked_lm_prob
        self._max_predictions_per_seq = max_predictions_per_seq
        self._seed = seed

    def mask(
        self, tokens: NDArray[np.int32], epoch: int, sequence: int, sentence_starts: NDArray[np.int64] | None = None
    ) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Choose positions of one sequence and replace what stands there.

        Args:
            tokens: (n,) ids.
            epoch: a sequence is masked differently in each.
            sequence: its number in the corpus.
            sentence_starts: offsets at which a sentence begins, for whole words; sentences are tokenised without a leading space.

        Returns:
            The masked copy of ``tokens``, and the chosen positions (k,), increasing. Of m tokens that are not special,
            k = min(max_predictions_per_seq, max(1, round(m · masked_lm_prob))), and 0 if m is 0. With whole words k is the limit: words
            are taken in random order, one that would exceed the limit is left out and the next one tried. The first one is always taken,
            so that every word can be: beyond the limit if need be, and if it has more than ``max_predictions_per_seq`` tokens, so many
            of its tokens in a row.
        """
        random = generator(Purpose.MASKS, self._seed, epoch, sequence)
        candidates = np.flatnonzero(self._is_ordinary[tokens])
        if not len(candidates):
            return tokens.copy(), candidates
        limit = min(self._max_predictions_per_seq, max(1, round(len(candidates) * self._masked_lm_prob)))
        if self._begins_word is None:
            positions = candidates[np.sort(random.permutation(len(candidates))[:limit])]
        else:
            begins = self._begins_word[tokens]
            if sentence_starts is not None:
                begins[sentence_starts] = True
            # Numbered without gaps, although a word of special tokens alone is none to choose.
            words = np.cumsum(begins)[candidates]
            words = np.cumsum(np.diff(words, prepend=words[0]) > 0)
            positions = candidates[self._choose_words(words, limit, random)]
        fate = random.random(len(positions))
        drawn = self._ordinary_ids[random.integers(len(self._ordinary_ids), size=len(positions))]
        masked = tokens.copy()
        masked[positions] = np.where(fate < _MASKED, self._mask_id, np.where(fate < _RANDOM, drawn, tokens[positions]))
        return masked, positions

    def _choose_words(self, words: NDArray[np.int64], limit: int, random: np.random.Generator) -> NDArray[np.int64]:
        """Places in ``words``, which holds the number of each token's word, that belong to the words taken."""
        sizes = np.bincount(words)
        order = random.permutation(len(sizes))
        ends = np.cumsum(sizes[order])
        if ends[0] > limit:
            places = np.flatnonzero(words == order[0])
            most = self._max_predictions_per_seq
            first = int(random.integers(len(places) - most + 1)) if len(places) > most else 0
            return places[first : first + most]
        count = int(np.searchsorted(ends, limit, side="right"))
        is_taken = np.zeros(len(sizes), dtype=bool)
        is_taken[order[:count]] = True
        room = limit - int(ends[count - 1])
        for word in order[count:].tolist():
            if not room:
                break
            if sizes[word] <= room:
                is_taken[word] = True
                room -= int(sizes[word])
        return np.flatnonzero(is_taken[words])


def begins_word(vocab: Vocab) -> NDArray[np.bool_]:
    """For each id, whether its token begins with white space, (V,); in a SentencePiece vocabulary that is ``▁``, else a byte-level mark."""
    # The 256 characters of a byte-level BPE do not include SentencePiece's mark, but SentencePiece's tokens may begin with any of them.
    is_sentencepiece = any(token.startswith(_SENTENCEPIECE_SPACE) for token in vocab.tokens)
    marks = (_SENTENCEPIECE_SPACE,) if is_sentencepiece else _BYTE_LEVEL_SPACES
    return np.array([token.startswith(marks) for token in vocab.tokens])
