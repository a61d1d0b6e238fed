"""Cuts a document into training sequences of whole sentences (``full_sentences``).

RoBERTa's form of input (Liu et al. 2019, section 4.2): consecutive sentences up to the length limit, never across a document's end, no
sentence pairs and no next-sentence loss. Some sequences are cut short on purpose, so that fine-tuning on short texts is not a surprise.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def pack_full_sentences(
    sentence_ends: NDArray[np.int64], max_tokens: int, short_sequence_probability: float, random: np.random.Generator
) -> list[int]:
    """Ends of the sequences of one document.

    Args:
        sentence_ends: (S,) increasing; tokens up to the end of each sentence, from the document's start.
        max_tokens: longest sequence, without special tokens; at least 2.
        short_sequence_probability: share of sequences whose limit is drawn from 2 … ``max_tokens`` instead.
        random: the document's own generator.

    Returns:
        Increasing ends, the last one the document's; a sentence longer than the limit is cut at the limit.
    """
    ends: list[int] = []
    start, document_end = 0, int(sentence_ends[-1])
    while start < document_end:
        limit = max_tokens
        if random.random() < short_sequence_probability:
            limit = int(random.integers(2, max_tokens + 1))
        last = int(np.searchsorted(sentence_ends, start + limit, side="right")) - 1
        end = int(sentence_ends[last]) if last >= 0 else 0
        start = end if end > start else min(start + limit, document_end)
        ends.append(start)
    return ends
