"""Metrics of rows that are judged together: the answers of a question, the entities of a query, two sentences that differ in a pronoun, the
questions of a school level.

Notable: a row finds its group by its id, so the order of the rows does not matter, and nothing is ever NaN: where there is no group at all
the result is 0, as in bort/tasks/metrics.py. Every metric takes examples and their predictions, class numbers (N,), and gives a share of
groups (or, of a level, of rows) between 0 and 1.
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
    """Share of questions whose answers are all judged right (EM of MultiRC, as Wang et al. 2019 define it for SuperGLUE).

    Questions are told apart by (passage, question), the first two parts of a row's id: questions of different passages share numbers.
    """
    right = predictions == np.array([example.label for example in examples])
    return _mean(all(right[row] for row in rows) for rows in _groups(examples, lambda example: _parts(example)[:2]))


def token_f1(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """F1 of the words of the entity that is chosen against those of a right answer, the best over the answers, mean over queries.

    A query's entity is that of its row with prediction 1, the first if there are several. A query for which no entity is chosen, or which
    has no right answer, counts 0. Words are compared as :func:`normalised` leaves them (Zhang et al. 2018, after
    Rajpurkar et al. 2016).
    """
    return _mean(
        max((_shared_words(entity, answer) for answer in answers), default=0.0) for entity, answers in _chosen(examples, predictions)
    )


def answer_exact_match(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of queries whose entity is a right answer but for case, punctuation and articles; which entity counts is as in ``token_f1``."""
    return _mean(
        entity is not None and normalised(entity) in {normalised(answer) for answer in answers}
        for entity, answers in _chosen(examples, predictions)
    )


def gender_parity(examples: Sequence[Example], predictions: np.ndarray) -> float:
    """Share of pairs whose two predictions are equal (Rudinger et al. 2018, recast by Wang et al. 2019).

    The rows with ``idx`` 2k and 2k + 1 are a pair; a row whose partner is missing counts for nothing.
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
    """An answer as SQuAD's judges compare it: lower case, then without ASCII punctuation and articles, words one space apart."""
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_WITHOUT_PUNCTUATION)).split())


def _shared_words(entity: str | None, answer: str) -> float:
    """F1 of two bags of words; 0 where they share none."""
    if entity is None:
        return 0.0
    chosen, right = normalised(entity).split(), normalised(answer).split()
    shared = (Counter(chosen) & Counter(right)).total()
    return 2 * shared / (len(chosen) + len(right)) if shared else 0.0


def _chosen(examples: Sequence[Example], predictions: np.ndarray) -> Iterable[tuple[str | None, tuple[str, ...]]]:
    """Yield, query by query, the entity that is chosen, None if there is none, and the right answers."""
    for rows in _groups(examples, lambda example: example.id):
        entity = next((examples[row].candidate for row in rows if predictions[row] == 1), None)
        yield entity, examples[rows[0]].answers


def _accuracy_of_level(level: str, examples: Sequence[Example], predictions: np.ndarray) -> float:
    return _mean(
        prediction == example.label
        for example, prediction in zip(examples, predictions, strict=True)
        if str(_parts(example)[0]).startswith(level)
    )


def _groups(examples: Sequence[Example], key: Callable[[Example], Hashable]) -> Iterable[list[int]]:
    """Row numbers that share a key, group by group, in the order in which groups begin."""
    groups: defaultdict[Hashable, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        groups[key(example)].append(row)
    return groups.values()


def _parts(example: Example) -> tuple[int | str, ...]:
    if not isinstance(example.id, tuple):
        raise ValueError(f"row {example.line}: id {example.id!r} has no parts to group rows by")
    return example.id


def _number(example: Example) -> int:
    if not isinstance(example.id, int):
        raise ValueError(f"row {example.line}: id {example.id!r} is no number to pair rows by")
    return example.id


def _mean(values: Iterable[float]) -> float:
    numbers = [float(value) for value in values]
    return fmean(numbers) if numbers else 0.0
