"""Metrics of rows that are judged together, against hand computation, invariants, and the real pairs of pronouns."""

from __future__ import annotations

import json
import math
import re
import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.tasks.group_metrics import (
    accuracy_high,
    accuracy_middle,
    answer_exact_match,
    gender_parity,
    normalised,
    question_exact_match,
    token_f1,
)
from bort.tasks.metrics import METRICS, majority_score, score
from bort.tasks.registry import get_task
from bort.tasks.task import Example

GROUP_METRICS = ("f1a", "question_exact_match", "token_f1", "answer_exact_match", "gender_parity", "accuracy_high", "accuracy_middle")


def answers(*rows):
    """MultiRC's rows of (passage, question, answer, label)."""
    return [Example((passage, question, answer), ("p", "q a"), label, 1) for passage, question, answer, label in rows]


def queries(*rows):
    """ReCoRD's rows of (query, entity, right answers)."""
    return [Example(query, ("p", "q"), int(entity in right), 1, entity, right) for query, entity, right in rows]


MULTIRC = answers(
    (0, 0, 0, 1), (0, 0, 1, 0), (0, 0, 2, 1),
    (0, 1, 0, 1), (0, 1, 1, 0),
    (1, 0, 0, 0), (1, 0, 1, 0),
)  # fmt: skip


def test_multirc_by_hand():
    # Of the three questions only passage 0's second is all right; 3 right answers are marked, one of them is missed, one mark is wrong.
    predictions = np.array([1, 0, 0, 1, 0, 0, 1])
    assert question_exact_match(MULTIRC, predictions) == pytest.approx(1 / 3)
    assert METRICS["f1a"](MULTIRC, predictions) == pytest.approx(2 * 2 / (2 * 2 + 1 + 1))


def test_questions_of_different_passages_share_their_numbers_and_not_their_fate():
    rows = answers((0, 0, 0, 1), (1, 0, 0, 1))
    assert question_exact_match(rows, np.array([1, 0])) == 0.5


@pytest.mark.parametrize(("always", "f1a", "exact"), [(0, 0.0, 1 / 3), (1, 2 * 3 / (2 * 3 + 4), 0.0)])
def test_constant_answers_to_multirc(always, f1a, exact):
    predictions = np.full(len(MULTIRC), always)
    assert METRICS["f1a"](MULTIRC, predictions) == pytest.approx(f1a)
    assert question_exact_match(MULTIRC, predictions) == pytest.approx(exact)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("The Benazir  Bhutto", "benazir bhutto"),
        ("a an the", ""),
        ("U.S. Senate", "us senate"),
        ("Al-Qaeda", "alqaeda"),
        ("9 a.m.", "9 am"),
        ("Anna and Theo", "anna and theo"),
        ("'A'\u00a0B\nC", "b c"),
        ("Åland’s", "åland’s"),
    ],
)
def test_what_is_left_of_an_answer(text, left):
    assert normalised(text) == left


def test_record_by_hand():
    rows = queries(
        (7, "Bhutto", ("Benazir Bhutto", "Benazir")), (7, "Pakistan", ("Benazir Bhutto", "Benazir")),
        (9, "the U.S. Senate", ("US Senate",)), (9, "Senate", ("US Senate",)),
        (4, "Ohio", ("Texas",)), (4, "Texas", ("Texas",)),
    )  # fmt: skip
    # Bhutto against Benazir Bhutto: 2 * 1 / (1 + 2), better than against Benazir; then a match but for case and article; then a miss.
    predictions = np.array([1, 0, 1, 0, 1, 0])
    assert token_f1(rows, predictions) == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert answer_exact_match(rows, predictions) == pytest.approx(1 / 3)


def test_answers_of_which_nothing_is_left_are_equal_and_share_no_word():
    rows = queries((0, "The", ("a",)))
    assert answer_exact_match(rows, np.array([1])) == 1.0
    assert token_f1(rows, np.array([1])) == 0.0


def test_words_count_as_often_as_they_occur():
    rows = queries((0, "New York New York", ("New York",)))
    assert token_f1(rows, np.array([1])) == pytest.approx(2 * 2 / (4 + 2))


def test_a_query_without_a_choice_or_without_an_answer_counts_nothing_and_of_several_choices_the_first_counts():
    right = ("Texas",)
    assert token_f1(queries((0, "Ohio", right), (0, "Texas", right)), np.array([0, 0])) == 0.0
    assert answer_exact_match(queries((0, "The", ("a",))), np.array([0])) == 0.0
    assert token_f1(queries((0, "Ohio", ()), (1, "Texas", right)), np.array([1, 1])) == 0.5
    assert answer_exact_match(queries((0, "Texas", right), (0, "Ohio", right)), np.array([1, 1])) == 1.0
    assert answer_exact_match(queries((0, "Ohio", right), (0, "Texas", right)), np.array([1, 1])) == 0.0


def numbered(*numbers):
    return [Example(number, ("p", "h"), 0, 1) for number in numbers]


def test_gender_parity_by_hand():
    assert gender_parity(numbered(0, 1, 2, 3, 4, 5), np.array([0, 0, 1, 0, 1, 1])) == pytest.approx(2 / 3)


def test_a_row_without_its_partner_counts_nothing_and_moves_no_other_pair():
    assert gender_parity(numbered(0, 1, 2, 4, 5), np.array([1, 1, 1, 1, 0])) == 0.5
    assert gender_parity(numbered(0, 1, 2), np.array([1, 0, 0])) == 0.0
    assert gender_parity(numbered(3), np.array([1])) == 0.0


def test_the_official_pairs_differ_only_in_a_pronoun(shared):
    lines = (shared / "data/superglue/AX-g/AX-g.jsonl").read_text(encoding="utf-8").splitlines()
    rows = {row["idx"]: row for row in map(json.loads, lines)}
    assert sorted(rows) == list(range(356))
    words = {idx: re.sub(r"\b(he|she|him|her|his)\b", "*", f"{row['premise']} {row['hypothesis']}") for idx, row in rows.items()}
    assert all(words[idx] == words[idx + 1] and rows[idx]["label"] == rows[idx + 1]["label"] for idx in range(0, 356, 2))
    assert sum(words[idx] == words[idx + 1] for idx in range(1, 355, 2)) < 10


def race(*rows):
    """RACE's rows of (article, question, label)."""
    return [Example((article, question), ("a", "o"), label, 1) for article, question, label in rows]


def test_race_levels_by_hand():
    rows = race(("high107.txt", 0, 3), ("high107.txt", 1, 2), ("middle4.txt", 0, 1), ("high9.txt", 0, 0))
    predictions = np.array([3, 0, 1, 0])
    assert accuracy_high(rows, predictions) == pytest.approx(2 / 3)
    assert accuracy_middle(rows, predictions) == 1.0
    assert METRICS["accuracy"](rows, predictions) == 0.75
    assert accuracy_middle(rows[:2], predictions[:2]) == 0.0


def test_ids_of_another_kind_are_refused():
    with pytest.raises(IndexError):
        question_exact_match(numbered(0), np.array([0]))
    with pytest.raises(ValueError, match="no number"):
        gender_parity(race(("high1.txt", 0, 0)), np.array([0]))


ROWS = st.lists(
    st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 1), st.sampled_from([0.0, 1.0, math.nan])), min_size=1, max_size=12
)


def examples_for(name, rows):
    if name in ("token_f1", "answer_exact_match"):
        return queries(*((first, ("the", "A", "B")[second], ("A b", "The")[:label]) for first, second, label, _ in rows))
    if name == "gender_parity":
        return numbered(*range(len(rows)))
    if name.startswith("accuracy_"):
        return race(*((("high", "middle", "low")[first], second, label) for first, second, label, _ in rows))
    return answers(*((first, second, answer, label) for answer, (first, second, label, _) in enumerate(rows)))


@pytest.mark.parametrize("name", [name for name in GROUP_METRICS if name != "f1a"])
@settings(derandomize=True, deadline=None, max_examples=50)
@given(rows=ROWS, seed=st.integers(0, 99))
def test_a_share_of_groups_never_nan_whatever_the_order_of_the_groups(name, rows, seed):
    examples, predictions = examples_for(name, rows), np.array([prediction for *_, prediction in rows])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        value = METRICS[name](examples, predictions)
        assert 0.0 <= value <= 1.0
        # Of several entities marked in one query the first counts, so rows may move among queries but not within one.
        order = np.random.default_rng(seed).permutation(len(rows))
        if name in ("token_f1", "answer_exact_match"):
            rank = np.random.default_rng(seed).permutation(3)
            order = np.array(sorted(range(len(rows)), key=lambda row: rank[examples[row].id]))
        assert METRICS[name]([examples[row] for row in order], predictions[order]) == pytest.approx(value)


@pytest.mark.parametrize("name", GROUP_METRICS)
def test_right_answers_to_everything_score_one(name):
    examples = {
        "gender_parity": numbered(0, 1, 2, 3),
        "accuracy_high": race(("high1.txt", 0, 2)),
        "accuracy_middle": race(("middle1.txt", 0, 2)),
        "token_f1": queries((0, "Ohio", ("Texas",)), (0, "Texas", ("Texas",))),
        "answer_exact_match": queries((0, "Ohio", ("Texas",)), (0, "Texas", ("Texas",))),
    }.get(name, MULTIRC)
    assert METRICS[name](examples, np.array([example.label for example in examples])) == 1.0


@pytest.mark.parametrize("name", ["MultiRC", "ReCoRD", "RACE", "RACE-H", "RACE-M", "WSC", "COPA"])
def test_a_task_decides_and_is_scored_on_whole_rows(name, repository):
    """A model that is sure of the truth has 1 everywhere, one that is sure of the opposite loses, and the majority lies in range."""
    task = get_task(name, repository / "test_data")
    examples = task.examples("dev")
    truth = np.eye(task.num_classes)[[example.label for example in examples]]
    assert set(score(task, examples, task.decide(examples, truth)).values()) == {1.0}
    assert all(value < 1.0 for value in score(task, examples, task.decide(examples, -truth)).values())
    majority = majority_score(task, examples)
    assert tuple(majority) == task.metrics
    assert all(0.0 <= value < 1.0 for value in majority.values())
