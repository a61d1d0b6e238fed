"""Dynamic masking for masked language modelling, as a pure function of (seed, epoch, sequence).

The rule is BERT's (Devlin et al. 2019, section 3.1): of the chosen positions 80 % become ``<mask>``, 10 % a random token, 10 % stay.
Random tokens are never special ones, and the first and last token (``<s>``, ``</s>``) are never chosen, because they are added afterwards.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bort.randomness import Purpose, generator
from bort.vocabulary import Vocab

_MASKED, _RANDOM = 0.8, 0.9


class Masker:
    """Masks sequences with one vocabulary.

    Args:
        vocab: names the mask token and the special tokens, which are never drawn.
        masked_lm_prob: share of a sequence's tokens that are chosen, in (0, 1].
        max_predictions_per_seq: at most so many of them.
        seed: of the run.
    """

    def __init__(self, vocab: Vocab, masked_lm_prob: float, max_predictions_per_seq: int, seed: int) -> None:
        self._mask_id = vocab.mask_id
        self._ordinary_ids = np.setdiff1d(np.arange(len(vocab), dtype=np.int32), vocab.special_ids)
        self._masked_lm_prob = masked_lm_prob
        self._max_predictions_per_seq = max_predictions_per_seq
        self._seed = seed

    def mask(self, tokens: NDArray[np.int32], epoch: int, sequence: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        """Choose positions of one sequence and replace what stands there.

        Args:
            tokens: (n,) ids without special tokens.
            epoch: a sequence is masked differently in each.
            sequence: its number in the corpus.

        Returns:
            The masked copy of ``tokens``, and the chosen positions (k,), increasing, with
            k = min(max_predictions_per_seq, max(1, round(n · masked_lm_prob))).
        """
        random = generator(Purpose.MASKS, self._seed, epoch, sequence)
        count = min(self._max_predictions_per_seq, max(1, round(len(tokens) * self._masked_lm_prob)))
        positions = np.sort(random.permutation(len(tokens))[:count])
        fate = random.random(count)
        drawn = self._ordinary_ids[random.integers(len(self._ordinary_ids), size=count)]
        masked = tokens.copy()
        masked[positions] = np.where(fate < _MASKED, self._mask_id, np.where(fate < _RANDOM, drawn, tokens[positions]))
        return masked, positions
