"""Examples to input ids: ``<s> A </s>`` for one text, ``<s> A </s> B </s>`` for two.

Notable: a pair that is too long is cut at the ends so that both texts keep an equal share of the room; a text shorter than its share
leaves the rest to the other, and of an odd number of tokens the first text has one more. There are no token types: Bort has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError
from bort.tasks.task import Example


class Vocabulary(Protocol):
    """The special ids that stand around texts."""

    @property
    def bos_id(self) -> int:
        """Id of ``<s>``."""

    @property
    def eos_id(self) -> int:
        """Id of ``</s>``."""


class TextEncoder(Protocol):
    """What is needed of a tokenizer."""

    @property
    def vocab(self) -> Vocabulary:
        """Its vocabulary."""

    def encode_batch(self, texts: list[str]) -> Sequence[NDArray[Any]]:
        """Ids of each text, without special tokens."""


def encode_examples(examples: Sequence[Example], tokenizer: TextEncoder, max_length: int) -> list[NDArray[np.int32]]:
    """Input ids of each example, in order.

    Args:
        examples: rows with one or two texts each.
        tokenizer: what turns text into ids.
        max_length: most ids of an example, special tokens included.

    Returns:
        One array (T,) int32 an example, with T at most ``max_length``.

    Raises:
        BortError: if ``max_length`` leaves no room for one token of each text.
    """
    if max_length < 5:
        raise BortError(f"a maximum length of {max_length} leaves no room for two texts between special tokens; give at least 5")
    vocab = tokenizer.vocab
    tokens = iter(tokenizer.encode_batch([text for example in examples for text in example.texts]))
    encoded = []
    for example in examples:
        texts = [next(tokens) for _ in example.texts]
        kept = shares([len(text) for text in texts], max_length - len(texts) - 1)
        pieces = [piece for text, share in zip(texts, kept, strict=True) for piece in (text[:share], [vocab.eos_id])]
        encoded.append(np.concatenate([[vocab.bos_id], *pieces]).astype(np.int32))
    return encoded


def shares(lengths: Sequence[int], room: int) -> tuple[int, ...]:
    """Tokens that each of one or two texts keeps when together they may have at most ``room``.

    Args:
        lengths: tokens of each text.
        room: most tokens together, not negative.
    """
    if len(lengths) == 1:
        return (min(lengths[0], room),)
    first, second = lengths
    return min(first, max(room - room // 2, room - second)), min(second, max(room // 2, room - first))
