"""Masked sequences by number: what batches are made of.

A source may mask a sequence when it is asked for (``DynamicSequences``) or hold sequences that were masked before; batches do not care.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from bort.corpus.masking import Masker
from bort.corpus.shards import Corpus
from bort.errors import BortError
from bort.vocabulary import Vocab


@dataclass(frozen=True)
class MaskedSequence:
    """One sequence with its questions and answers.

    Attributes:
        token_ids: (n,) int32, special tokens included, masks applied.
        positions: (k,) int64, increasing: which of them to predict.
        labels: (k,) int32, the ids that stood there.
    """

    token_ids: NDArray[np.int32]
    positions: NDArray[np.int64]
    labels: NDArray[np.int32]


class SequenceSource(Protocol):
    """Masked sequences by number.

    Attributes:
        max_seq_length: of the longest that there may be, special tokens included.
        lengths: (N,) int32, tokens of each sequence, special ones included.
        fingerprint: of the data, not of how it is masked.
    """

    @property
    def max_seq_length(self) -> int: ...

    @property
    def lengths(self) -> NDArray[np.int32]: ...

    @property
    def fingerprint(self) -> str: ...

    def __len__(self) -> int: ...

    def masked(self, epoch: int, index: int) -> MaskedSequence:
        """Sequence ``index`` as it is seen in ``epoch``."""


class DynamicSequences:
    """Sequences of a corpus between ``<s>`` and ``</s>``, masked anew in every epoch.

    Args:
        corpus: sequences without special tokens.
        vocab: the corpus's vocabulary.
        masker: how they are masked.

    Raises:
        BortError: if the vocabulary is of another size than the corpus's.
    """

    def __init__(self, corpus: Corpus, vocab: Vocab, masker: Masker) -> None:
        if corpus.vocab_size != len(vocab):
            raise BortError(
                f"the shards say that they were made with a vocabulary of {corpus.vocab_size} tokens, this one has {len(vocab)}; "
                "make them again with bort data, or give the right --vocab"
            )
        self._corpus = corpus
        self._vocab = vocab
        self._masker = masker
        self.max_seq_length = corpus.max_seq_length
        self.lengths: NDArray[np.int32] = corpus.lengths + np.int32(2)
        self.fingerprint = corpus.fingerprint

    def __len__(self) -> int:
        return len(self._corpus)

    def masked(self, epoch: int, index: int) -> MaskedSequence:
        """Sequence ``index`` with the masks of ``epoch``."""
        tokens = self._corpus[index]
        sentence_starts = self._corpus.sentence_starts(index) if self._masker.whole_word_mask else None
        masked, positions = self._masker.mask(tokens, epoch, index, sentence_starts)
        token_ids = np.empty(len(tokens) + 2, dtype=np.int32)
        token_ids[0], token_ids[1:-1], token_ids[-1] = self._vocab.bos_id, masked, self._vocab.eos_id
        return MaskedSequence(token_ids, positions + 1, tokens[positions])
