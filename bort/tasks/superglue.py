"""Tasks of SuperGLUE (Wang et al. 2019), one entry each.

Texts and the order of labels are the published code's. Its name for the segment in ``val.jsonl`` is ``dev``.
"""

from __future__ import annotations

from bort.tasks.leaderboard import json_lines
from bort.tasks.reading import JsonLines
from bort.tasks.task import Segment, Task


def _splits(name: str, layout: JsonLines, sizes: tuple[int, int, int]) -> tuple[Segment, ...]:
    train, dev, test = sizes
    return (
        Segment("train", "train.jsonl", layout, train),
        Segment("dev", "val.jsonl", layout, dev),
        Segment("test", "test.jsonl", layout, test, leaderboard_file=f"{name}.jsonl"),
    )


def last_sentences(premise: str, hypothesis: str) -> tuple[str, ...]:
    """CommitmentBank's texts: of one with more than three pieces between full stops, the last four pieces.

    The published code joins the pieces with spaces, so the full stops are gone, and drops the first character: a space where the text had
    more than four pieces, a letter where it had exactly four. Models trained with it have seen just that.
    """

    def ending(text: str) -> str:
        pieces = text.split(".")
        return " ".join(pieces[-4:])[1:] if len(pieces) > 3 else text

    return ending(premise), ending(hypothesis)


SUPERGLUE = (
    Task(
        name="BoolQ",
        benchmark="SuperGLUE",
        folders=("superglue/BoolQ", "superglue_boolq"),
        segments=_splits("BoolQ", JsonLines(("passage", "question")), (9427, 3270, 3245)),
        labels=(False, True),
        written_labels=("false", "true"),
        metrics=("accuracy",),
        prediction_format=json_lines,
    ),
    Task(
        name="CB",
        benchmark="SuperGLUE",
        folders=("superglue/CB", "superglue_cb"),
        segments=_splits("CB", JsonLines(("premise", "hypothesis"), last_sentences), (250, 56, 250)),
        labels=("neutral", "entailment", "contradiction"),
        metrics=("accuracy", "macro_f1"),
        prediction_format=json_lines,
    ),
    Task(
        name="SuperGLUE-RTE",
        benchmark="SuperGLUE",
        folders=("superglue/RTE", "superglue_rte"),
        segments=_splits("RTE", JsonLines(("premise", "hypothesis")), (2490, 277, 3000)),
        labels=("not_entailment", "entailment"),
        metrics=("accuracy",),
        prediction_format=json_lines,
    ),
    Task(
        name="WiC",
        benchmark="SuperGLUE",
        folders=("superglue/WiC", "superglue_wic"),
        segments=_splits("WiC", JsonLines(("sentence1", "sentence2")), (5428, 638, 1400)),
        labels=(False, True),
        written_labels=("false", "true"),
        metrics=("accuracy",),
        prediction_format=json_lines,
    ),
)
