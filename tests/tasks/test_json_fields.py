"""Fields of the right kind, or an error that says where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks.json_fields import JsonObject


def item(**values):
    return JsonObject(values, "a.jsonl, line 3")


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.integers(0, 2**63 - 1))
def test_numbers_are_read_from_digits_as_from_numbers(number):
    assert item(idx=number).number("idx") == number
    if number < 10**18:
        assert item(idx=str(number)).number("idx") == number


@pytest.mark.parametrize("value", [None, True, -1, "-1", "", " 1", "1.0", 1.0, "٣", 2**63, "9" * 19, "9" * 5000, [1], {}])
def test_other_values_are_no_numbers(value):
    with pytest.raises(BortError, match=r'^a\.jsonl, line 3: the field "idx" holds no whole number$'):
        item(idx=value).number("idx")


def test_nested_texts_lists_and_objects():
    row = item(a={"b": {"c": "text"}}, d=["x", "y"], e=[{"f": "1"}, {"f": "2"}])
    assert row.text("a.b.c") == "text"
    assert row.texts("d") == ["x", "y"]
    assert [child.text("f") for child in row.children("e", "part")] == ["1", "2"]
    assert [child.where for child in row.children("e", "part")] == ["a.jsonl, line 3, part 1", "a.jsonl, line 3, part 2"]
    assert row.child("a").where == "a.jsonl, line 3, a"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda row: row.require("x"), 'no field "x"'),
        (lambda row: row.text("x"), 'no text in the field "x"'),
        (lambda row: row.text("a.x"), 'no text in the field "a.x"'),
        (lambda row: row.text("d.x"), 'no text in the field "d.x"'),
        (lambda row: row.text("s"), 'half of a surrogate pair in the field "s", character 1'),
        (lambda row: row.texts("a"), 'no list in the field "a"'),
        (lambda row: row.texts("d"), 'no text in the field "d"'),
        (lambda row: row.items("x"), 'no list in the field "x"'),
        (lambda row: row.children("d", "part"), ", part 1: not a JSON object"),
        (lambda row: row.child("d"), ", d: not a JSON object"),
    ],
)
def test_what_is_wrong_is_named(call, message):
    row = JsonObject.parse(json.dumps({"a": {"b": 1}, "d": [3], "s": "x\udc80"}), "a.jsonl, line 3")
    with pytest.raises(BortError) as caught:
        call(row)
    assert str(caught.value).startswith("a.jsonl, line 3")
    assert str(caught.value).endswith(message)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "line 3: not JSON: "),
        ("[" * 99_999, "line 3: not JSON: "),
        ("[]", "line 3: not a JSON object"),
        ('{"idx": NaN}', "line 3: not JSON: NaN is no number"),
        ('{"idx": -Infinity}', "line 3: not JSON: -Infinity is no number"),
        ('{"idx": 1e999}', "line 3: not JSON: 1e999 is too large a number"),
    ],
)
def test_only_objects_are_parsed(text, message):
    with pytest.raises(BortError, match=message):
        JsonObject.parse(text, "a.jsonl, line 3")
