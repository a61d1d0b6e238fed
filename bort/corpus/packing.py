"""Cuts documents into training sequences of whole sentences (``full_sentences``).

RoBERTa's form of input (Liu et al. 2019, section 4.2): consecutive sentences up to the length limit, never across a document's end, no
sentence pairs and no next-sentence loss. Some sequences are cut short on purpose, so that fine-tuning on short texts is not a surprise.

Notable: a document may come in portions, and the sequences are those of the whole. Which of them are short is a function of (seed, file,
byte at which the document begins), so neither the portions nor the worker matter.
"""

from __future__ import annotations

from bisect import bisect_right

import numpy as np
from numpy.typing import NDArray

from bort.randomness import Purpose, hashed, unit_interval


class Packer:
    """Packs the documents of one file, in their order.

    Tokens are counted from any origin, the same for all calls.

    Args:
        max_tokens: longest sequence, without special tokens; at least 2.
        short_seq_prob: share of sequences whose limit is drawn from 2 … ``max_tokens`` instead.
        seed: of the draws.
        file: number of the file.
        position: tokens before the first document.
    """

    def __init__(self, max_tokens: int, short_seq_prob: float, seed: int, file: int, position: int = 0) -> None:
        self._max_tokens = max_tokens
        self._short_seq_prob = short_seq_prob
        self._place = hashed(hashed(Purpose.PACKING, seed), file)
        self._position = position
        # The document that is not yet known to have ended: tokens before its open sequence, sentence ends behind that, and how many
        # sequences it had.
        self._start = position
        self._pending: list[int] = []
        self._key = 0
        self._count = 0

    def add(
        self, sentence_ends: NDArray[np.int64], document_starts: NDArray[np.int64], document_offsets: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        """Take the next sentences.

        Args:
            sentence_ends: (S,) increasing; tokens up to the end of each.
            document_starts: (D,) increasing; indices of sentences at which a document begins.
            document_offsets: (D,) byte of the file at which each begins.

        Returns:
            Ends of the sequences that are now complete, increasing. A sentence longer than the limit is cut at the limit.
        """
        if len(sentence_ends) == 0:
            return np.empty(0, dtype=np.int64)
        first = int(document_starts[0]) if len(document_starts) else len(sentence_ends)
        self._pending += sentence_ends[:first].tolist()
        if len(document_starts) == 0:
            self._position = int(sentence_ends[-1])
            return np.array(self._close(final=False), dtype=np.int64)
        closed = self._close(final=True)
        positions = np.concatenate([[self._position], sentence_ends])
        starts = positions[document_starts]
        keys = hashed(self._place, document_offsets.astype(np.uint64))
        # Most documents of a corpus of short ones fit into one sequence, and they need no loop.
        fits = starts[1:] - starts[:-1] <= self._limits(keys[:-1])
        for number in np.flatnonzero(~fits).tolist():
            document = sentence_ends[document_starts[number] : document_starts[number + 1]]
            self._open(int(starts[number]), document, int(keys[number]))
            closed += self._close(final=True)
        self._open(int(starts[-1]), sentence_ends[document_starts[-1] :], int(keys[-1]))
        closed += self._close(final=False)
        self._position = int(sentence_ends[-1])
        return np.sort(np.concatenate([starts[1:][fits], np.array(closed, dtype=np.int64)]))

    def finish(self) -> NDArray[np.int64]:
        """End the last document; returns as ``add``."""
        return np.array(self._close(final=True), dtype=np.int64)

    def _open(self, start: int, sentence_ends: NDArray[np.int64], key: int) -> None:
        self._start, self._pending, self._key, self._count = start, sentence_ends.tolist(), key, 0

    def _close(self, final: bool) -> list[int]:
        """Ends of the open document's sequences to which no further sentence can be added; of all if the document has ended."""
        closed: list[int] = []
        pending, start = self._pending, self._start
        known = pending[-1] if pending else start
        packed = 0
        while start < known:
            limit = self._limit()
            fitting = bisect_right(pending, start + limit, lo=packed)
            if fitting == len(pending) and not final:
                break
            start = pending[fitting - 1] if fitting > packed else min(start + limit, known)
            packed = bisect_right(pending, start, lo=packed)
            closed.append(start)
            self._count += 1
        self._start, self._pending = start, pending[packed:]
        return closed

    def _limits(self, keys: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Most tokens of the first sequence of each document."""
        drawn = 2 + (unit_interval(hashed(keys, 1)) * (self._max_tokens - 1)).astype(np.int64)
        return np.where(unit_interval(hashed(keys, 0)) < self._short_seq_prob, drawn, self._max_tokens)

    def _limit(self) -> int:
        """Most tokens of the open document's next sequence."""
        if unit_interval(hashed(self._key, 2 * self._count)) >= self._short_seq_prob:
            return self._max_tokens
        return 2 + int(unit_interval(hashed(self._key, 2 * self._count + 1)) * (self._max_tokens - 1))
