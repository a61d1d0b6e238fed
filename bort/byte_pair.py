"""Byte-level byte-pair encoding, as GPT-2 introduced it and RoBERTa uses it: the merges, and two libraries that apply them.

A text is cut into words by GPT-2's pattern, each word's UTF-8 bytes are written as 256 printable characters, and pairs are merged in the
order of ``merges.txt``. Any text has ids, none of which is ``<unk>``, and joining the tokens gives the text back.

Notable: the pattern never puts "<" and a letter into one word, so no text can yield ``<s>`` or ``<mask>``, whatever the merges.
``Reference`` (Hugging Face tokenizers) defines what is right; ``Gigatoken`` gives the same ids many times faster. The two differ in
one respect, the age of their Unicode tables: letters and digits of a newer Unicode version are letters and digits to one and not yet to the
other. ``Gigatoken`` therefore leaves every text with a character that this Python's own, older tables do not know to the reference.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path

import gigatoken
import numpy as np
import tokenizers
from numpy.typing import DTypeLike, NDArray
from tokenizers import decoders, models, pre_tokenizers, trainers

from bort.errors import BortError
from bort.vocabulary import Vocab, check_vocab_size, read_text

Merges = tuple[tuple[str, str], ...]
VOCAB_FILE, MERGES_FILE = "vocab.json", "merges.txt"
_HEADER = "#version"
_MOST_REMEMBERED = 64 << 20  # bytes
_LINE_FEED = "\u010a"
"""The character of the byte alphabet that stands for a line feed."""


def byte_alphabet() -> list[str]:
    """The 256 characters that stand for the 256 bytes, in code point order."""
    return sorted(pre_tokenizers.ByteLevel.alphabet())


def read_merges(path: Path, vocab: Vocab) -> Merges:
    """Read ``merges.txt`` (GluonNLP's rank file is the same, byte for byte): a header line, then two tokens a line, first merge first.

    Raises:
        BortError: if the file cannot be read, a line is not two tokens of ``vocab`` whose union is one too, a merge stands there twice, or
            ``vocab`` lacks a character of the byte alphabet, so that some texts would lose it.
    """
    absent = [character for character in byte_alphabet() if character not in vocab]
    if absent:
        raise BortError(f"{path.parent}: the vocabulary lacks {absent[0]!r}, one of the 256 characters that a byte-level BPE needs")
    merges: dict[tuple[str, str], None] = {}
    lines = read_text(path).replace("\r\n", "\n").removesuffix("\n").split("\n")
    for number, line in enumerate(lines, start=1):
        if number == 1 and line.startswith(_HEADER):
            continue
        left, _, right = line.partition(" ")
        where = f"{path}, line {number}"
        if not left or not right or " " in right:
            raise BortError(f"{where}: {line!r} is not two tokens with one space between them")
        unknown = next((token for token in (left, right, left + right) if token not in vocab), None)
        if unknown is not None:
            raise BortError(f"{where}: {unknown!r} is not in the vocabulary; the two files do not belong together")
        if (left, right) in merges:
            raise BortError(f"{where}: the merge of {left!r} and {right!r} stands in the file twice")
        merges[left, right] = None
    return tuple(merges)


def merges_text(merges: Merges) -> str:
    """Contents of a ``merges.txt``."""
    return "".join([f"{_HEADER}: 0.2\n", *(f"{left} {right}\n" for left, right in merges)])


def train_merges(texts: Iterable[str], vocab_size: int, min_frequency: int = 2, show_progress: bool = False) -> tuple[Vocab, Merges]:
    """Learn a byte-level BPE with RoBERTa's layout: ``<s> <pad> </s> <unk>`` have the ids 0 to 3, ``<mask>`` the last.

    The same texts in the same order give the same vocabulary. Special tokens in a text are ordinary text here too.

    Args:
        texts: what to learn from.
        vocab_size: number of tokens, special ones included; the vocabulary comes out smaller if the texts run out of pairs.
        min_frequency: how often a pair must occur to be merged.
        show_progress: draw the library's progress bars.

    Raises:
        BortError: if ``vocab_size`` or ``min_frequency`` is out of range.
    """
    check_vocab_size(vocab_size)
    if not 1 <= min_frequency < 1 << 32:
        raise BortError(f"min_frequency must be 1 or more, and less than {1 << 32}, got {min_frequency}")
    library = tokenizers.Tokenizer(models.BPE())
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(Vocab.special_tokens),
        min_frequency=min_frequency,
        initial_alphabet=byte_alphabet(),
        show_progress=show_progress,
    )
    library.train_from_iterator(texts, trainer)
    learnt = sorted(library.get_vocab().items(), key=lambda item: item[1])
    *leading, last = Vocab.special_tokens
    merges = json.loads(library.to_str())["model"]["merges"]
    return Vocab((*leading, *(token for token, _ in learnt), last)), tuple((left, right) for left, right in merges)


class BytePairModel:
    """The tokens and merges of a byte-level BPE; ``Reference`` and ``Gigatoken`` apply them.

    Args:
        vocab: holds every merge's two tokens, their union, and the byte alphabet, as ``read_merges`` checks.
        merges: pairs of tokens, first to merge first.
    """

    def __init__(self, vocab: Vocab, merges: Merges) -> None:
        self.vocab = vocab
        self.merges = merges

    def files(self) -> dict[str, bytes]:
        """Names and contents of the two files that hold the model, as Hugging Face names them."""
        return {VOCAB_FILE: self.vocab.to_hugging_face_json().encode(), MERGES_FILE: merges_text(self.merges).encode()}

    def __reduce__(self) -> tuple[type, tuple[Vocab, Merges]]:
        # The libraries' own objects cannot cross to another process, but are rebuilt in a fifth of a second.
        return type(self), (self.vocab, self.merges)


class Reference(BytePairModel):
    """Byte-level BPE by Hugging Face tokenizers."""

    def __init__(self, vocab: Vocab, merges: Merges) -> None:
        super().__init__(vocab, merges)
        ids = {token: position for position, token in enumerate(vocab.tokens)}
        self.library = tokenizers.Tokenizer(models.BPE(vocab=ids, merges=list(merges)))
        # No added tokens: the library would look for those in the text before it cuts it into words.
        self.library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        self.library.decoder = decoders.ByteLevel()

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        return self.library.encode(text).ids

    def encode_batch(self, texts: list[str], dtype: DTypeLike) -> list[NDArray[np.unsignedinteger]]:
        """Ids of each text, as arrays of ``dtype``."""
        return [np.array(encoding.ids, dtype=dtype) for encoding in self.library.encode_batch_fast(texts)]

    def encode_ragged(self, texts: list[str], dtype: DTypeLike) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """Ids of all texts behind one another, and where each begins, as ``Tokenizer.encode_ragged`` gives them."""
        rows = [encoding.ids for encoding in self.library.encode_batch_fast(texts)]
        return np.fromiter(itertools.chain.from_iterable(rows), dtype), np.cumsum([0, *map(len, rows)], dtype=np.int64)

    def decode(self, ids: list[int]) -> str:
        """Text of ids, all of which are in the vocabulary."""
        return self.library.decode(ids, skip_special_tokens=False)


class Gigatoken(BytePairModel):
    """Byte-level BPE by gigatoken, built from the reference's own description of itself."""

    def __init__(self, vocab: Vocab, merges: Merges) -> None:
        super().__init__(vocab, merges)
        self._reference = Reference(vocab, merges)
        self._library = gigatoken.Tokenizer.from_json(self._reference.library.to_str())
        self._line_feed = vocab[_LINE_FEED]
        self._remembered = 0

    def encode(self, text: str) -> list[int]:
        """Ids of one text."""
        if holds_newer_character(text):
            return self._reference.encode(text)
        ids: list[int] = self._library.encode(text).tolist()
        return ids

    def encode_batch(self, texts: list[str], dtype: DTypeLike) -> list[NDArray[np.unsignedinteger]]:
        """Ids of each text, as arrays of ``dtype``: views of one buffer."""
        # None: on all cores, but for a forked process, in which the library's threads are missing.
        ids, starts = self._encode_batch(texts, dtype, parallel=None)
        return [ids[start:stop] for start, stop in itertools.pairwise(starts.tolist())]

    def encode_ragged(self, texts: list[str], dtype: DTypeLike) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """Ids of all texts behind one another, and where each begins, as ``Tokenizer.encode_ragged`` gives them."""
        if texts and not self._newer(texts):
            # One text is encoded faster than many. If each line feed put between them comes out as a token of its own, no word and no merge
            # reached over it, so what lies between two of them is what the text alone would have given.
            joined = "\n".join(texts)
            before = _resident_bytes()
            ids = np.asarray(self._library.encode(joined.encode()))
            self._forget_if_grown(before + ids.nbytes)
            separators = np.flatnonzero(ids == self._line_feed)
            if len(separators) == len(texts) - 1 == joined.count("\n"):
                starts = np.concatenate([[0], separators - np.arange(len(separators)), [len(ids) - len(separators)]])
                return np.delete(ids.astype(dtype, copy=False), separators), starts
        return self._encode_batch(texts, dtype, parallel=False)

    def _encode_batch(
        self, texts: list[str], dtype: DTypeLike, parallel: bool | None
    ) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        before = _resident_bytes()
        batch = self._library.encode_batch(texts, parallel=parallel).layout
        ids, starts = np.asarray(batch.content.data), np.asarray(batch.offsets.data)
        self._forget_if_grown(before + ids.nbytes + starts.nbytes)
        ids, starts = ids.astype(dtype, copy=False), starts.astype(np.int64)
        newer = self._newer(texts)
        if newer:
            rows = [ids[start:stop] for start, stop in itertools.pairwise(starts.tolist())]
            for number in newer:
                rows[number] = np.array(self._reference.encode(texts[number]), dtype=dtype)
            ids, starts = np.concatenate(rows), np.cumsum([0, *map(len, rows)], dtype=np.int64)
        return ids, starts

    def _newer(self, texts: list[str]) -> list[int]:
        """Which texts are the reference's."""
        plain = map(str.isascii, texts)
        return [number for number, is_plain in enumerate(plain) if not is_plain and holds_newer_character(texts[number])]

    def _forget_if_grown(self, expected_bytes: int) -> None:
        """Begin with a new library object once this one has taken much memory: it remembers every word that it has met.

        Args:
            expected_bytes: memory that this process would have if the last call had left nothing but its result.
        """
        self._remembered += max(0, _resident_bytes() - expected_bytes)
        if self._remembered > _MOST_REMEMBERED:
            self._library = gigatoken.Tokenizer.from_json(self._reference.library.to_str())
            self._remembered = 0

    def decode(self, ids: list[int]) -> str:
        """Text of ids, all of which are in the vocabulary."""
        text: bytes = self._library.decode(ids)
        return text.decode("utf-8", errors="replace")


def holds_newer_character(text: str) -> bool:
    """Whether ``text`` has a code point to which this Python's Unicode tables give no meaning yet."""
    return not text.isascii() and any(unicodedata.category(character) == "Cn" for character in _candidates().findall(text))


def _resident_bytes() -> int:
    """Memory of this process; Linux counts it in pages."""
    return int(Path("/proc/self/statm").read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@functools.cache
def _candidates() -> re.Pattern[str]:
    """Matches every unassigned code point; above U+FFFF the assigned ones too, since a class of few ranges is far quicker."""
    unassigned = (chr(code) for code in range(0x10000) if unicodedata.category(chr(code)) == "Cn")
    return re.compile(f"[{''.join(map(re.escape, unassigned))}\U00010000-\U0010ffff]")
