"""Batches of sentences: what a document is in each form, whatever the ranges and blocks, and what odd text does."""

from __future__ import annotations

import functools
import io
import json
import tracemalloc
from itertools import pairwise
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bort import BortError
from bort.corpus import lines, sentences
from bort.corpus.sentences import LONGEST_RECORD, OddLines, between_blank_lines, json_records, one_a_line

DETERMINISTIC = settings(derandomize=True, deadline=None, max_examples=400)
FRAGMENTS = [
    b"a",
    b"bc d",
    b".",
    b" ",
    b"\n",
    b"\n",
    b"\n\n",
    b"\r\n",
    b"\x0b",
    b"\x85",
    "\u2028é€\x85\xa0".encode(),
    b"\xff",
    b"\x00",
    b"\t",
]
NAME = Path("x")
MARK = b"\xef\xbb\xbf"
texts = st.lists(st.sampled_from([*FRAGMENTS, b"\xef\xbb\xbf"]), max_size=50).map(b"".join)
cuts = st.lists(st.integers(0, 90), max_size=5)


def documents(batches):
    """Each document as its sentences, with the byte at which it begins; the first batch must begin one."""
    found = []
    for batch in batches:
        assert batch.sentences
        starts = batch.document_starts.tolist()
        for index, sentence in enumerate(batch.sentences):
            if index in starts:
                found.append(([], int(batch.document_offsets[starts.index(index)])))
            found[-1][0].append(sentence)
    return found


def read(reader, data, bounds, longest_line=1 << 20, block=8):
    """Documents and odd lines of consecutive ranges, with blocks of a few bytes."""
    odd = OddLines()
    found = []
    small = functools.partial(lines.read_blocks, longest_line=longest_line)
    with mock.patch.multiple(lines, _BLOCK=block, _FIRST_BLOCK_BEHIND=3), mock.patch.object(sentences, "read_blocks", small):
        for start, stop in pairwise(sorted({0, len(data), *(cut for cut in bounds if cut < len(data))})):
            found += documents(reader(io.BytesIO(data), start, stop, odd, NAME))
    return found, odd


def expected_lines(data):
    """Text and offset of each line, read the slow and simple way."""
    offset = 3 if data.startswith(b"\xef\xbb\xbf") else 0
    for line in data[offset:].split(b"\n"):
        yield line.decode("utf-8", errors="replace").strip(), offset, line
        offset += len(line) + 1


def expected_documents(data):
    found, is_new = [], True
    for text, offset, _ in expected_lines(data):
        if text and is_new:
            found.append(([], offset))
        if text:
            found[-1][0].append(text)
        is_new = not text
    return found


def is_utf8(line):
    return line.decode("utf-8", errors="ignore").encode() == line


@DETERMINISTIC
@example(MARK + b"hello\n\nworld\n", [1, 2, 3, 4])
@example(MARK + b"\n\nworld\n", [1, 3])
@example(MARK + b"\nworld\n", [2])
@given(texts, cuts)
def test_documents_between_blank_lines_are_those_of_a_simple_reader_whatever_the_ranges(data, bounds):
    found, odd = read(between_blank_lines, data, bounds)
    assert found == expected_documents(data)
    full = [(text, line) for text, _, line in expected_lines(data) if text]
    assert odd.undecodable_lines == sum(not is_utf8(line) for _, line in full)
    assert odd.lines_with_nul == sum("\0" in text for text, _ in full)


@DETERMINISTIC
@example(MARK + b"hello\nworld\n", [1])
@example(MARK + b"hello\nworld\n", [1, 2, 3, 4])
@given(texts, cuts)
def test_each_line_is_a_document_whatever_the_ranges(data, bounds):
    found, odd = read(one_a_line, data, bounds)
    assert found == [([text], offset) for text, offset, _ in expected_lines(data) if text]
    assert odd.undecodable_lines == sum(not is_utf8(line) for text, _, line in expected_lines(data) if text)


@DETERMINISTIC
@given(texts, cuts, st.sampled_from([between_blank_lines, one_a_line]), st.integers(8, 12))
def test_long_lines_are_cut_alike_whatever_the_ranges_and_lose_no_text(data, bounds, reader, longest_line):
    found, odd = read(reader, data, bounds, longest_line)
    assert (found, odd) == read(reader, data, [], longest_line, block=longest_line)
    whole, _ = read(reader, data, [])
    assert [offset for _, offset in found] == [offset for _, offset in whole]
    if is_utf8(data):
        for (cut, _), (uncut, _) in zip(found, whole, strict=True):
            assert "".join("".join(cut).split()) == "".join("".join(uncut).split())


@DETERMINISTIC
@example([b"abc def\n", b" " * 30, b"\n", b"last\n", b"z z\n"], [10, 20, 30], between_blank_lines, 8)
@given(
    st.lists(st.sampled_from([b"a b", b"abc def ghi\n", b"\n", b" " * 7, b" " * 15, b"\t" * 40]), max_size=12),
    st.lists(st.integers(0, 200), max_size=6),
    st.sampled_from([between_blank_lines, one_a_line]),
    st.integers(8, 12),
)
def test_long_lines_of_white_space_are_blank_whatever_the_ranges(fragments, bounds, reader, longest_line):
    data = b"".join(fragments)
    found, odd = read(reader, data, bounds, longest_line)
    assert (found, odd) == read(reader, data, [], longest_line, block=longest_line)
    assert [offset for _, offset in found] == [offset for _, offset in read(reader, data, [])[0]]


@DETERMINISTIC
@given(st.lists(st.text("ab \n\t\r\x00é\u2028", max_size=12), max_size=8), cuts, st.booleans())
def test_a_record_is_a_document_and_its_lines_are_sentences(records, bounds, is_ascii):
    data = b"".join(json.dumps({"id": 1, "body": text}, ensure_ascii=is_ascii).encode() + b"\n" for text in records)
    reader = functools.partial(json_records, key="body")
    found, odd = read(reader, data, bounds)
    expected = [[line.strip() for line in text.split("\n") if line.strip()] for text in records]
    assert [sentences for sentences, _ in found] == [document for document in expected if document]
    assert odd.lines_with_nul == sum("\0" in text for text in records)


def test_half_a_character_in_json_is_replaced_and_counted():
    data = json.dumps({"text": "a \ud800 b"}).encode()
    found, odd = read(functools.partial(json_records, key="text"), data, [])
    assert found == [(["a \ufffd b"], 0)]
    assert odd == OddLines(undecodable_lines=1)
    found, odd = read(functools.partial(json_records, key="text"), b'{"text": "a \\ud800 \xff"}', [])
    assert found == [(["a \ufffd \ufffd"], 0)]
    assert odd == OddLines(undecodable_lines=1)


def test_the_first_record_behind_a_byte_order_mark_belongs_to_the_first_range():
    data = MARK + b'{"text": "a"}\n{"text": "b"}\n'
    for cut in range(1, 6):
        assert read(functools.partial(json_records, key="text"), data, [cut])[0] == [(["a"], 3), (["b"], 17)]


def test_numbers_of_any_length_do_not_matter():
    data = b'{"id": ' + b"9" * 5000 + b', "text": "a"}'
    assert read(functools.partial(json_records, key="text"), data, [])[0] == [(["a"], 0)]


def test_a_record_takes_a_small_multiple_of_its_bytes():
    """One emoji makes four bytes of each letter, and half a character a copy of the text."""
    data = b'{"text": "' + "😀".encode() + b"x" * (LONGEST_RECORD - 40) + b' \\ud800"}\n'
    stream = io.BytesIO(data)
    tracemalloc.start()
    try:
        assert len(documents(json_records(stream, 0, len(data), OddLines(), NAME, "text"))) == 1
        assert tracemalloc.get_traced_memory()[1] < 15 * LONGEST_RECORD
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b'{"text": "a"', r"line 3: not JSON: Expecting ',' delimiter, column 13; mend the line"),
        (b"plain text", "line 3: not JSON"),
        (b'["text"]', "line 3: not an object with a text as 'text'"),
        (b'{"text": 5}', "line 3: not an object with a text as 'text'"),
        (b'{"text": null}', "line 3: not an object with a text as 'text'"),
        (b'{"body": "a"}', "line 3: it has no 'text'; give the key of the text with --text_key"),
        (b"[" * 100_000, "line 3: not JSON"),
        (b'{"text":\n"a"}', "line 3: not JSON"),
    ],
)
def test_a_line_that_is_no_record_is_named(line, complaint):
    data = b'{"text": "one"}\n\n' + line + b'\n{"text": "four"}\n'
    with pytest.raises(BortError, match=f"^corpus.jsonl, {complaint}[^\n]*$"):
        list(json_records(io.BytesIO(data), 0, len(data), OddLines(), Path("corpus.jsonl"), "text"))


def test_a_record_too_long_to_be_parsed_is_left_out_and_counted():
    data = b'{"text": "a"}\n{"text": "' + b"x" * LONGEST_RECORD + b'"}\n{"text": "b"}\n'
    odd = OddLines()
    found = documents(json_records(io.BytesIO(data), 0, len(data), odd, NAME, "text"))
    assert [document for document, _ in found] == [["a"], ["b"]]
    assert odd == OddLines(skipped_lines=1)


def test_long_lines_within_a_record_are_cut_at_white_space():
    long = "word " * 500_000
    data = json.dumps({"text": f"first\n{long}\nlast"}).encode()
    odd = OddLines()
    [(document, _)] = documents(json_records(io.BytesIO(data), 0, len(data), odd, NAME, "text"))
    assert (document[0], document[-1], len(document)) == ("first", "last", 5)
    assert " ".join(document[1:-1]) == long.strip()
    assert odd == OddLines(long_lines=1)


def test_odd_lines_are_told_in_one_line_each():
    assert OddLines().warnings() == []
    odd = OddLines(1, 2, 3)
    odd.note("skipped_lines", Path("a.txt"), 17)
    odd.note("skipped_lines", Path("a.txt"), 40, 2)
    odd.note("long_lines", Path("a.txt"), 40, 0)
    warnings = odd.warnings()
    assert [warning.split(": ")[1].split(";")[0] for warning in warnings] == ["1", "2", "3", "3"]
    assert [";" in warning for warning in warnings] == [False, False, False, True]
    assert warnings[3].endswith("; the first: a.txt, byte 17")
    assert not any("\n" in warning for warning in warnings)


def test_the_first_of_each_kind_is_named():
    data = b"fine\n\ncaf\xe9 \0\n\xff\n"
    for reader in (between_blank_lines, one_a_line):
        _, odd = read(reader, data, [])
        assert odd.first == {"undecodable_lines": "x, byte 6", "lines_with_nul": "x, byte 6"}
