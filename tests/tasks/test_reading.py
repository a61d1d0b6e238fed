"""Files of the benchmarks, well formed and not."""

from __future__ import annotations

import csv
import json
import warnings

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks.reading import JsonLines, Table

PAIR = Table(("sentence1", "sentence2"), "label")
CELL = st.text(st.characters(blacklist_categories=("Cs",), blacklist_characters="\t\r\n\0"), max_size=20)


def rows(path, content: bytes, layout=PAIR, labelled=True):
    path.write_bytes(content)
    return list(layout.rows(path, labelled))


@settings(derandomize=True, deadline=None, max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(CELL, CELL, CELL), min_size=1, max_size=5))
def test_a_table_is_what_the_csv_module_reads_without_quoting(tmp_path, cells):
    path = tmp_path / "train.tsv"
    path.write_text("".join("\t".join(row) + "\n" for row in [("sentence1", "sentence2", "label"), *cells]), encoding="utf-8", newline="")
    with path.open(encoding="utf-8", newline="") as file:
        expected = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]
    assert [[*row.texts, row.label] for row in PAIR.rows(path, True)] == expected


def test_lines_ids_and_quotes(tmp_path):
    read = rows(tmp_path / "a.tsv", b'index\tsentence1\tsentence2\tlabel\n0\t"He said\tno" \t1\n1\t\xc2\x85x\xe2\x80\xa8\t\'\t0\n')
    assert [row.where for row in read] == [f"{tmp_path / 'a.tsv'}, line {line}" for line in (2, 3)]
    assert [(row.line, row.id, row.texts, row.label) for row in read] == [
        (2, 0, ('"He said', 'no" '), "1"),
        (3, 1, ("\x85x\u2028", "'"), "0"),
    ]


@pytest.mark.parametrize(
    "content", [b"\xef\xbb\xbflabel\tsentence1\tsentence2\r\n1\ta\tb\r\n\r\n", b"label\tsentence1\tsentence2\n1\ta\tb"]
)
def test_byte_order_mark_carriage_returns_blank_end_and_missing_line_end(tmp_path, content):
    (row,) = rows(tmp_path / "a.tsv", content)
    assert (row.line, row.texts, row.label) == (2, ("a", "b"), "1")


def test_columns_are_found_by_name_wherever_they_stand(tmp_path):
    (row,) = rows(tmp_path / "a.tsv", b"sentence2\tx\tlabel\tsentence1\tmore\nb\t-\t1\ta\textra\n")
    assert (row.texts, row.label) == (("a", "b"), "1")


def test_a_label_column_may_be_missing_only_where_no_label_is_needed(tmp_path):
    content = b"index\tsentence1\tsentence2\n0\ta\tb\n"
    (row,) = rows(tmp_path / "test.tsv", content, labelled=False)
    assert row.label is None
    with pytest.raises(BortError, match=r'test\.tsv, line 1: the header has no column "label"; it has index, sentence1, sentence2'):
        rows(tmp_path / "test.tsv", content)


def test_short_rows_are_errors_or_are_counted(tmp_path):
    content = b"sentence1\tsentence2\tlabel\na\tb\t1\na\tb\nc\td\t0\ne\nf\tg\t1\n"
    with pytest.raises(BortError, match=r"a\.tsv, line 3: 2 columns where at least 3 are needed"):
        rows(tmp_path / "a.tsv", content)
    with pytest.warns(UserWarning, match=r"left out 2 rows with fewer than 3 columns, the first at line 3") as caught:
        read = rows(tmp_path / "a.tsv", content, Table(("sentence1", "sentence2"), "label", skip_short=True))
    assert len(caught) == 1
    assert [(row.line, row.id, row.texts[0]) for row in read] == [(2, 0, "a"), (4, 1, "c"), (6, 2, "f")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"sentence1\tsentence2\tlabel\na\tb\t1\n\n\nc\td\t0\n", "line 3: a blank line between rows"),
        (b"sentence1\tsentence2\tlabel\na\t\xff\t1\n", "line 2: not UTF-8: invalid start byte at byte 2"),
        (b"sentence1\tsentence2\tlabel\na\tb\t1\nc\td\te\t1\n", "line 3: 4 columns where there are 3; a text can hold no tab"),
        (b"label\tsentence1\tsentence2\tsentence1\n1\ta\tb\tc\n", 'line 1: the header has the column "sentence1" 2 times'),
        (b"label\tsentence1\tsentence2\tlabel\n1\ta\tb\t0\n", 'line 1: the header has the column "label" 2 times'),
        (b"", "line 1: the header has no column"),
        (b"a\tb\t1\n", 'line 1: the header has no column "sentence1"; it has a, b, 1'),
    ],
)
def test_damaged_tables_name_the_line(tmp_path, content, message):
    with pytest.raises(BortError, match=message) as caught:
        rows(tmp_path / "a.tsv", content)
    assert "\n" not in str(caught.value)
    assert str(tmp_path / "a.tsv") in str(caught.value)


def test_a_folder_in_place_of_a_file_is_named(tmp_path):
    with pytest.raises(BortError, match="Is a directory"):
        list(PAIR.rows(tmp_path, True))


QUESTION = JsonLines(("passage", "question"))


def test_json_lines_take_their_own_ids_even_as_strings(tmp_path):
    lines = [{"question": "q", "passage": "p\t\n", "idx": 7, "label": False}, {"passage": "x", "question": "y", "idx": "12"}]
    content = "\r\n".join(json.dumps(line) for line in lines).encode() + b"\r\n\n"
    read = rows(tmp_path / "a.jsonl", content, QUESTION, labelled=False)
    assert [(row.line, row.id, row.texts, row.label) for row in read] == [(1, 7, ("p\t\n", "q"), False), (2, 12, ("x", "y"), None)]


def test_json_lines_compose_texts_of_their_fields_in_order(tmp_path):
    layout = JsonLines(("a", "b", "c"), lambda a, b, c: (f"{c} {a}", b))
    (row,) = rows(tmp_path / "a.jsonl", b'{"c": "3", "b": "2", "a": "1", "idx": 0, "label": 1}', layout)
    assert row.texts == ("3 1", "2")


def test_what_cannot_be_composed_is_named_with_its_line(tmp_path):
    def refuse(text):
        raise BortError(f"{text} is not to be had")

    with pytest.raises(BortError, match=r"a\.jsonl, line 1: tea is not to be had$"):
        rows(tmp_path / "a.jsonl", b'{"a": {"b": "tea"}, "idx": 0, "label": 1}', JsonLines(("a.b",), refuse))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"passage": "p"', "line 2: not JSON"),
        ("[" * 200_000, "line 2: not JSON"),
        ("[1]", "line 2: not a JSON object"),
        ('{"passage": "p", "question": "q", "idx": 1}', 'line 2: no field "label"'),
        ('{"passage": "p", "idx": 1, "label": true}', 'line 2: no text in the field "question"'),
        ('{"passage": "p", "question": 3, "idx": 1, "label": true}', 'line 2: no text in the field "question"'),
        ('{"passage": "p", "question": "q", "label": true}', 'line 2: the field "idx" holds no whole number'),
        ('{"passage": "p", "question": "q", "idx": true, "label": true}', 'line 2: the field "idx" holds no whole number'),
        ('{"passage": "p", "question": "q", "idx": "-x", "label": true}', 'line 2: the field "idx" holds no whole number'),
        ('{"passage": "p", "question": "\\ud800", "idx": 1, "label": true}', 'line 2: half of a surrogate pair in the field "question"'),
    ],
)
def test_damaged_json_names_the_line(tmp_path, line, message):
    good = '{"passage": "p", "question": "q", "idx": 0, "label": true}\n'
    with pytest.raises(BortError, match=message) as caught:
        rows(tmp_path / "a.jsonl", (good + line).encode(), QUESTION)
    assert "\n" not in str(caught.value)


def test_nothing_is_warned_about_in_a_whole_file(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        rows(tmp_path / "a.tsv", b"sentence1\tsentence2\tlabel\na\tb\t1\n", Table(("sentence1", "sentence2"), "label", skip_short=True))


def test_a_row_with_too_many_cells_is_never_left_out(tmp_path):
    """It would lose what stands behind the tab, and so it is an error even where short rows are left out."""
    layout = Table(("sentence",), "label", skip_short=True)
    with pytest.raises(BortError, match=r"a\.tsv, line 3: 3 columns where there are 2"):
        rows(tmp_path / "a.tsv", b"index\tsentence\n0\tfine\n0\tgood\tfilm\n", layout, labelled=False)
    with pytest.raises(BortError, match=r"a\.tsv, line 1: 5 columns where there are 4"):
        rows(tmp_path / "a.tsv", b"x\t1\t\tgood\tfilm\n", Table(("sentence",), "label", header=("source", "label", "mark", "sentence")))
