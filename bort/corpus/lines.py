"""Byte ranges of text files as blocks of whole lines, in bounded memory.

Notable: a worker is given a range of bytes, not of lines. It begins at the first line that starts in its range and may read on behind its
end, so neighbouring ranges share no line and lose none, and no index of a file is ever made. Only ``\\n`` ends a line. A line that is too
long for memory comes in parts, whose ends depend on the line alone and not on where a range or a block begins.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import BinaryIO

LONGEST_LINE = 1 << 20
"""Bytes of a line, its end included, that are taken as one sentence; a longer one is cut at white space."""
_BLOCK = 1 << 20
# Behind a range's end there is often only the rest of a paragraph to read.
_FIRST_BLOCK_BEHIND = 1 << 15


class Extent(Enum):
    """What a block holds: whole lines, or a part of one line that is too long to be held."""

    LINES = 0
    PART = 1
    LAST_PART = 2


@dataclass(frozen=True)
class Block:
    """Consecutive bytes of a file.

    Attributes:
        offset: where they stand in the file.
        data: at least one byte.
        extent: what they are.
    """

    offset: int
    data: bytes
    extent: Extent

    @property
    def end(self) -> int:
        """Offset of the byte behind the block."""
        return self.offset + len(self.data)


def read_blocks(stream: BinaryIO, start: int, stop: int, longest_line: int = LONGEST_LINE) -> Iterator[Block]:
    """Yield the lines that start at ``start`` or later, up to the end of the file, or nothing if none starts before ``stop``.

    A byte order mark at the very beginning of the file is left out. No block of lines reaches over ``stop`` by more than one line and a few
    dozen kilobytes, so that a caller who wants no more than the end of a paragraph there wastes little.

    Args:
        stream: can seek.
        start: offset of a byte, anywhere in a line.
        stop: offset up to which the caller certainly reads.
        longest_line: bytes above which a line comes in parts; at least ``LONGEST_LINE``.
    """
    offset = position = _first_line_start(stream, start, stop)
    if offset >= stop:
        return
    kept = b""
    behind = _FIRST_BLOCK_BEHIND
    in_parts = False
    while True:
        if position < stop:
            size = min(_BLOCK, stop - position)
        else:
            size, behind = behind, min(2 * behind, _BLOCK)
        read = stream.read(size)
        if not read:
            break
        position += len(read)
        # What is kept holds no line end. A block is no longer than a line may be, so only the first line here can be too long.
        line_end = len(kept) + read.find(b"\n") + 1 if b"\n" in read else 0
        data = kept + read
        while (line_end or len(data)) > longest_line:
            cut = _cut(data, longest_line)
            yield Block(offset, data[:cut], Extent.PART)
            data, offset, in_parts = data[cut:], offset + cut, True
            line_end = max(line_end - cut, 0)
        if in_parts and line_end:
            yield Block(offset, data[:line_end], Extent.LAST_PART)
            data, offset, in_parts = data[line_end:], offset + line_end, False
        lines_end = 0 if in_parts else data.rfind(b"\n") + 1
        if lines_end:
            yield Block(offset, data[:lines_end], Extent.LINES)
            data, offset = data[lines_end:], offset + lines_end
        kept = data
    if kept:
        yield Block(offset, kept, Extent.LAST_PART if in_parts else Extent.LINES)


def own_first_line(stream: BinaryIO, start: int, stop: int) -> int:
    """``stop``, moved behind a byte order mark that it cuts.

    The mark belongs to the first line, whose text begins behind it; without this, a range that ends within the mark would not hold the
    line, nor would the next one.
    """
    return max(stop, _text_start(stream) + 1) if start == 0 < stop else stop


def line_number(stream: BinaryIO, offset: int) -> int:
    """Number, from 1, of the line in which the byte at ``offset`` stands; reads all that is before it."""
    stream.seek(0)
    number, left = 1, offset
    while left > 0 and (read := stream.read(min(_BLOCK, left))):
        number += read.count(b"\n")
        left -= len(read)
    return number


def _text_start(stream: BinaryIO) -> int:
    stream.seek(0)
    return len(codecs.BOM_UTF8) if stream.read(len(codecs.BOM_UTF8)) == codecs.BOM_UTF8 else 0


def _first_line_start(stream: BinaryIO, start: int, stop: int) -> int:
    """Where the first line from ``start`` on begins; any place from ``stop`` on if none begins before."""
    if start == 0:
        offset = _text_start(stream)
    else:
        # A line starts at start itself if the byte before it ends one.
        offset = stream.seek(start - 1)
        # A line may be as long as all ranges together: each looks for its end no further than its own.
        while offset < stop and (read := stream.read(_FIRST_BLOCK_BEHIND)):
            line_end = read.find(b"\n") + 1
            offset += line_end or len(read)
            if line_end:
                break
    stream.seek(offset)
    return offset


def _cut(data: bytes, most: int) -> int:
    """Where to cut a line of more than ``most`` bytes: behind its last white space up to there, or else between two characters."""
    cut = 1 + max(data.rfind(space, 0, most) for space in (b" ", b"\t", b"\r", b"\v", b"\f"))
    if cut == 0:
        continuation = 0b10
        cut = next((cut for cut in range(most, most - 4, -1) if data[cut] >> 6 != continuation), most)
    return cut
