"""Input ids and the equal share of a maximum length."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.tasks import get_task
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


def one_by_one(lengths, room):
    """What is left when the longer text loses a token at a time, the second where they are equal."""
    kept = list(lengths)
    while sum(kept) > room:
        kept[0 if kept[0] > kept[-1] else -1] -= 1
    return tuple(kept)


def test_shares_are_what_is_left_when_the_longer_text_loses_one_token_at_a_time():
    for room in range(16):
        for first in range(20):
            assert shares([first], room) == one_by_one([first], room)
            for second in range(20):
                assert shares([first, second], room) == one_by_one([first, second], room), (first, second, room)


class Spaced(Letters):
    """Letters, and the space between an article and a question."""

    def encode_batch(self, texts):
        return [np.array([5 if letter == " " else 10 + ord(letter) - ord("a") for letter in text], np.int32) for text in texts]

    @staticmethod
    def decode(ids):
        return "".join({0: "<", 2: "|", 5: " "}.get(number, chr(number - 10 + ord("a"))) for number in ids.tolist())


def question(article, text, options):
    return Example(("high1.txt", 0), (article + " " + text, options), None, 1, question_start=len(article))


@settings(derandomize=True, deadline=None, max_examples=300)
@given(st.text("abc", max_size=30), st.text("def", max_size=12), st.text("ghi", max_size=12), st.integers(5, 50))
def test_the_article_is_cut_before_the_question_and_the_options(article, text, options, max_length):
    row = question(article, text, options)
    (plain,), (kept,) = (encode_examples([row], Spaced(), max_length, keep_question=keep) for keep in (False, True))
    whole = len(article) + len(text) + 1 + len(options)
    assert len(kept) == len(plain) == min(whole + 3, max_length)
    letters = Spaced.decode(kept)
    first, second = letters[1:-1].split("|")
    if whole <= max_length - 3:
        assert kept.tolist() == plain.tolist()
    if len(text) + 1 + len(options) <= max_length - 3:
        assert (first, second) == (article[: max(0, max_length - 4 - len(text) - len(options))] + " " + text, options)
    else:
        # Nothing of the article is left, and question and options share the room as any two texts do.
        of_question, of_options = shares([len(text) + 1, len(options)], max_length - 3)
        assert (first, second) == ((" " + text)[:of_question], options[:of_options])


def test_rows_without_a_question_are_cut_as_ever():
    rows = [example("abcdefgh", "ijklmnop"), example("abcdefghi")]
    plain, kept = (encode_examples(rows, Letters(), 8, keep_question=keep) for keep in (False, True))
    assert [ids.tolist() for ids in plain] == [ids.tolist() for ids in kept]
    assert encode_examples([], Letters(), 8, keep_question=True) == []


def test_a_text_that_rows_share_is_encoded_once():
    class Counting(Letters):
        seen = 0

        def encode_batch(self, texts):
            self.seen += len(texts)
            return super().encode_batch(texts)

    tokenizer = Counting()
    ids = encode_examples([example("abc", "d"), example("abc", "e"), example("d", "abc")], tokenizer, 9)
    assert tokenizer.seen == 3
    assert [row.tolist() for row in ids] == [[0, 10, 11, 12, 2, 13, 2], [0, 10, 11, 12, 2, 14, 2], [0, 13, 2, 10, 11, 12, 2]]


@pytest.mark.parametrize("max_length", [48, 128, 512])
def test_questions_of_real_articles_stay_whole(max_length, shared):
    if not (shared / "data/race/dev").is_dir():
        pytest.skip(f"{shared / 'data/race'} is not here")
    tokenizer = Tokenizer.from_directory(shared / "data/vocab")
    examples = get_task("RACE", shared / "data").examples("dev")
    plain, kept = (encode_examples(examples, tokenizer, max_length, keep_question=keep) for keep in (False, True))
    fitting = cut = 0
    for row, before, after in zip(examples, plain, kept, strict=True):
        options = tokenizer.encode(row.texts[1])
        asked = tokenizer.encode(row.texts[0][row.question_start :])
        if len(before) < max_length:
            assert after.tolist() == before.tolist()
            fitting += 1
        elif len(asked) + len(options) + 3 <= max_length:
            # Whole ids of an article may end otherwise than its part of the whole text, so a row may come out one shorter.
            assert after.tolist()[-len(asked) - len(options) - 2 :] == [*asked, 2, *options, 2]
            assert max_length - 1 <= len(after) <= max_length
            cut += 1
        else:
            assert len(after) == max_length
    assert cut > 20 or fitting + cut == len(examples)


ARTICLES = ["One day.", "One day. ", "One day.\n", "One day \n\n", "", "He said:", "5 + 4 ="]
QUESTIONS = ["What now?", "_ is right.", "'s it", "1995", "", "é"]


@pytest.mark.parametrize(
    ("article", "text"),
    [(article, text) for article in ARTICLES for text in QUESTIONS if text or not article.endswith((" ", "\n"))],
)
def test_a_question_cut_off_its_article_has_the_ids_it_has_behind_it(article, text, tokenizer):
    """Byte-level BPE joins no tokens over the space before a question, unless the question is empty and the article ends in white space."""
    row = question(article, text, "a")
    apart = [*tokenizer.encode(article), *tokenizer.encode(row.texts[0][row.question_start :])]
    assert apart == tokenizer.encode(row.texts[0])
