"""The published way to a task's rows: ``from data.classification import BoolQTask; BoolQTask().dataset_train()[1]``.

A door to ``bort.tasks``, which new code should use. Data are looked for in ``$MXNET_HOME/datasets``, else ``~/.mxnet/datasets``. A row is a
list of its texts and, where the file has one, its label: a class as the file writes it (in RACE the option's number as text), or a score.
Two things differ from the published module: ``metrics`` are names here and not ``mx.metric`` objects; ``get_dataset``, ``label_alias`` and
``output_format`` are not provided.
"""

from __future__ import annotations

import json

from bort.tasks import Example, get_task

Dataset = tuple[str, list[list]]
"""A segment's name and its rows."""


class ClassificationTask:
    """A task of bort.tasks under its published interface.

    Attributes:
        class_labels: classes in the order of their numbers, as the task's files write them, in RACE their numbers; None for a regression.
        metrics: names of the task's metrics.
        is_pair: whether a row has two texts.
        num_classes: outputs of a classifier for this task.
    """

    name: str
    _published_labels: tuple[str, ...] | None = None

    def __init__(self) -> None:
        self._task = get_task(self.name)
        labels = self._published_labels or self._task.labels
        self.class_labels = labels and [label if isinstance(label, str) else json.dumps(label) for label in labels]
        self.metrics = list(self._task.metrics)
        self.is_pair = self._task.is_pair
        self.num_classes = self._task.num_classes

    def dataset_train(self) -> Dataset | list[Dataset]:
        """Segment name and rows of the training segment.

        Raises:
            BortError: if the task has no such segment, or its file is missing or damaged. So do the methods below.
        """
        return self._datasets("train")

    def dataset_dev(self) -> Dataset | list[Dataset]:
        """Segment name and rows of the development segment; a list of two such pairs for MNLI."""
        return self._datasets("dev")

    dataset_val = dataset_dev

    def dataset_test(self) -> Dataset | list[Dataset]:
        """Segment name and rows of the test segment; a list of two such pairs for MNLI."""
        return self._datasets("test")

    def _datasets(self, role: str) -> Dataset | list[Dataset]:
        names = self._task.segment_names(role) or (role,)
        datasets = [(name, [self._row(example) for example in self._task.examples(name)]) for name in names]
        return datasets[0] if len(datasets) == 1 else datasets

    def _row(self, example: Example) -> list:
        if example.label is None:
            return [*example.texts]
        labels = self._published_labels or self._task.labels
        return [*example.texts, example.label if labels is None else labels[int(example.label)]]


class MRPCTask(ClassificationTask):
    """GLUE: do two sentences say the same?"""

    name = "MRPC"


class QQPTask(ClassificationTask):
    """GLUE: do two questions ask the same?"""

    name = "QQP"


class QNLITask(ClassificationTask):
    """GLUE: does a sentence answer a question?"""

    name = "QNLI"


class RTETask(ClassificationTask):
    """GLUE: does one text entail the other?"""

    name = "RTE"


class STSBTask(ClassificationTask):
    """GLUE: how similar are two sentences, from 0 to 5?"""

    name = "STS-B"


class CoLATask(ClassificationTask):
    """GLUE: is a sentence acceptable English?"""

    name = "CoLA"


class MNLITask(ClassificationTask):
    """GLUE: does one sentence entail or contradict the other, or neither?"""

    name = "MNLI"


class WNLITask(ClassificationTask):
    """GLUE: is a pronoun resolved rightly?"""

    name = "WNLI"


class SSTTask(ClassificationTask):
    """GLUE: is a review of a film positive?"""

    name = "SST-2"


class AXTask(ClassificationTask):
    """GLUE: the diagnostic set of MNLI, with a test segment only."""

    name = "AX"


class SuperGLUERTETask(ClassificationTask):
    """SuperGLUE: does one text entail the other?"""

    name = "SuperGLUE-RTE"


class BoolQTask(ClassificationTask):
    """SuperGLUE: is the answer to a question about a passage yes?"""

    name = "BoolQ"


class CBTask(ClassificationTask):
    """SuperGLUE: does a text entail or contradict the clause it embeds, or neither?"""

    name = "CB"


class WiCTask(ClassificationTask):
    """SuperGLUE: does a word mean the same in two sentences?"""

    name = "WiC"


class COPATask(ClassificationTask):
    """SuperGLUE: which of two sentences is the cause or the effect of a third?"""

    name = "COPA"


class MultiRCTask(ClassificationTask):
    """SuperGLUE: is this an answer to a question about a passage? One row an answer."""

    name = "MultiRC"


class ReCoRDTask(ClassificationTask):
    """SuperGLUE: is this the entity that a sentence about a news text left out? One row a candidate."""

    name = "ReCoRD"


class WSCTask(ClassificationTask):
    """SuperGLUE: does a pronoun stand for a noun?"""

    name = "WSC"


class AXbTask(ClassificationTask):
    """SuperGLUE: the broad diagnostic set of RTE, with a test segment only."""

    name = "AX-b"


class AXgTask(ClassificationTask):
    """SuperGLUE: the diagnostic set of RTE for gender, with a test segment only."""

    name = "AX-g"


class _RACE(ClassificationTask):
    _published_labels = ("0", "1", "2", "3")


class RACEHTask(_RACE):
    """RACE: which option answers a question about an article, in exams of high schools?"""

    name = "RACE-H"


class RACEMTask(_RACE):
    """RACE: which option answers a question about an article, in exams of middle schools?"""

    name = "RACE-M"


class RACETask(_RACE):
    """RACE: both levels."""

    name = "RACE"
