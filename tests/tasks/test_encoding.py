"""Input ids and the equal share of a maximum length."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks.encoding import encode_examples, shares
from bort.tasks.task import Example
from bort.tokenizer import Tokenizer


class Letters:
    """A tokenizer with one id a letter, from 10."""

    vocab = SimpleNamespace(bos_id=0, eos_id=2)

    def encode_batch(self, texts):
        return [np.array([10 + ord(letter) - ord("a") for letter in text], np.int32) for text in texts]


def example(*texts):
    return Example(0, texts, None, 1)


def test_one_text_and_two():
    single, pair, empty = encode_examples([example("abc"), example("ab", "c"), example("", "")], Letters(), 8)
    assert single.tolist() == [0, 10, 11, 12, 2]
    assert pair.tolist() == [0, 10, 11, 2, 12, 2]
    assert empty.tolist() == [0, 2, 2]
    assert {ids.dtype for ids in (single, pair, empty)} == {np.dtype(np.int32)}


def test_truncation_keeps_the_beginning_and_the_first_text_has_the_odd_token():
    single, pair, long_first, long_second = encode_examples(
        [example("abcdefgh"), example("abcdefgh", "ijklmnop"), example("abcdefgh", "i"), example("a", "ijklmnop")], Letters(), 8
    )
    assert single.tolist() == [0, 10, 11, 12, 13, 14, 15, 2]
    assert pair.tolist() == [0, 10, 11, 12, 2, 18, 19, 2]
    assert long_first.tolist() == [0, 10, 11, 12, 13, 2, 18, 2]
    assert long_second.tolist() == [0, 10, 2, 18, 19, 20, 21, 2]


def test_a_maximum_length_without_room_is_an_error():
    with pytest.raises(BortError, match="maximum length of 4"):
        encode_examples([example("a", "b")], Letters(), 4)


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.integers(0, 60), st.integers(0, 60), st.integers(2, 50))
def test_shares_of_two_texts(first, second, room):
    kept = shares([first, second], room)
    assert sum(kept) == min(first + second, room)
    assert kept[0] <= first
    assert kept[1] <= second
    # Who gives something up keeps no less than the other, but for the odd token, which is the first text's.
    if kept[0] < first:
        assert kept[0] >= kept[1]
    if kept[1] < second:
        assert kept[1] >= kept[0] - 1
    if min(first, second) <= room // 2:
        shorter = 0 if first <= second else 1
        assert kept[shorter] == (first, second)[shorter]


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.text("abc", max_size=30), st.text("abc", max_size=30), st.integers(5, 40))
def test_ids_never_exceed_the_maximum_length(first, second, max_length):
    (ids,) = encode_examples([example(first, second)], Letters(), max_length)
    assert len(ids) == min(len(first) + len(second) + 3, max_length)
    assert ids[0] == 0
    assert ids[-1] == 2
    assert (ids == 2).sum() == 2


def test_ids_are_the_published_ones_for_every_golden_pair(shared):
    golden = json.loads((shared / "golden/published_task_inputs.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer.from_directory(shared / "data/vocab")
    expected = [item for case in golden.values() for item in case["examples"]]
    encoded = encode_examples([example(*item["fields"][:2]) for item in expected], tokenizer, 128)
    assert sum(len(ids) == 128 for ids in encoded) > 20
    assert [ids.tolist() for ids in encoded] == [item["input_ids"] for item in expected]
