"""Metrics over groups of rows: the answers of a question, the entities of a query, two sentences that differ in a pronoun, the questions of
a school level.

Notable: a row finds its group by its id, so the order of the rows does not matter, and nothing is ever NaN: where there is no group at all
the result is 0, as in bort/tasks/metrics.py. Every metric takes examples and their predictions, class numbers (N,), and returns a number
between 0 and 1.
"""

from __future__ import annotations

import re
import string
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from statistics import fmean

import numpy as np

from bort.tasks.task import Example

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_WITHOUT_PUNCTUATION = str.maketrans("", "", string.punctuation)


def question_exact_match(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of questions all of whose answers are labelled right (EM of MultiRC, as Wang et al. 2019 define it for SuperGLUE).

    A question is known by (passage, question), the first two keys of a row's id: questions of different passages share numbers.
    """
    right = predictions == np.array([example.label for example in examples])
    return _mean(all(right[row] for row in rows) for rows in _groups(examples, lambda example: (example.keys[0], example.keys[1])))


def token_f1(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Mean over queries of the F1 between the words of the chosen entity and those of a right answer, the best of the answers.

    The chosen entity is that of the query's row with prediction 1, the first if there are several. A query without a chosen entity or a
    right answer counts 0. Words are compared as :func:`normalised` leaves them (Zhang et al. 2018, after Rajpurkar et al. 2016).
    """
    return _mean(
        max((_shared_words(entity, answer) for answer in answers), default=0.0) for entity, answers in _chosen(examples, predictions)
    )


def answer_exact_match(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of queries whose chosen entity, as in ``token_f1``, is a right answer but for case, punctuation and articles."""
    return _mean(
        entity is not None and normalised(entity) in {normalised(answer) for answer in answers}
        for entity, answers in _chosen(examples, predictions)
    )


def gender_parity(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of pairs whose two predictions are equal (Rudinger et al. 2018, recast by Wang et al. 2019).

    The rows with ``idx`` 2k and 2k + 1 are a pair; a row whose partner is missing is left out.
    """
    pairs = _groups(examples, lambda example: _number(example) // 2)
    return _mean(predictions[rows[0]] == predictions[rows[1]] for rows in pairs if len(rows) == 2)


def accuracy_high(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of the questions for senior high schools that are answered right: articles whose id begins with "high"; 0 if there are none."""
    return _accuracy_of_level("high", examples, predictions)


def accuracy_middle(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of the questions for middle schools that are answered right: articles whose id begins with "middle"; 0 if there are none."""
    return _accuracy_of_level("middle", examples, predictions)


def normalised(text: str) -> str:
    """An answer as SQuAD's evaluation compares it: in lower case, without ASCII punctuation and articles, words one space apart."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def _shared_words(entity: str | None, answer: str) -> float:
    """F1 of two bags of words; 0 where they share none."""
    if entity is None:
        return 0.0
    chosen, right = normalised(entity).split(), normalised(answer).split()
    shared = (Counter(chosen) & Counter(right)).total()
    return 2 * shared / (len(chosen) + len(right)) if shared else 0.0


def _chosen(examples: Sequence[Example], predictions: np.ndarray) -> Iterable[tuple[str | None, tuple[str, ...]]]:
    """Yield the chosen entity of each query, None if there is none, and its right answers."""
    for rows in _groups(examples, lambda example: example.id):
        entity = next((examples[row].candidate for row in rows if predictions[row] == 1), None)
        yield entity, examples[rows[0]].answers


def _accuracy_of_level(level: str, examples: Sequence[Example], predictions: np.ndarray) -> float:
    return _mean(
        prediction == example.label
        for example, prediction in zip(examples, predictions, strict=True)
        if str(example.keys[0]).startswith(level)
    )


def _groups(examples: Sequence[Example], key: Callable[[Example], Hashable]) -> Iterable[list[int]]:
    """Numbers of the rows that share a key, one list per key, in the order of the keys' first rows."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        groups[key(example)].append(row)
    return groups.values()


def _number(example: Example) -> int:
    if not isinstance(example.id, int):
        raise ValueError(f"row {example.line}: id {example.id!r} is no number to pair rows by")
    return example.id


def _mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return fmean(numbers) if numbers else 0.0
