"""Blocks of lines: ranges that share no line and lose none, and lines too long to be held."""

from __future__ import annotations

import io
from unittest import mock

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.corpus import lines
from bort.corpus.lines import LONGEST_LINE, Block, Extent, line_number, read_blocks

BLOCK = 8
texts = st.lists(st.sampled_from([b"a", b"b c", b"\n", b" ", b"\r\n", b"\xc3\xa9", b"\xff", b"\x00"]), max_size=60).map(b"".join)


def read(data, start, stop, longest_line=BLOCK):
    """Blocks with a block size of a few bytes, so that every boundary is met."""
    with mock.patch.multiple(lines, _BLOCK=BLOCK, _FIRST_BLOCK_BEHIND=3):
        return list(read_blocks(io.BytesIO(data), start, stop, longest_line))


@settings(derandomize=True, deadline=None, max_examples=500)
@given(texts, st.integers(0, 60), st.integers(0, 80), st.integers(BLOCK, 30))
def test_blocks_are_the_lines_that_start_in_the_range_and_all_behind_them(data, start, stop, longest_line):
    starts = [0, *(index + 1 for index, byte in enumerate(data) if byte == ord("\n"))]
    first = next((line for line in starts if line >= start), len(data))
    first = first if first < stop else len(data)
    blocks = read(data, start, stop, longest_line)
    assert b"".join(block.data for block in blocks) == data[first:]
    assert all(block.data == data[block.offset : block.end] for block in blocks)


@settings(derandomize=True, deadline=None, max_examples=500)
@given(texts, st.integers(BLOCK, 30))
def test_lines_come_whole_unless_they_are_too_long(data, longest_line):
    blocks = read(data, 0, len(data), longest_line)
    for line in io.BytesIO(data):
        assert len(line) > longest_line or any(block.extent is Extent.LINES and line in block.data for block in blocks)
    for number, block in enumerate(blocks):
        if block.extent is Extent.PART:
            assert b"\n" not in block.data
            assert len(block.data) <= longest_line
            assert blocks[number + 1].extent is not Extent.LINES
        elif block.extent is Extent.LAST_PART:
            assert b"\n" not in block.data[:-1]
        else:
            assert max(map(len, block.data.split(b"\n"))) <= longest_line


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text("ab é€\n", max_size=80), st.integers(0, 80), st.integers(BLOCK, 20))
def test_parts_depend_on_the_line_alone(text, start, longest_line):
    data = text.encode()
    parts = [block for block in read(data, 0, len(data), longest_line) if block.extent is not Extent.LINES]
    first = data.find(b"\n", start - 1) + 1 if start else 0
    again = [block for block in read(data, start, len(data), longest_line) if block.extent is not Extent.LINES]
    assert again == [part for part in parts if start == 0 or (first and part.offset >= first)]
    for part in parts:
        part.data.decode("utf-8")
        assert part.extent is Extent.LAST_PART or part.data[-1:] == b" " or b" " not in part.data


def test_a_line_of_ten_megabytes_comes_in_parts_cut_at_white_space():
    data = b"before\n" + b"0123456 89 " * (10_000_000 // 11) + b"\nbehind\n"
    blocks = list(read_blocks(io.BytesIO(data), 0, len(data)))
    parts = [block for block in blocks if block.extent is not Extent.LINES]
    assert len(parts) == 10
    assert all(part.data.endswith(b" ") and len(part.data) <= LONGEST_LINE for part in parts[:-1])
    assert b"".join(block.data for block in blocks) == data


def test_a_byte_order_mark_at_the_very_beginning_is_left_out():
    assert read(b"\xef\xbb\xbfa\n", 0, 5) == [Block(3, b"a\n", Extent.LINES)]
    assert read(b"a\n\xef\xbb\xbfb\n", 1, 5) == [Block(2, b"\xef\xbb\xbfb\n", Extent.LINES)]
    assert read(b"", 0, 0) == []


def test_a_range_within_a_line_reads_no_further_than_its_end():
    """All ranges of a line without an end would otherwise read all of it."""
    stream = io.BytesIO(b"a" * 50_000_000)
    assert list(read_blocks(stream, 1000, 2000)) == []
    assert stream.tell() < 100_000


@pytest.mark.parametrize("offset", range(7))
def test_line_numbers_count_from_one(offset):
    data = b"a\nbc\n\nd"
    assert line_number(io.BytesIO(data), offset) == 1 + data[:offset].count(b"\n")
