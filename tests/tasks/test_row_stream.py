"""Streamed rows: what arrives is handed on at once, whole and in order, whatever the pieces; and every bad row is named."""

from __future__ import annotations

import json
import os
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks import get_task
from bort.tasks.row_stream import read_rows, row_format
from bort.training.prediction import json_line, table_line


def read(content: bytes, task="RTE", form="auto", name="rows", pieces=()):
    """Groups of rows that a pipe gives into which ``content`` is written in pieces that end at the given places."""
    reader, writer = os.pipe()

    def feed():
        ends = [*sorted(pieces), len(content)]
        for start, end in zip([0, *ends], ends, strict=False):
            os.write(writer, content[start:end])
        os.close(writer)

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        return list(read_rows(reader, name, get_task(task), form))
    finally:
        thread.join()
        os.close(reader)


def texts(groups):
    return [row.example.texts for _, rows, _ in groups for row in rows]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(*[st.text(st.characters(exclude_characters="\n\r\t", exclude_categories=["Cs"]), max_size=6)] * 2), max_size=8),
    st.lists(st.integers(0, 60), max_size=4),
    st.booleans(),
)
def test_rows_do_not_depend_on_the_pieces_in_which_they_arrive(rows, pieces, ends_with_line_feed):
    content = "\n".join("\t".join(row) for row in rows).encode()
    content += b"\n" if rows and ends_with_line_feed else b""
    groups = read(content, form="tsv", pieces=[min(piece, len(content)) for piece in pieces])
    # A byte-order mark belongs to the file and not to its first text.
    expected = [(rows[0][0].removeprefix("\ufeff"), rows[0][1]), *rows[1:]] if rows else []
    assert texts(groups) == expected
    assert [row.id for _, group, _ in groups for row in group] == list(range(len(rows)))
    assert sum(size for *_, size in groups) == len(content)


def test_a_row_comes_out_before_the_next_one_is_written():
    reader, writer = os.pipe()
    rows = read_rows(reader, "pipe", get_task("SST-2"), "tsv")
    for sentence in ("first", "second"):
        os.write(writer, f"{sentence}\n".encode())
        assert texts([next(rows)]) == [(sentence,)]
    os.close(writer)
    assert list(rows) == []
    os.close(reader)


def test_line_ends_of_windows_and_a_byte_order_mark_are_no_text():
    assert texts(read(b"\xef\xbb\xbfone\ttwo\r\nthree\tfour\r\n")) == [("one", "two"), ("three", "four")]


def test_json_rows_have_the_fields_of_the_task_or_general_ones_and_keep_their_ids():
    rows = [
        {"premise": "a", "hypothesis": "b", "idx": 7},
        {"text1": "c", "text2": "d", "id": "x-1"},
        {"premise": "e", "hypothesis": "f", "index": [1, 2], "label": "entailment"},
        {"premise": "g", "hypothesis": "h"},
    ]
    groups = read("\n".join(map(json.dumps, rows)).encode(), task="CB")
    assert texts(groups) == [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    assert [row.id for _, group, _ in groups for row in group] == [7, "x-1", [1, 2], 3]


def test_json_rows_are_composed_as_the_files_of_the_task_are():
    premise = "One. Two. Three. Four. Five"
    (row,) = texts(read(json.dumps({"premise": premise, "hypothesis": "h"}).encode(), task="CB"))
    assert row == ("Two  Three  Four  Five", "h")
    assert texts(read(json.dumps({"text1": premise, "text2": "h"}).encode(), task="CB")) == [(premise, "h")]


def test_fields_within_fields_are_found():
    row = {"text": "Ann told Eve that she won.", "target": {"span1_text": "Ann", "span2_text": "she"}}
    assert texts(read(json.dumps(row).encode(), task="WSC")) == [("Ann told Eve that she won.", "she means Ann")]


def test_a_table_task_takes_json_with_the_names_of_its_columns():
    assert texts(read(b'{"sentence": "a"}\n{"text": "b"}', task="SST-2")) == [("a",), ("b",)]


@pytest.mark.parametrize(
    ("name", "first", "form"),
    [
        ("a.jsonl", b"", "jsonl"),
        ("a.TSV", b"{", "tsv"),
        ("-", b'{"text": 1}', "jsonl"),
        ("-", b"\xef\xbb\xbf {", "jsonl"),
        ("a.csv", b"x\ty", "tsv"),
        ("a.txt", b'{"text": 1}', "jsonl"),
        ("a.txt", b"good film", "tsv"),
        ("-", b"", "tsv"),
    ],
)
def test_the_format_is_told_by_the_ending_or_the_first_row(name, first, form):
    assert row_format(name, first) == form


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\tb\na\n", "rows, line 2: 1 tab-separated texts, the task has 2"),
        (b"a\tb\tc\n", "rows, line 1: 3 tab-separated texts, the task has 2"),
        (b"a\tb\nc\t\xff\n", "rows, line 2: not UTF-8 at byte 2"),
        (b'{"text1": "a", "text2": "b"}\n{"text1": "a"}\n', 'rows, line 2: no text in the field "text2"'),
        (b'{"text1": "a", "text2": 5}', 'rows, line 1: no text in the field "text2"'),
        (b'{"premise": "a", "hypothesis": "b"}', "rows, line 1: no texts; give RTE rows with text1 and text2"),
        (b'{"text1": "a", "text2": "b"}\n[1]', "rows, line 2: not a JSON object"),
        (b"{nonsense", "rows, line 1: not JSON"),
        (b"a\tb\n\r\nc\td\n", "rows, line 2: 1 tab-separated texts, the task has 2"),
        (b'{"text1": "a", "text2": "b"}\n\n{"text1": "a", "text2": "b"}\n', "rows, line 2: not JSON"),
        (b'{"text1": "a", "text2": "b", "idx": NaN}\n', "rows, line 1: not JSON: NaN is no number"),
        (b'{"a":' + b"[" * 100_000, "rows, line 1: not JSON"),
    ],
)
def test_a_bad_row_is_named(content, message):
    with pytest.raises(BortError, match="^" + message.replace("(", r"\(")):
        read(content)


def test_a_row_without_end_is_refused_before_memory_is_full():
    reader, writer = os.pipe()

    def feed():
        with open(writer, "wb") as out:
            try:
                for _ in range(100):
                    out.write(b"x" * 2**20)
            except BrokenPipeError:
                pass

    thread = threading.Thread(target=feed)
    thread.start()
    with pytest.raises(BortError, match="rows, line 1: longer than 16 MiB"):
        list(read_rows(reader, "rows", get_task("SST-2"), "tsv"))
    os.close(reader)
    thread.join()


@pytest.mark.parametrize("pieces", [(), range(40)])
def test_blank_lines_at_the_end_are_no_rows_and_between_rows_they_are_texts(pieces):
    groups = read(b"\n\r\none\n\n\ntwo\n\r\n\n", task="SST-2", form="tsv", pieces=pieces)
    assert texts(groups) == [("",), ("",), ("one",), ("",), ("",), ("two",)]
    assert [row.id for _, group, _ in groups for row in group] == list(range(6))
    assert texts(read(b"a\tb\n\n\r\n")) == [("a", "b")]
    assert texts(read(b'{"text1": "a", "text2": "b"}\n\n')) == [("a", "b")]


@pytest.mark.parametrize("content", [b"\xef\xbb\xbf", b"\xef\xbb\xbf\r\n", b"\n\n\n"])
def test_what_holds_no_row_gives_none(content):
    assert read(content, task="SST-2") == []


def test_the_form_is_told_by_the_first_row_behind_blank_lines():
    (group,) = read(b'\n\n{"text": "a"}\n', task="SST-2", form="tsv")
    assert len(group[1]) == 3
    with pytest.raises(BortError, match="rows, line 1: not JSON"):
        read(b'\n\n{"text": "a"}\n', task="SST-2")


def test_very_many_blank_lines_come_in_groups():
    groups = read(b"\n" * (2**18 + 5) + b"end\n", task="SST-2", form="tsv")
    assert [len(rows) for _, rows, _ in groups] == [2**18, 6]
    assert sum(size for *_, size in groups) == 2**18 + 9


@pytest.mark.parametrize("name", ["\ud800", "é", "plain", [1, "\udfff"], {"a": None}, 7])
def test_whatever_a_row_is_called_can_be_written(name):
    task, outputs = get_task("SST-2"), np.array([0.25, 0.75])
    ((_, (row,), _),) = read(json.dumps({"text": "a", "idx": name}).encode(), task="SST-2")
    assert json.loads(json_line(task, row, outputs, False).encode()) == {"id": name, "label": "1"}
    written, label = table_line(task, row, outputs, False).encode().decode().rstrip("\n").split("\t")
    assert label == "1"
    assert written == (name if name in ("é", "plain") else json.dumps(name))


def test_the_rows_before_a_bad_one_come_out():
    reader, writer = os.pipe()
    os.write(writer, b"a\tb\nc\td\nbad\ne\tf\n")
    os.close(writer)
    rows = read_rows(reader, "rows", get_task("RTE"))
    assert texts([next(rows)]) == [("a", "b"), ("c", "d")]
    with pytest.raises(BortError, match="rows, line 3: 1 tab-separated texts"):
        next(rows)
    os.close(reader)
