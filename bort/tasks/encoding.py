"""Examples to input ids: ``<s> A </s>`` for one text, ``<s> A </s> B </s>`` for two.

Notable: in a pair that is too long, both texts are cut at the end to an equal share of the room; a text shorter than its share leaves the
rest to the other, and if the room is odd, the first text has one token more. That cuts the question off a long article of RACE, as in the
published code; ``keep_question`` cuts the article instead. There are no token types: Bort has none.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError
from bort.tasks.task import Example

INPUT_FORMAT = 1
"""Version of the ids that a row becomes: raised whenever they change, so that cached ids from before are not used."""


class Vocabulary(Protocol):
    """The special ids around texts."""

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


def encode_examples(
    examples: Sequence[Example], tokenizer: TextEncoder, max_length: int, keep_question: bool = False
) -> list[NDArray[np.int32]]:
    """Input ids of each example, in order.

    Args:
        examples: rows with one or two texts each.
        tokenizer: what turns text into ids.
        max_length: most ids of an example, special tokens included.
        keep_question: cut what is before ``question_start``, where an example has one, before anything else.

    Returns:
        One array (T,) int32 per example, with T at most ``max_length``.

    Raises:
        BortError: if ``max_length`` leaves no room for one token of each text.
    """
    if max_length < 5:
        raise BortError(f"a maximum length of {max_length} leaves no room for two texts between special tokens; give at least 5")
    vocab = tokenizer.vocab
    tokens = _tokens((text for example in examples for text in example.texts), tokenizer)
    parts = _tokens((part for example in examples for part in _parts(example)), tokenizer) if keep_question else {}
    encoded = []
    for example in examples:
        texts = [tokens[text] for text in example.texts]
        room = max_length - len(texts) - 1
        # Only a row that must be cut is taken apart: its parts may have other ids than the whole text.
        if keep_question and example.question_start is not None and sum(map(len, texts)) > room:
            article, question = (parts[part] for part in _parts(example))
            left = room - len(question) - sum(map(len, texts[1:]))
            texts[0] = np.concatenate([article[: max(left, 0)], question])
        kept = shares([len(text) for text in texts], room)
        pieces = [piece for text, share in zip(texts, kept, strict=True) for piece in (text[:share], [vocab.eos_id])]
        encoded.append(np.concatenate([[vocab.bos_id], *pieces]).astype(np.int32))
    return encoded


def _parts(example: Example) -> tuple[str, ...]:
    """The first text before and from ``question_start``; nothing where an example has none."""
    if example.question_start is None:
        return ()
    return example.texts[0][: example.question_start], example.texts[0][example.question_start :]


def _tokens(texts: Iterable[str], tokenizer: TextEncoder) -> dict[str, NDArray[Any]]:
    """Ids by text; a passage that many rows share is encoded once."""
    distinct = list(dict.fromkeys(texts))
    return dict(zip(distinct, tokenizer.encode_batch(distinct), strict=True))


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
