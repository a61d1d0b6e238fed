"""Pictures of how predictions differ from the truth: a confusion matrix, or a scatter of scores where the task is a regression.

Notable: a cell shows its count and is shaded by its share of the true class, so a class with few rows can be judged as well as one with
many.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from bort.training.pictures import picture, plain

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST_LABEL = 24
_MOST_POINTS = 5000


def confusion_counts(num_classes: int, truth: np.ndarray, predictions: np.ndarray) -> np.ndarray:
    """Rows of each true class by predicted class, (C, C) int64; all zeros without rows.

    Args:
        truth: (N,) class numbers.
        predictions: (N,) class numbers.
    """
    from sklearn.metrics import confusion_matrix

    if not len(truth):
        return np.zeros((num_classes, num_classes), dtype=np.int64)
    counts: np.ndarray = confusion_matrix(np.asarray(truth, np.int64), np.asarray(predictions, np.int64), labels=np.arange(num_classes))
    return counts


def draw_confusion_matrix(path: Path | str, labels: Sequence[str], truth: np.ndarray, predictions: np.ndarray, title: str) -> None:
    """Draw counts of true by predicted class to a PNG file, whole or not at all.

    Args:
        labels: the classes in the order of their numbers.
        truth: (N,) class numbers.
        predictions: (N,) class numbers.
    """
    counts = confusion_counts(len(labels), truth, predictions)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    words = [label if len(label) <= _LONGEST_LABEL else f"{label[: _LONGEST_LABEL - 1]}…" for label in labels]
    with _axes(path, 2.5 + 1.2 * len(labels), title) as axes:
        axes.imshow(shares, vmin=0.0, vmax=1.0, cmap="Blues")
        for (row, column), count in np.ndenumerate(counts):
            colour = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{count}\n{shares[row, column]:.0%}", ha="center", va="center", color=colour)
        ticks = [plain(word) for word in words]
        slanted = max(map(len, words)) > 8
        axes.set_xticks(range(len(labels)), ticks, rotation=45 if slanted else 0, ha="right" if slanted else "center")
        axes.set_yticks(range(len(labels)), ticks)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")


def draw_scores(path: Path | str, truth: np.ndarray, predictions: np.ndarray, title: str) -> None:
    """Draw predicted against true scores to a PNG file, whole or not at all.

    Args:
        truth: (N,) scores.
        predictions: (N,) scores; those that are not finite are left out.
    """
    truth, predictions = np.asarray(truth, np.float64), np.asarray(predictions, np.float64)
    shown = np.isfinite(truth) & np.isfinite(predictions)
    # More points would hide each other; evenly spaced ones stand for all.
    chosen = np.flatnonzero(shown)[:: max(1, -(-int(shown.sum()) // _MOST_POINTS))]
    with _axes(path, 5.0, title) as axes:
        axes.scatter(truth[chosen], predictions[chosen], s=8, alpha=0.4)
        if len(chosen):
            ends = [min(truth[chosen].min(), predictions[chosen].min()), max(truth[chosen].max(), predictions[chosen].max())]
            axes.plot(ends, ends, color="grey", linewidth=1)
        axes.set_xlabel("true score")
        axes.set_ylabel("predicted score")


@contextmanager
def _axes(path: Path | str, size: float, title: str) -> Iterator[Axes]:
    """Axes of a square figure of ``size`` inches, which is written to ``path`` afterwards."""
    with picture(path, size, size) as figure:
        axes = figure.add_subplot()
        axes.set_title(plain(title))
        yield axes
