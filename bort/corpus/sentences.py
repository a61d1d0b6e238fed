"""Text as batches of sentences, with the places at which documents begin.

In the form ``blank_line`` each line is a sentence and blank lines stand between documents; in the form ``line`` each line is a document;
in the form ``jsonl`` each line is a JSON object, one value of which is a document whose own lines are its sentences. No document spans two
files. Only a line feed ends a line, and white space around a sentence is no part of it.

Notable: a batch has bounded size and may begin and end inside a document, so a document may be larger than memory. Odd text stops nothing
and is counted: a byte that is not UTF-8 costs one character (U+FFFD) and does not shift the text behind it; U+0000 is a character like
others; a line of more than a mebibyte is several sentences; a line of JSON of more than eight mebibytes is left out. A byte order mark at a
file's beginning is no text.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from bort.corpus.lines import LONGEST_LINE, Block, Extent, line_number, own_first_line, read_blocks
from bort.errors import BortError

LONGEST_RECORD = 1 << 23
"""Bytes of a line of JSON, which must be read as a whole; a longer one is left out."""


@dataclass
class OddLines:
    """How often text was odd.

    Attributes:
        undecodable_lines: sentences, or lines of JSON, with bytes that are not UTF-8 or with halves of a surrogate pair, each replaced by
            U+FFFD.
        lines_with_nul: sentences with U+0000, which is kept.
        long_lines: of more than ``LONGEST_LINE`` bytes, each cut into several sentences at white space.
        skipped_lines: of JSON and of more than ``LONGEST_RECORD`` bytes, left out.
        first: of each of these, if there is one, the place of the first: file and byte.
    """

    undecodable_lines: int = 0
    lines_with_nul: int = 0
    long_lines: int = 0
    skipped_lines: int = 0
    first: dict[str, str] = field(default_factory=dict, compare=False)

    def note(self, kind: str, name: Path, offset: int, count: int = 1) -> None:
        """Count ``count`` more of ``kind``, the first of them in the line at byte ``offset`` of the file ``name``."""
        if count:
            setattr(self, kind, getattr(self, kind) + count)
            self.first.setdefault(kind, f"{name}, byte {offset}")

    def warnings(self) -> list[str]:
        """A line about each kind of odd text that was met."""
        met = {
            "undecodable_lines": "lines with what is no character, such as bytes that are not UTF-8, which became U+FFFD",
            "lines_with_nul": "lines with U+0000, which was kept (is the input text?)",
            "long_lines": f"lines of more than {LONGEST_LINE} bytes, which were cut into several sentences",
            "skipped_lines": f"lines of JSON of more than {LONGEST_RECORD} bytes, which were left out",
        }
        first = {kind: f"; the first: {place}" for kind, place in self.first.items()}
        return [f"{text}: {getattr(self, kind)}{first.get(kind, '')}" for kind, text in met.items() if getattr(self, kind)]


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


def between_blank_lines(stream: BinaryIO, start: int, stop: int, odd: OddLines, name: Path) -> Iterator[SentenceBatch]:
    """Yield the documents for which the last blank line before them begins in ``start`` … ``stop`` - 1; there is one before the file.

    Args:
        stream: of plain text; can seek.
        start: bytes from the file's beginning.
        stop: likewise.
        odd: its counts grow.
        name: of the file in messages.
    """
    stop = own_first_line(stream, start, stop)
    owned = after_blank = start == 0
    long_line: _LongLine | None = None
    for block in read_blocks(stream, start, stop):
        if block.extent is not Extent.LINES:
            long_line = long_line or _LongLine(block.offset, name)
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
                    odd.note("long_lines", name, long_line.offset)
                long_line = None
            # As long as a line that begins in the range may turn out to be blank, the document behind it may be ours.
            may_be_blank = long_line is not None and long_line.is_blank and long_line.offset < stop
            if not owned and block.end >= stop and not may_be_blank:
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
            lines.count_odd(first, last, odd, name)
            sentences = [text for text in lines.texts[first:last] if text]
            yield SentenceBatch(sentences, (np.cumsum(hold_text) - 1)[begins], lines.offsets[first:last][begins])
        if last < len(lines.texts):
            return
        after_blank = not hold_text[-1]


def one_a_line(stream: BinaryIO, start: int, stop: int, odd: OddLines, name: Path) -> Iterator[SentenceBatch]:
    """Yield each line that begins in ``start`` … ``stop`` - 1 as a document; see ``between_blank_lines``."""
    long_line: _LongLine | None = None
    stop = own_first_line(stream, start, stop)
    for block in _only_lines_before(stop, read_blocks(stream, start, stop)):
        if block.extent is Extent.LINES:
            lines = _Lines(block)
            lines.count_odd(0, len(lines.texts), odd, name)
            sentences = [text for text in lines.texts if text]
            if sentences:
                yield SentenceBatch(sentences, np.arange(len(sentences)), lines.offsets[lines.hold_text])
            continue
        long_line = long_line or _LongLine(block.offset, name)
        begins = long_line.is_blank
        sentence = long_line.add(block, odd)
        if sentence:
            yield _batch([sentence], [0] if begins else [], [long_line.offset] if begins else [])
        if block.extent is Extent.LAST_PART:
            odd.note("long_lines", name, long_line.offset, not long_line.is_blank)
            long_line = None


def json_records(stream: BinaryIO, start: int, stop: int, odd: OddLines, name: Path, key: str) -> Iterator[SentenceBatch]:
    """Yield the text under ``key`` of each line of JSON that begins in ``start`` … ``stop`` - 1; see ``between_blank_lines``.

    Raises:
        BortError: if a line is not a JSON object with a text under ``key``; the message names file and line.
    """
    skipped: int | None = None
    stop = own_first_line(stream, start, stop)
    for block in _only_lines_before(stop, read_blocks(stream, start, stop, longest_line=LONGEST_RECORD)):
        if block.extent is not Extent.LINES:
            skipped = block.offset if skipped is None else skipped
            if block.extent is Extent.LAST_PART:
                odd.note("skipped_lines", name, skipped)
                skipped = None
            continue
        sentences: list[str] = []
        starts: list[int] = []
        offsets: list[int] = []
        size = 0
        for offset, line in _lines_with_text(block):
            try:
                text, is_odd = _text_of(line, key)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise BortError(f"{name}, line {line_number(stream, offset)}: {_complaint(error, key)}") from None
            odd.note("undecodable_lines", name, offset, is_odd)
            odd.note("lines_with_nul", name, offset, "\0" in text)
            begins = True
            for sentence in _sentences_of(text, odd, name, offset):
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

    def count_odd(self, first: int, last: int, odd: OddLines, name: Path) -> None:
        for number in self._undecodable:
            odd.note("undecodable_lines", name, int(self.offsets[number]), first <= number < last)
        if self._has_nul:
            for number in range(first, last):
                odd.note("lines_with_nul", name, int(self.offsets[number]), "\0" in self.texts[number])


class _LongLine:
    """A line that comes in parts.

    Args:
        offset: where it begins.
        name: of its file in messages.
    """

    def __init__(self, offset: int, name: Path) -> None:
        self.offset = offset
        self._name = name
        self.is_blank = True

    def add(self, block: Block, odd: OddLines) -> str:
        """The next part, without surrounding white space."""
        sentence = block.data.decode("utf-8", errors="replace").strip()
        odd.note("undecodable_lines", self._name, self.offset, not _is_utf8(block.data))
        odd.note("lines_with_nul", self._name, self.offset, "\0" in sentence)
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


def _lines_with_text(block: Block) -> Iterator[tuple[int, bytes]]:
    """Where each line begins that is not of white space alone, and its bytes, one line at a time."""
    start = 0
    while start < len(block.data):
        end = block.data.find(b"\n", start) + 1 or len(block.data)
        line = block.data[start:end]
        if not line.isspace() and line.decode("utf-8", errors="replace").strip():
            yield block.offset + start, line
        start = end


def _text_of(line: bytes, key: str) -> tuple[str, bool]:
    """Text of a line of JSON, and whether something in the line is no character.

    Raises:
        ValueError, KeyError, TypeError, RecursionError: if there is none.
    """
    is_odd = not _is_utf8(line)
    # Numbers may have more digits than Python turns into an integer, and none is wanted.
    text = json.loads(line.decode("utf-8", errors="replace").strip(), parse_int=float)[key]
    if not isinstance(text, str):
        raise TypeError
    if not text.isascii() and not _is_unicode(text):
        # JSON can spell half a character, which UTF-8 cannot.
        text, is_odd = re.sub("[\ud800-\udfff]", "\ufffd", text), True
    return text, is_odd


def _sentences_of(text: str, odd: OddLines, name: Path, offset: int) -> Iterator[str]:
    """Non-blank lines of the document of the line at ``offset``; lines that are too long in parts."""
    start = 0
    while start < len(text):
        end = text.find("\n", start)
        end = len(text) if end < 0 else end
        if end - start < LONGEST_LINE:
            sentence = text[start:end].strip()
            if sentence:
                yield sentence
        else:
            odd.note("long_lines", name, offset)
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
