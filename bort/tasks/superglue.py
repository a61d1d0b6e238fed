"""The eight tasks of SuperGLUE and its two diagnostic sets (Wang et al. 2019), one entry each.

Texts and the order of labels are the published code's. Its name for the segment in ``val.jsonl`` is ``dev``. The rows of MultiRC and ReCoRD
are read in multirc.py and record.py.
"""

from __future__ import annotations

import json
from typing import Literal

from bort.errors import BortError
from bort.tasks.decisions import best_candidate
from bort.tasks.glue import ENTAILMENT
from bort.tasks.leaderboard import json_lines, multirc_answers, record_answers
from bort.tasks.multirc import Passages
from bort.tasks.reading import JsonLines, Layout
from bort.tasks.record import Queries
from bort.tasks.task import Segment, Task


def _splits(
    name: str,
    layout: Layout,
    sizes: tuple[int, int, int],
    train_layout: Layout | None = None,
    unit: Literal["rows", "passages"] = "rows",
) -> tuple[Segment, ...]:
    train, dev, test = sizes
    return (
        Segment("train", "train.jsonl", train_layout or layout, train, unit=unit),
        Segment("dev", "val.jsonl", layout, dev, unit=unit),
        Segment("test", "test.jsonl", layout, test, leaderboard_file=f"{name}.jsonl", unit=unit),
    )


def last_sentences(premise: str, hypothesis: str) -> tuple[str, ...]:
    """CommitmentBank's texts: of a text with more than three pieces between full stops, the last four pieces.

    As in the published code, the pieces are joined with spaces, so the full stops are gone, and the first character is dropped: a space
    where the text had more than four pieces, a letter where it had exactly four. Models trained with that code have seen just that.
    """

    def ending(text: str) -> str:
        pieces = text.split(".")
        return " ".join(pieces[-4:])[1:] if len(pieces) > 3 else text

    return ending(premise), ending(hypothesis)


def alternatives(premise: str, choice1: str, choice2: str, question: str) -> tuple[str, ...]:
    """COPA's texts: the premise joined to each choice as its cause or as its effect.

    Raises:
        BortError: if ``question`` asks for neither.
    """
    joints = {"cause": "because", "effect": "so"}
    if question not in joints:
        raise BortError(f"question {json.dumps(question[:40])} is not one of {', '.join(joints)}")
    return f"{premise} {joints[question]} {choice1}", f"{premise} {joints[question]} {choice2}"


def meaning(text: str, noun: str, pronoun: str) -> tuple[str, ...]:
    """The Winograd schema's texts: the sentences, and what the pronoun is said to stand for."""
    return text, f"{pronoun} means {noun}"


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
        name="COPA",
        benchmark="SuperGLUE",
        folders=("superglue/COPA", "superglue_copa"),
        segments=_splits("COPA", JsonLines(("premise", "choice1", "choice2", "question"), alternatives), (400, 100, 500)),
        labels=(0, 1),
        metrics=("accuracy",),
        prediction_format=json_lines,
    ),
    Task(
        name="MultiRC",
        benchmark="SuperGLUE",
        folders=("superglue/MultiRC", "superglue_multirc"),
        segments=_splits("MultiRC", Passages(), (456, 83, 166), unit="passages"),
        labels=(0, 1),
        metrics=("f1a", "question_exact_match"),
        prediction_format=multirc_answers,
    ),
    Task(
        name="ReCoRD",
        benchmark="SuperGLUE",
        folders=("superglue/ReCoRD", "superglue_record"),
        segments=_splits("ReCoRD", Queries(), (65709, 7481, 7484), train_layout=Queries(balanced=True), unit="passages"),
        labels=(0, 1),
        metrics=("token_f1", "answer_exact_match"),
        prediction_format=record_answers,
        decide=best_candidate,
    ),
    Task(
        name="SuperGLUE-RTE",
        benchmark="SuperGLUE",
        folders=("superglue/RTE", "superglue_rte"),
        segments=_splits("RTE", JsonLines(("premise", "hypothesis")), (2490, 277, 3000)),
        labels=ENTAILMENT,
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
    Task(
        name="WSC",
        benchmark="SuperGLUE",
        folders=("superglue/WSC", "superglue_wsc"),
        segments=_splits("WSC", JsonLines(("text", "target.span1_text", "target.span2_text"), meaning), (554, 104, 146)),
        labels=(False, True),
        written_labels=("False", "True"),
        metrics=("accuracy",),
        prediction_format=json_lines,
    ),
    Task(
        name="AX-b",
        benchmark="SuperGLUE",
        folders=("superglue/AX-b", "superglue_axb", "superglue_ax_b"),
        segments=(Segment("test", "AX-b.jsonl", JsonLines(("sentence1", "sentence2")), 1104, leaderboard_file="AX-b.jsonl"),),
        labels=ENTAILMENT,
        metrics=("matthews",),
        prediction_format=json_lines,
        predicted_by="SuperGLUE-RTE",
    ),
    Task(
        name="AX-g",
        benchmark="SuperGLUE",
        folders=("superglue/AX-g", "superglue_axg", "superglue_ax_g"),
        segments=(Segment("test", "AX-g.jsonl", JsonLines(("premise", "hypothesis")), 356, leaderboard_file="AX-g.jsonl"),),
        labels=ENTAILMENT,
        metrics=("accuracy", "gender_parity"),
        prediction_format=json_lines,
        predicted_by="SuperGLUE-RTE",
    ),
)
