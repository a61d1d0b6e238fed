"""What a task is: where its rows stand, what its labels mean, how it is scored and handed in.

A task is data. Its stages are typed: a file's raw ``Row`` (bort/tasks/reading.py) becomes an ``Example`` here, and token ids in
bort/tasks/encoding.py. Label numbers follow the order of the published code, so that a classifier trained there means the same here.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from bort.errors import BortError
from bort.tasks import decisions
from bort.tasks.reading import ExampleId, Layout

Label = str | int
"""A class as the files write it: a word, or a JSON number or truth value."""


@dataclass(frozen=True)
class Example:
    """One row that a model can learn from or label.

    Attributes:
        id: what a leaderboard calls the row: its number from 0, its own ``idx``, (passage, question, answer) in MultiRC, the query's
            ``idx`` in ReCoRD, and (article, number of the question from 0) in RACE.
        texts: one or two texts.
        label: class number; score where the task is a regression; None if the row has no label.
        line: line of the file it came from, from 1.
        candidate: the entity that stands for the placeholder, in ReCoRD.
        answers: the right answers of the row's query, in ReCoRD; empty if it has none.
        question_start: character of the first text where the question begins, with the space before it, in RACE: what stands before it may
            be cut first.
    """

    id: ExampleId
    texts: tuple[str, ...]
    label: int | float | None
    line: int
    candidate: str | None = None
    answers: tuple[str, ...] = ()
    question_start: int | None = None


@dataclass(frozen=True)
class Segment:
    """One file of a task, or in RACE the folders of one segment.

    Attributes:
        name: ``train``, ``dev`` or ``test``, with a suffix where there are several: ``dev_matched``.
        file: name of the file in the task's folder, or of the folder that holds ``parts``.
        layout: how the rows of one file are laid out.
        official_size: how many there are of ``unit`` in what the benchmark publishes.
        leaderboard_file: name of the prediction file the leaderboard asks for; None for train and dev.
        unit: what ``official_size`` counts: ``rows``, ``questions``, or ``passages``, each of which is a line with several rows.
        parts: folders of ``.txt`` files, each with some rows, where a segment is not one file.
    """

    name: str
    file: str
    layout: Layout
    official_size: int
    leaderboard_file: str | None = None
    unit: Literal["rows", "questions", "passages"] = "rows"
    parts: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every row must have a label."""
        return self.leaderboard_file is None

    def size(self, examples: Sequence[Example]) -> int:
        """How many there are of ``unit`` in ``examples``."""
        return len({example.line for example in examples}) if self.unit == "passages" else len(examples)


@dataclass(frozen=True)
class Task:
    """One task of a benchmark.

    Attributes:
        name: as ``get_task`` knows it; unique over all benchmarks.
        benchmark: ``GLUE``, ``SuperGLUE`` or ``RACE``.
        folders: folders under the data root that may hold its files: the official one, then those of the published code.
        segments: its files.
        labels: the classes in the order of their numbers, as the files write them; None for a regression.
        metrics: names of its metrics (bort/tasks/metrics.py); its own score is their mean.
        prediction_format: makes the text of a prediction file of the task, the test examples and their predictions.
        decide: makes predictions (N,) of the examples and their logits (N, num_classes): class numbers, or scores of a regression.
        written_labels: the classes as a prediction file writes them, where that differs from ``labels``.
        score_range: lowest and highest score of a regression.
        predicted_by: name of the task whose model labels this one, which has no training rows.
        is_pair: whether a row has two texts.
        data_root: folder that holds ``folders``; None for ``$MXNET_HOME/datasets``, else ``~/.mxnet/datasets``.
    """

    name: str
    benchmark: str
    folders: tuple[str, ...]
    segments: tuple[Segment, ...]
    labels: tuple[Label, ...] | None
    metrics: tuple[str, ...]
    prediction_format: Callable[[Task, Sequence[Example], np.ndarray], str]
    decide: Callable[[Sequence[Example], np.ndarray], np.ndarray] = decisions.most_probable
    written_labels: tuple[Label, ...] | None = None
    score_range: tuple[float, float] = (-math.inf, math.inf)
    predicted_by: str | None = None
    is_pair: bool = True
    data_root: Path | None = None

    @property
    def is_regression(self) -> bool:
        """Whether a row's label is a score rather than a class."""
        return self.labels is None

    @property
    def num_classes(self) -> int:
        """Outputs that a classifier for this task has: one a class, one for a regression."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def leaderboard_labels(self) -> tuple[Label, ...]:
        """The classes as a prediction file writes them, in the order of their numbers; empty for a regression."""
        return self.written_labels or self.labels or ()

    @property
    def root(self) -> Path:
        """Folder that holds ``folders``, whether it was named or is the default."""
        return self.data_root or default_data_root()

    @property
    def folder(self) -> Path:
        """The official folder of the task's files, which need not be there."""
        return self.root / self.folders[0]

    def segment_names(self, role: str) -> tuple[str, ...]:
        """Names of the segments of a role, ``train``, ``dev`` or ``test``; empty if the task has none."""
        return tuple(segment.name for segment in self.segments if segment.name.partition("_")[0] == role)

    def segment(self, name: str) -> Segment:
        """The segment called ``name``.

        Raises:
            BortError: if the task has none of that name.
        """
        for segment in self.segments:
            if segment.name == name:
                return segment
        raise BortError(f'{self.name} has no segment "{name}"; it has {", ".join(segment.name for segment in self.segments)}')

    def is_present(self, segment_name: str) -> bool:
        """Whether all of a segment's files are there to be read.

        Raises:
            BortError: if that cannot be seen, for want of permission for example.
        """
        return any(self._missing(place, segment_name) is None for place in self._places(segment_name))

    def path(self, segment_name: str) -> Path:
        """File that holds a segment, or the folder of its ``parts``: the first that exists in ``folders``.

        Raises:
            BortError: if there is none, or it cannot be looked for; names the places looked at.
        """
        places = self._places(segment_name)
        for place in places:
            if self._missing(place, segment_name) is None:
                return place
        missing = self._missing(places[0], segment_name) or self.segment(segment_name).file
        roots = [str(self.root / folder) for folder in self.folders]
        raise BortError(
            f"{self.name}: no {missing} in {', '.join(roots)}; get the {self.benchmark} files from "
            f"{_SITES[self.benchmark]} and put them there, or name the folder that holds {self.folders[0]} with --data_root"
        )

    def files(self, segment_name: str) -> list[Path]:
        """Every file that holds rows of a segment, in the order they are read in: one, or in RACE one an article.

        Raises:
            BortError: as ``path``.
        """
        path = self.path(segment_name)
        parts = self.segment(segment_name).parts
        return [file for part in parts for file in _articles(path / part)] if parts else [path]

    def _places(self, segment_name: str) -> list[Path]:
        return [self.root / folder / self.segment(segment_name).file for folder in self.folders]

    def _missing(self, place: Path, segment_name: str) -> str | None:
        """What is not there of a segment that should stand at ``place``."""
        segment = self.segment(segment_name)
        if not segment.parts:
            return None if _is_file(place) else segment.file
        return next((f"{segment.file}/{part}/*.txt" for part in segment.parts if not _articles(place / part)), None)

    def examples(self, segment_name: str) -> list[Example]:
        """All rows of a segment, in order.

        Files that have most of the official rows but not all of them, or more, are read with a warning.

        Raises:
            BortError: if a file is missing, empty or damaged, an ``idx`` is used twice, or a label is missing or outside the set; names the
                file and the line.
        """
        segment = self.segment(segment_name)
        examples = []
        places: dict[ExampleId, str] = {}
        for file in self.files(segment_name):
            for row in segment.layout.rows(file, segment.labelled):
                # Rows of one place are answered together; an id in a second place would leave one of the two without an answer.
                if places.setdefault(row.id, row.where) != row.where:
                    raise BortError(f"{row.where}: the id {_named(row.id)} is that of {places[row.id]} too")
                label = self._label(row.label, segment, row.where)
                examples.append(Example(row.id, row.texts, label, row.line, row.candidate, row.answers, row.question_start))
        path = self.path(segment_name)
        if not examples:
            raise BortError(f"{path}: no rows")
        # A handful of rows is a sample; a file near the official size that does not meet it was damaged or is of another release.
        size = segment.size(examples)
        if size != segment.official_size and 2 * size > segment.official_size:
            warnings.warn(f"{path}: {size} {segment.unit} where the official file has {segment.official_size}", stacklevel=2)
        return examples

    def _label(self, raw: object, segment: Segment, where: str) -> int | float | None:
        if not segment.labelled and raw in (None, -1, "-1"):
            return None
        if self.labels is None:
            return self._score(raw, where)
        for number, label in enumerate(self.labels):
            # JSON's false and 0 are equal in Python, but not in a file.
            if type(raw) is type(label) and raw == label:
                return number
        known = ", ".join(label if isinstance(label, str) else _quoted(label) for label in self.labels)
        raise BortError(f"{where}: label {_quoted(raw)} is not one of {known}")

    def _score(self, raw: object, where: str) -> float:
        low, high = self.score_range
        # Python would read 0_3 and the digits of other scripts, too.
        score = float(str(raw)) if _SCORE.fullmatch(str(raw)) else math.nan
        if not low <= score <= high:
            raise BortError(f"{where}: score {_quoted(raw)} is not a number from {low:g} to {high:g}")
        return score


def _articles(folder: Path) -> list[Path]:
    """The ``.txt`` files of a folder by number: 2.txt before 10.txt."""
    try:
        with os.scandir(folder) as entries:
            names = [entry.name for entry in entries if entry.name.endswith(".txt")]
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise BortError(f"{folder}: {error.strerror}") from error
    return [folder / name for name in sorted(names, key=lambda name: (len(name), name))]


def _is_file(path: Path) -> bool:
    """Whether there is a file; pathlib would call one a program may not look at missing, or raise, depending on Python's version."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}") from error


def _named(example_id: ExampleId) -> str:
    keys = example_id if isinstance(example_id, tuple) else (example_id,)
    return ", ".join(_quoted(key) for key in keys)


def _quoted(value: object) -> str:
    """A value as JSON writes it, cut where a damaged file would make the error unreadable."""
    if isinstance(value, list | dict):
        return "[…]" if isinstance(value, list) else "{…}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:60]}…"


_SCORE = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]+)?")
_SITES = {
    "GLUE": "https://gluebenchmark.com/tasks",
    "SuperGLUE": "https://super.gluebenchmark.com/tasks",
    "RACE": "https://www.cs.cmu.edu/~glai1/data/race",
}


def default_data_root() -> Path:
    """``$MXNET_HOME/datasets`` if that variable is set, else ``~/.mxnet/datasets``."""
    home = os.environ.get("MXNET_HOME")
    return (Path(home) if home else Path.home() / ".mxnet") / "datasets"
