"""Text as batches of sentences, with the places at which documents begin.

In the form ``blank_line`` each line is a sentence and blank lines stand between documents; in the form ``line`` each line is a document;
in the form ``jsonl`` each line is a JSON object, one value of which is a document whose own lines are its sentences. No document spans two
files. Only a line feed ends a line, and white space around a sentence is no part of it.

Notable: a batch has bounded size and may begin and end inside a document, so a document may be larger than memory. Odd text stops nothing
and is counted: a byte that is not UTF-8 costs one character (U+FFFD) and does not shift the text behind it; U+0000 is a character like
others; a line of more than a mebibyte is several sentences. A byte order mark at a file's beginning is no text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bort.corpus.lines import LONGEST_LINE, Block, Extent, line_number, read_blocks
from bort.errors import BortError

LONGEST_RECORD = 1 << 25
"""Bytes of a line of JSON, which must be read as a whole; a longer one is left out."""


@dataclass
class OddLines:
    """How often text was odd.

    Attributes:
        undecodable_lines: sentences with bytes that are not UTF-8, each replaced by U+FFFD.
        lines_with_nul: sentences with U+0000, which is kept.
        long_lines: of more than ``LONGEST_LINE`` bytes, each cut into several sentences at white space.
        skipped_lines: of JSON and of more than ``LONGEST_RECORD`` bytes, left out.
    """

    undecodable_lines: int = 0
    lines_with_nul: int = 0
    long_lines: int = 0
    skipped_lines: int = 0

    def warnings(self) -> list[str]:
        """A line about each kind of odd text that was met."""
        met = {
            f"{self.undecodable_lines} lines were not UTF-8; their odd bytes became U+FFFD": self.undecodable_lines,
            f"{self.lines_with_nul} lines hold U+0000, which was kept; is the input text?": self.lines_with_nul,
            f"{self.long_lines} lines of more than {LONGEST_LINE} bytes were cut into several sentences": self.long_lines,
            f"{self.skipped_lines} lines of JSON of more than {LONGEST_RECORD} bytes were left out": self.skipped_lines,
        }
        return [text for text, count in met.items() if count]


@dataclass(frozen=True)
class SentenceBatch:
    """Consecutive sentences of a file.

    Attributes:
        sentences: without surrounding white space, none empty.
        document_starts: (D,) increasing; indices of sentences at which a document begins. Those before the first go on with the document of
            the batch before.
        document_offsets: (D,) byte of the file at which the line of each of these begins.
    """

    sentences: list[str]
    document_starts: NDArray[np.int64]
    document_offsets: NDArray[np.int64]


def between_blank_lines(stream: BinaryIO, start: int, stop: int, odd: OddLines) -> Iterator[SentenceBatch]:
    """Yield the documents for which the last blank line before them begins in ``start`` … ``stop`` - 1; there is one before the file.

    Args:
        stream: of plain text; can seek.
        start: bytes from the file's beginning.
        stop: likewise.
        odd: its counts grow.
    """
    owned = after_blank = start == 0
    long_line: _LongLine | None = None
    for block in read_blocks(stream, start, stop):
        if block.extent is not Extent.LINES:
            long_line = long_line or _LongLine(block.offset)
            sentence = long_line.add(block, odd if owned else OddLines())
            if owned and sentence:
                yield _batch([sentence], [0] if after_blank else [], [long_line.offset] if after_blank else [])
                after_blank = False
            if block.extent is Extent.LAST_PART:
                if long_line.is_blank:
                    if long_line.offset >= stop:
                        return
                    owned = after_blank = True
                elif owned:
                    odd.long_lines += 1
                long_line = None
            if not owned and block.end >= stop:
                return
            continue
        lines = _Lines(block)
        first, last = 0, len(lines.texts)
        if not owned:
            blanks = np.flatnonzero(~lines.hold_text)
            if len(blanks) == 0 and block.end < stop:
                continue
            if len(blanks) == 0 or lines.offsets[blanks[0]] >= stop:
                return
            first, owned = int(blanks[0]), True
        if block.end > stop:
            late = np.flatnonzero(~lines.hold_text & (lines.offsets >= stop))
            last = int(late[0]) if len(late) else last
        hold_text = lines.hold_text[first:last]
        begins = hold_text & ~np.concatenate([[not after_blank], hold_text[:-1]])
        if hold_text.any():
            lines.count_odd(first, last, odd)
            sentences = [text for text in lines.texts[first:last] if text]
            yield SentenceBatch(sentences, (np.cumsum(hold_text) - 1)[begins], lines.offsets[first:last][begins])
        if last < len(lines.texts):
            return
        after_blank = not hold_text[-1]


def one_a_line(stream: BinaryIO, start: int, stop: int, odd: OddLines) -> Iterator[SentenceBatch]:
    """Yield each line that begins in ``start`` … ``stop`` - 1 as a document; see ``between_blank_lines``."""
    long_line: _LongLine | None = None
    for block in _only_lines_before(stop, read_blocks(stream, start, stop)):
        if block.extent is Extent.LINES:
            lines = _Lines(block)
            lines.count_odd(0, len(lines.texts), odd)
            sentences = [text for text in lines.texts if text]
            if sentences:
                yield SentenceBatch(sentences, np.arange(len(sentences)), lines.offsets[lines.hold_text])
            continue
        long_line = long_line or _LongLine(block.offset)
        begins = long_line.is_blank
        sentence = long_line.add(block, odd)
        if sentence:
            yield _batch([sentence], [0] if begins else [], [long_line.offset] if begins else [])
        if block.extent is Extent.LAST_PART:
            odd.long_lines += not long_line.is_blank
            long_line = None


def json_records(stream: BinaryIO, start: int, stop: int, odd: OddLines, key: str, name: Path) -> Iterator[SentenceBatch]:
    """Yield the text under ``key`` of each line of JSON that begins in ``start`` … ``stop`` - 1; see ``between_blank_lines``.

    Args:
        name: of the file in messages.

    Raises:
        BortError: if a line is not a JSON object with a text under ``key``; the message names file and line.
    """
    for block in _only_lines_before(stop, read_blocks(stream, start, stop, longest_line=LONGEST_RECORD)):
        if block.extent is not Extent.LINES:
            odd.skipped_lines += block.extent is Extent.LAST_PART
            continue
        lines = _Lines(block)
        lines.count_odd(0, len(lines.texts), odd)
        sentences: list[str] = []
        starts: list[int] = []
        offsets: list[int] = []
        size = 0
        for number in np.flatnonzero(lines.hold_text).tolist():
            offset = int(lines.offsets[number])
            try:
                text = json.loads(lines.texts[number])[key]
                if not isinstance(text, str):
                    raise TypeError
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise BortError(f"{name}, line {line_number(stream, offset)}: {_complaint(error, key)}") from None
            begins = True
            for sentence in _sentences_of(text, odd):
                if begins:
                    starts.append(len(sentences))
                    offsets.append(offset)
                    begins = False
                sentences.append(sentence)
                size += len(sentence)
                if size >= LONGEST_LINE:
                    yield _batch(sentences, starts, offsets)
                    sentences, starts, offsets, size = [], [], [], 0
        if sentences:
            yield _batch(sentences, starts, offsets)


class _Lines:
    """The lines of a block, without surrounding white space."""

    def __init__(self, block: Block) -> None:
        self._undecodable: list[int] = []
        try:
            lines = block.data.decode("utf-8").split("\n")
        except UnicodeDecodeError:
            raw = block.data.split(b"\n")
            lines = [line.decode("utf-8", errors="replace") for line in raw]
            self._undecodable = [number for number, line in enumerate(raw) if not _is_utf8(line)]
        if block.data.endswith(b"\n"):
            lines.pop()
        self._has_nul = b"\0" in block.data
        self.texts = list(map(str.strip, lines))
        self.hold_text = np.fromiter(map(bool, self.texts), dtype=bool, count=len(self.texts))
        line_ends = np.flatnonzero(np.frombuffer(block.data, dtype=np.uint8) == ord("\n"))
        self.offsets: NDArray[np.int64] = np.concatenate([[0], line_ends + 1])[: len(lines)] + block.offset

    def count_odd(self, first: int, last: int, odd: OddLines) -> None:
        odd.undecodable_lines += sum(first <= number < last for number in self._undecodable)
        if self._has_nul:
            odd.lines_with_nul += sum("\0" in text for text in self.texts[first:last])


class _LongLine:
    """A line that comes in parts.

    Args:
        offset: where it begins.
    """

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.is_blank = True

    def add(self, block: Block, odd: OddLines) -> str:
        """The next part, without surrounding white space."""
        sentence = block.data.decode("utf-8", errors="replace").strip()
        odd.undecodable_lines += not _is_utf8(block.data)
        odd.lines_with_nul += "\0" in sentence
        self.is_blank &= not sentence
        return sentence


def _only_lines_before(stop: int, blocks: Iterable[Block]) -> Iterator[Block]:
    """Leave out the lines that begin at ``stop`` or later."""
    in_parts = False
    for block in blocks:
        if block.offset >= stop and not in_parts:
            return
        in_parts = block.extent is Extent.PART
        if block.extent is Extent.LINES and block.end > stop:
            end = block.data.find(b"\n", stop - 1 - block.offset) + 1
            yield Block(block.offset, block.data[: end or None], block.extent)
            return
        yield block


def _sentences_of(text: str, odd: OddLines) -> Iterator[str]:
    """Non-blank lines of a document that is one value; lines that are too long in parts."""
    if not text.isascii() and not _is_unicode(text):
        # JSON can spell half a character, which UTF-8 cannot.
        text = re.sub("[\ud800-\udfff]", "\ufffd", text)
        odd.undecodable_lines += 1
    odd.lines_with_nul += "\0" in text
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start < LONGEST_LINE:
            sentence = text[start:end].strip()
            if sentence:
                yield sentence
        else:
            odd.long_lines += 1
            while start < end:
                cut = min(end, start + LONGEST_LINE)
                if cut < end:
                    cut = 1 + max(text.rfind(space, start, cut) for space in " \t\r\v\f") or cut
                sentence = text[start:cut].strip()
                if sentence:
                    yield sentence
                start = cut
        start = end + 1


def _complaint(error: Exception, key: str) -> str:
    """What is wrong with a line of JSON."""
    match error:
        case KeyError():
            return f"it has no {key!r}; give the key of the text with --text_key"
        case json.JSONDecodeError():
            return f"not JSON: {error.msg}, column {error.colno}; mend the line, or see --documents"
        case RecursionError():
            return "not JSON that can be read: its brackets are nested too deeply; remove the line"
        case _:
            return f"not an object with a text as {key!r}; mend the line, or give another --text_key"


def _batch(sentences: list[str], starts: list[int], offsets: list[int]) -> SentenceBatch:
    return SentenceBatch(sentences, np.array(starts, dtype=np.int64), np.array(offsets, dtype=np.int64))


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
