"""What a task is: where its files are, what its labels mean, how it is scored and submitted.

A task is data. Its stages are typed: a file's raw ``Row`` (bort/tasks/reading.py) becomes an ``Example`` here, and token ids in
bort/tasks/encoding.py. Label numbers follow the order of the published code, so that a classifier trained there means the same here.
"""

from __future__ import annotations

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
from bort.tasks.json_fields import shown
from bort.tasks.reading import ExampleId, Layout

Label = str | int
"""A class as the files write it: a word, or a JSON number or truth value."""

_SCORE = re.compile(r"-?[0-9]{1,9}(?:\.[0-9]+)?")


@dataclass(frozen=True)
class Example:
    """One row that a model can learn from or label.

    Attributes:
        id: what a leaderboard calls the row: its number from 0 or its own ``idx``; (passage, question, answer) in MultiRC; the query's
            ``idx`` in ReCoRD; (article, number of the question from 0) in RACE.
        texts: one or two texts.
        label: class number; score where the task is a regression; None if the row has no label.
        line: line of the file it came from, from 1.
        candidate: in ReCoRD, the entity that stands for the placeholder.
        answers: in ReCoRD, the right answers of the row's query; empty if none are known.
        question_start: in RACE, the character of the first text where the question begins, with the space before it: what stands before it
            may be cut first.
    """

    id: ExampleId
    texts: tuple[str, ...]
    label: int | float | None
    line: int
    candidate: str | None = None
    answers: tuple[str, ...] = ()
    question_start: int | None = None

    @property
    def keys(self) -> tuple[int | str, ...]:
        """The ``id`` as a tuple, the outermost key first."""
        return self.id if isinstance(self.id, tuple) else (self.id,)


@dataclass(frozen=True)
class Segment:
    """One part of a task's rows: a file or, in RACE, a folder of folders of files.

    Attributes:
        name: ``train``, ``dev`` or ``test``, with a suffix where there are several: ``dev_matched``.
        file: name of the file in the task's folder, or of the folder that holds ``subfolders``.
        layout: how the rows of one file are laid out.
        official_size: how many of ``unit`` the benchmark has published.
        leaderboard_file: name of the prediction file the leaderboard asks for; None for train and dev.
        unit: what ``official_size`` counts: ``rows``, ``questions``, or ``passages``, each of which is a line with several rows.
        subfolders: names of the folders that hold the segment's ``.txt`` files; empty where a segment is one file.
    """

    name: str
    file: str
    layout: Layout
    official_size: int
    leaderboard_file: str | None = None
    unit: Literal["rows", "questions", "passages"] = "rows"
    subfolders: tuple[str, ...] = ()

    @property
    def labelled(self) -> bool:
        """Whether every row must have a label."""
        return self.leaderboard_file is None

    def size(self, examples: Sequence[Example]) -> int:
        """How many of ``unit`` the examples are."""
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
        metrics: names of its metrics (bort/tasks/metrics.py); its own score is the mean of those not in ``breakdown``.
        prediction_format: gives the text of a prediction file for the task, the test examples and their predictions.
        decide: turns the examples and their logits (N, num_classes) into predictions (N,): class numbers, or scores of a regression.
        written_labels: the classes as a prediction file writes them, where that differs from ``labels``.
        score_range: lowest and highest score of a regression.
        predicted_by: name of the task whose model labels this one, which has no training rows.
        is_pair: whether a row has two texts.
        breakdown: those of ``metrics`` that judge a part of the rows; they are reported, and not averaged into the task's own score.
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
    breakdown: tuple[str, ...] = ()
    data_root: Path | None = None

    @property
    def is_regression(self) -> bool:
        """Whether a row's label is a score rather than a class."""
        return self.labels is None

    @property
    def num_classes(self) -> int:
        """Outputs of a classifier for this task: one per class, or the one of a regression."""
        return 1 if self.labels is None else len(self.labels)

    @property
    def averaged_metrics(self) -> tuple[str, ...]:
        """The metrics whose mean is the task's own score."""
        return tuple(metric for metric in self.metrics if metric not in self.breakdown)

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
        """The official folder of the task's files, which need not exist."""
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
        """File that holds a segment, or the folder of its ``subfolders``: the first of ``folders`` that has it.

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
            f"{self.name}: no {missing} in {', '.join(roots)}; fetch it with bort tasks download {self.name}, "
            f"or name the folder that holds {self.folders[0]} with --data_root"
        )

    def files(self, segment_name: str) -> list[Path]:
        """Every file that holds rows of a segment, in the order of reading: one, or in RACE one per article.

        Raises:
            BortError: as ``path``.
        """
        path = self.path(segment_name)
        subfolders = self.segment(segment_name).subfolders
        return [file for subfolder in subfolders for file in _articles(path / subfolder)] if subfolders else [path]

    def _places(self, segment_name: str) -> list[Path]:
        return [self.root / folder / self.segment(segment_name).file for folder in self.folders]

    def _missing(self, place: Path, segment_name: str) -> str | None:
        """The first thing that a segment at ``place`` lacks; None if it is all there."""
        segment = self.segment(segment_name)
        if not segment.subfolders:
            return None if _is_file(place) else segment.file
        return next((f"{segment.file}/{name}/*.txt" for name in segment.subfolders if not _articles(place / name)), None)

    def examples(self, segment_name: str) -> list[Example]:
        """All rows of a segment, in order.

        Warns of a file that has more than half of the official rows but not exactly as many.

        Raises:
            BortError: if a file is missing, empty or damaged, an ``idx`` is used twice, or a label is missing or not one of the task's;
                names the file and the line.
        """
        segment = self.segment(segment_name)
        examples = []
        places: dict[ExampleId, str] = {}
        for file in self.files(segment_name):
            for row in segment.layout.rows(file, segment.labelled):
                label = self._label(row.label, segment, row.where)
                example = Example(row.id, row.texts, label, row.line, row.candidate, row.answers, row.question_start)
                # Rows of one place are answered together; an id in a second place would leave one of the two without an answer.
                if places.setdefault(row.id, row.where) != row.where:
                    raise BortError(f"{row.where}: the id {', '.join(map(shown, example.keys))} is that of {places[row.id]} too")
                examples.append(example)
        path = self.path(segment_name)
        if not examples:
            raise BortError(f"{path}: no rows")
        # A handful of rows is a sample; a file of nearly the official size was damaged, or is of another release.
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
        known = ", ".join(label if isinstance(label, str) else shown(label) for label in self.labels)
        raise BortError(f"{where}: label {shown(raw)} is not one of {known}")

    def _score(self, raw: object, where: str) -> float:
        low, high = self.score_range
        # Python would read 0_3 and the digits of other scripts, too.
        score = float(str(raw)) if _SCORE.fullmatch(str(raw)) else math.nan
        if not low <= score <= high:
            raise BortError(f"{where}: score {shown(raw)} is not a number from {low:g} to {high:g}")
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
    """Whether there is a file; where permission to look is lacking, pathlib says no or raises, depending on Python's version."""
    try:
        return stat.S_ISREG(path.stat().st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        raise BortError(f"{path}: {error.strerror}") from error


def default_data_root() -> Path:
    """``$MXNET_HOME/datasets`` if that variable is set, else ``~/.mxnet/datasets``."""
    home = os.environ.get("MXNET_HOME")
    return (Path(home) if home else Path.home() / ".mxnet") / "datasets"
