"""The nine tasks of GLUE and its diagnostic set (Wang et al. 2018), one entry each.

The order of the labels is the published code's: it is the order of a classifier's outputs. RTE here is GLUE's; SuperGLUE has files of its
own under the same name.
"""

from __future__ import annotations

from bort.tasks.decisions import only_output
from bort.tasks.leaderboard import glue_table
from bort.tasks.reading import Table
from bort.tasks.task import Segment, Task

BINARY = ("0", "1")
ENTAILMENT = ("not_entailment", "entailment")
INFERENCE = ("neutral", "entailment", "contradiction")


def _splits(name: str, layout: Table, sizes: tuple[int, int, int], test_layout: Table | None = None) -> tuple[Segment, ...]:
    train, dev, test = sizes
    return (
        Segment("train", "train.tsv", layout, train),
        Segment("dev", "dev.tsv", layout, dev),
        Segment("test", "test.tsv", test_layout or layout, test, leaderboard_file=f"{name}.tsv"),
    )


def _sentences(label: str = "label") -> Table:
    return Table(("sentence1", "sentence2"), label)


GLUE = (
    Task(
        name="CoLA",
        benchmark="GLUE",
        folders=("glue/CoLA", "glue_cola"),
        segments=_splits(
            "CoLA",
            Table(("sentence",), "label", header=("source", "label", "author's mark", "sentence")),
            (8551, 1043, 1063),
            test_layout=Table(("sentence",), "label"),
        ),
        labels=BINARY,
        metrics=("matthews",),
        prediction_format=glue_table,
        is_pair=False,
    ),
    Task(
        name="SST-2",
        benchmark="GLUE",
        folders=("glue/SST-2", "glue_sst"),
        segments=_splits("SST-2", Table(("sentence",), "label"), (67349, 872, 1821)),
        labels=BINARY,
        metrics=("accuracy",),
        prediction_format=glue_table,
        is_pair=False,
    ),
    Task(
        name="MRPC",
        benchmark="GLUE",
        folders=("glue/MRPC", "glue_mrpc"),
        segments=_splits("MRPC", Table(("#1 String", "#2 String"), "Quality"), (3668, 408, 1725)),
        labels=BINARY,
        metrics=("f1", "accuracy"),
        prediction_format=glue_table,
    ),
    Task(
        name="STS-B",
        benchmark="GLUE",
        folders=("glue/STS-B", "glue_sts", "glue_stsb"),
        segments=_splits("STS-B", _sentences("score"), (5749, 1500, 1379)),
        labels=None,
        metrics=("pearson", "spearman"),
        prediction_format=glue_table,
        decide=only_output,
        score_range=(0.0, 5.0),
    ),
    Task(
        name="QQP",
        benchmark="GLUE",
        folders=("glue/QQP", "glue_qqp"),
        segments=_splits(
            "QQP",
            Table(("question1", "question2"), "is_duplicate", skip_short=True),
            (363846, 40430, 390965),
            test_layout=Table(("question1", "question2"), "is_duplicate"),
        ),
        labels=BINARY,
        metrics=("f1", "accuracy"),
        prediction_format=glue_table,
    ),
    Task(
        name="MNLI",
        benchmark="GLUE",
        folders=("glue/MNLI", "glue_mnli"),
        segments=(
            Segment("train", "train.tsv", _sentences("gold_label"), 392702),
            Segment("dev_matched", "dev_matched.tsv", _sentences("gold_label"), 9815),
            Segment("dev_mismatched", "dev_mismatched.tsv", _sentences("gold_label"), 9832),
            Segment("test_matched", "test_matched.tsv", _sentences("gold_label"), 9796, leaderboard_file="MNLI-m.tsv"),
            Segment("test_mismatched", "test_mismatched.tsv", _sentences("gold_label"), 9847, leaderboard_file="MNLI-mm.tsv"),
        ),
        labels=INFERENCE,
        metrics=("accuracy",),
        prediction_format=glue_table,
    ),
    Task(
        name="QNLI",
        benchmark="GLUE",
        folders=("glue/QNLI", "glue_qnli"),
        segments=_splits("QNLI", Table(("question", "sentence"), "label"), (104743, 5463, 5463)),
        labels=ENTAILMENT,
        metrics=("accuracy",),
        prediction_format=glue_table,
    ),
    Task(
        name="RTE",
        benchmark="GLUE",
        folders=("glue/RTE", "glue_rte"),
        segments=_splits("RTE", _sentences(), (2490, 277, 3000)),
        labels=ENTAILMENT,
        metrics=("accuracy",),
        prediction_format=glue_table,
    ),
    Task(
        name="WNLI",
        benchmark="GLUE",
        folders=("glue/WNLI", "glue_wnli"),
        segments=_splits("WNLI", _sentences(), (635, 71, 146)),
        labels=BINARY,
        metrics=("accuracy",),
        prediction_format=glue_table,
    ),
    Task(
        name="AX",
        benchmark="GLUE",
        folders=("glue/AX", "glue/diagnostic", "glue_ax"),
        segments=(Segment("test", "diagnostic.tsv", _sentences(), 1104, leaderboard_file="AX.tsv"),),
        labels=INFERENCE,
        metrics=("matthews",),
        prediction_format=glue_table,
        predicted_by="MNLI",
    ),
)
