"""From logits to predictions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax

from bort.tasks.decisions import best_candidate, most_probable, only_output
from bort.tasks.task import Example


def candidates(*ids):
    return [Example(number, ("a", "b"), None, 1, candidate=str(row)) for row, number in enumerate(ids)]


def test_classes_and_scores():
    logits = np.array([[0.5, 2.0, 2.0], [3.0, -1.0, 0.0]], np.float32)
    assert most_probable([], logits).tolist() == [1, 0]
    assert only_output([], logits[:, :1]).tolist() == [0.5, 3.0]


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(-8, 8), st.integers(-8, 8)), max_size=20))
def test_every_query_has_one_answer_and_it_is_the_most_probable(rows):
    examples = candidates(*(number for number, _, _ in rows))
    logits = np.array([[no, yes] for _, no, yes in rows], np.float32).reshape(-1, 2)
    answers = best_candidate(examples, logits)
    probabilities = softmax(logits.astype(np.float64), axis=1)[:, 1]
    for query in {example.id for example in examples}:
        own = [row for row, example in enumerate(examples) if example.id == query]
        chosen = [row for row in own if answers[row] == 1]
        assert chosen == [max(own, key=lambda row: (round(probabilities[row], 12), -row))]
    assert set(answers.tolist()) <= {0, 1}


def test_the_first_of_equals_is_chosen_and_likely_ones_are_told_apart():
    tied = np.array([[0, 1], [1, 2], [5, 6]], np.float32)
    assert best_candidate(candidates(3, 3, 3), tied).tolist() == [1, 0, 0]
    # Both probabilities round to 1.
    assert best_candidate(candidates(3, 3), np.array([[0, 50], [0, 60]], np.float32)).tolist() == [0, 1]
    assert best_candidate(candidates(3, 3), np.array([[-3.0e38, 3.0e38], [-3.1e38, 3.1e38]], np.float32)).tolist() == [0, 1]


@pytest.mark.parametrize("bad", [np.nan, -np.inf])
def test_a_query_is_answered_even_by_a_model_that_has_diverged(bad):
    logits = np.array([[0, bad], [0, bad], [0, bad], [0, -3]], np.float32)
    assert best_candidate(candidates(1, 1, 2, 2), logits).tolist() == [1, 0, 0, 1]
    assert best_candidate([], np.zeros((0, 2))).tolist() == []
