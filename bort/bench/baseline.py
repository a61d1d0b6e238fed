"""TF-IDF + logistic regression on each task: what words alone are worth, and so the score that a fine-tuned model has to beat.

A text becomes the TF-IDF of its words and pairs of neighbouring words (lower case, punctuation marks are words), as a row of length 1. One
text is just that. Of two texts u and v, which share a vocabulary, the row is u, v, |u − v|, u∘v (the combination of Conneau et al. 2017)
and u·v: without the last three a linear model could not tell whether two texts have anything in common, which is most of what paraphrase
and similarity ask. The model is logistic regression with C = 10 (rows of length 1 are short for the default penalty), ridge regression with
α = 1 where labels are scores: one choice for all tasks, made after a look at development scores with a few others, so these numbers are
if anything too good. Word counts ignore order, so RACE, whose four options are one text, is at chance, and WNLI, whose dev rows repeat
training texts with the opposite label, below it.

Notable: the model is fitted to the rows that fine-tuning trains on and judged on the same sets by the same metrics, through the same
``Task.decide``, so its numbers stand beside a model's; the same rows give the same numbers on every run.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge
from tqdm import tqdm

from bort.bench.report import machine_line, print_table
from bort.errors import BortError
from bort.machine import describe_machine
from bort.tasks.metrics import majority_score, score, task_score
from bort.tasks.task import Example, Task

PACKAGES = ("numpy", "scipy", "scikit-learn")
PENALTY = {"C": 10.0, "alpha": 1.0}
# ReCoRD asks of each query some thirty rows, each with the whole passage.
_ROWS_AT_ONCE = 10_000


class WordFeatures:
    """TF-IDF of the words of one or two texts per row, as the module's docstring says.

    Args:
        examples: the rows whose words are known later and whose texts weigh them; a text that many rows share, such as a passage with
            many questions, counts once.
    """

    def __init__(self, examples: Sequence[Example]) -> None:
        self.vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, token_pattern=r"\w+|[^\w\s]")
        self.vectorizer.fit(dict.fromkeys(text for example in examples for text in example.texts))

    def __call__(self, examples: Sequence[Example]) -> scipy.sparse.csr_matrix:
        """Rows of features, (N, V) of one text, (N, 4V + 1) of two, for V words and pairs of words."""
        first, *others = (self._vectors([example.texts[side] for example in examples]) for side in range(len(examples[0].texts)))
        if not others:
            return first
        second = others[0]
        shared = first.multiply(second)
        return scipy.sparse.hstack([first, second, abs(first - second), shared, shared.sum(axis=1)], format="csr")

    def _vectors(self, texts: Sequence[str]) -> scipy.sparse.csr_matrix:
        rows = {text: row for row, text in enumerate(dict.fromkeys(texts))}
        return self.vectorizer.transform(rows)[[rows[text] for text in texts]]


class WordModel:
    """A linear model of word features.

    Args:
        task: says whether labels are scores, and how logits become predictions.
        examples: labelled rows to fit.

    Raises:
        BortError: if all rows have the same class, or no text has a word.
    """

    def __init__(self, task: Task, examples: Sequence[Example]) -> None:
        self.task = task
        labels = np.array([example.label for example in examples])
        if not task.is_regression and len(np.unique(labels)) < 2:
            raise BortError(
                f"{task.name}: all {len(examples)} training rows have the same label; there is nothing to learn, give more rows"
            )
        if not any(re.search(r"\S", text) for example in examples for text in example.texts):
            raise BortError(
                f"{task.name}: the texts of all {len(examples)} training rows are blank; there is nothing to learn, give more rows"
            )
        self.features = WordFeatures(examples)
        if task.is_regression:
            self.model = Ridge(alpha=PENALTY["alpha"], solver="sparse_cg", tol=1e-6)
        else:
            self.model = LogisticRegression(C=PENALTY["C"], max_iter=10_000)
        self.model.fit(self.features(examples), labels)

    def predict(self, examples: Sequence[Example]) -> np.ndarray:
        """Predictions (N,) as ``Task.decide`` makes them of log-probabilities; a class without training rows has probability 0."""
        blocks = [self._logits(examples[start : start + _ROWS_AT_ONCE]) for start in range(0, len(examples), _ROWS_AT_ONCE)]
        return self.task.decide(examples, np.concatenate(blocks))

    def _logits(self, examples: Sequence[Example]) -> np.ndarray:
        features = self.features(examples)
        if self.task.is_regression:
            return np.asarray(self.model.predict(features))[:, None]
        logits = np.full((len(examples), self.task.num_classes), -np.inf)
        logits[:, self.model.classes_] = self.model.predict_log_proba(features)
        return logits


def bench_baseline(tasks: Sequence[Task], limit: int | None, show_progress: bool) -> dict[str, Any]:
    """Fit and judge a model of each task.

    Args:
        tasks: whose training and development files are there; one named twice is judged once.
        limit: fit the first so many training rows only; None for all.

    Returns:
        What :func:`print_report` prints and what the JSON line holds; metrics are shares or correlations, times are in seconds.

    Raises:
        BortError: before anything is fitted if a task has no training rows or lacks a file; later if a file is damaged or its training
            rows have one class or no words.
    """
    if limit is not None and limit < 1:
        raise BortError("--limit must be at least 1")
    tasks = list(dict.fromkeys(tasks))
    for task in tasks:
        if not task.segment_names("train"):
            raise BortError(f"{task.name} has no training rows; models of {task.predicted_by} label it")
        for segment in (*task.segment_names("train"), *task.segment_names("dev")):
            task.path(segment)
    return {
        "benchmark": "baseline",
        "machine": describe_machine(PACKAGES),
        "settings": {"penalty": PENALTY, "limit": limit},
        "tasks": [_judge(task, limit) for task in tqdm(tasks, desc="fitting", unit="task", disable=None if show_progress else True)],
    }


def _judge(task: Task, limit: int | None) -> dict[str, Any]:
    train = [example for segment in task.segment_names("train") for example in task.examples(segment)][:limit]
    dev = {segment: task.examples(segment) for segment in task.segment_names("dev")}
    start = time.perf_counter()
    model = WordModel(task, train)
    scores = {segment: score(task, examples, model.predict(examples)) for segment, examples in dev.items()}
    seconds = time.perf_counter() - start
    return {
        "task": task.name,
        "train_rows": len(train),
        "dev_rows": {segment: len(examples) for segment, examples in dev.items()},
        "score": task_score(task, scores),
        "dev": scores,
        "majority": {segment: majority_score(task, examples) for segment, examples in dev.items()},
        "seconds": seconds,
    }


def print_report(record: dict[str, Any]) -> None:
    """Print the table of a record of :func:`bench_baseline`."""
    rows = []
    for result in record["tasks"]:
        counts = [result["task"], str(result["train_rows"])]
        seconds = f"{result['seconds']:.1f}"
        for segment, metrics in result["dev"].items():
            counts.append(str(result["dev_rows"][segment]))
            for metric, value in metrics.items():
                name = metric if len(result["dev"]) == 1 else f"{segment} {metric}"
                rows.append([*counts, name, f"{result['majority'][segment][metric]:.4f}", f"{value:.4f}", seconds])
                counts, seconds = ["", "", ""], ""
            counts = ["", ""]
    limit = record["settings"]["limit"]
    title = "TF-IDF + logistic regression (ridge where labels are scores) beside the majority class, on the development sets"
    title += "" if limit is None else f"; the first {limit} training rows at most"
    columns = ["", "training rows", "judged rows", "metric", "majority", "TF-IDF", "seconds"]
    print_table(title, columns, rows, [machine_line(record["machine"])])
