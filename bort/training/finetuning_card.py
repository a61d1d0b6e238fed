"""The card of a fine-tuned classifier: Markdown for people, with the YAML that Hugging Face reads in front.

Like the cards of pre-training, it says what it is given and nothing else; scores stand beside those of the majority class.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bort.config import BortConfig
from bort.tasks import Task
from bort.training.markdown import block, bullets, code, facts_table, page, rounded, settings_table, table

_FACTS = {
    "train_rows": "training rows",
    "encoder": "encoder it started from",
    "best_epoch": "epoch that was kept",
    "epochs": "epochs trained",
    "steps": "updates",
    "workers": "workers",
    "seconds": "seconds of training",
    "parameters": "parameters",
}
_PYTHON = """\
from pathlib import Path

from bort.cli import main

folder = Path(".")  # where this card is
Path("rows.tsv").write_text({rows!r})
main(["predict", "--checkpoint", str(folder), "--input", "rows.tsv", "--output", "labels.tsv"])
print(Path("labels.tsv").read_text())"""


def finetuning_card(
    config: BortConfig, task: Task, settings: Mapping[str, Any], result: Mapping[str, Any], facts: Mapping[str, Any]
) -> str:
    """The ``README.md`` of a fine-tuned classifier's folder.

    Args:
        config: sizes of the encoder.
        task: what it labels.
        settings: everything that decided the outcome, by the names of the command's options.
        result: ``dev`` and ``majority``, metrics by segment; ``score``; and counts such as ``best_epoch``, ``steps``, ``train_rows``.
        facts: of the run; what is not known is left out. ``command``, the words of it; ``encoder``, what it started from; ``workers``;
            ``machine`` and ``versions``, mappings.
    """
    metrics = [
        {"type": name, "name": f"{name} ({segment})", "value": rounded(value)}
        for segment, values in result["dev"].items()
        for name, value in values.items()
    ]
    kind = {"type": "text-classification", "name": task.name}
    results = [
        {"task": kind, "dataset": {"name": f"{task.benchmark} {task.name}, dev", "type": task.benchmark.lower()}, "metrics": metrics}
    ]
    front: dict[str, Any] = {
        "library_name": "bort",
        "pipeline_tag": "text-classification",
        "tags": ["bort", "mxnet", task.name],
        "model-index": [{"name": f"bort-{task.name}", "results": results}],
    }
    known = {**{name: result[name] for name in _FACTS if name in result}, **{name: facts[name] for name in _FACTS if name in facts}}
    labels = "a score" if task.labels is None else ", ".join(code(label) for label in task.leaderboard_labels)
    texts = "two texts, in this order," if task.is_pair else "one text"
    example = "\t".join(["One text.", "Another text."][: 1 + task.is_pair]) + "\n"
    parts = [
        f"# Bort for {task.benchmark}'s {task.name}",
        f"A Bort of {config.num_hidden_layers} layers and hidden size {config.hidden_size}, fine-tuned on {task.name}. It takes {texts} "
        f"and answers {labels}. The run that trained it wrote this card: each figure was measured, counted or set there.",
        "## Labelling rows",
        block("bort predict --checkpoint . --input rows.tsv", "bash"),
        "or from Python:",
        block(_PYTHON.format(rows=example), "python"),
        "## Development set",
        table(
            ("segment", "metric", "score", "majority class"),
            [
                (code(segment), code(name), str(rounded(value)), str(rounded(result["majority"][segment][name])))
                for segment, values in result["dev"].items()
                for name, value in values.items()
            ],
        ),
        f"Its own score, the mean over metrics and then segments, is {rounded(result['score'])}. The epoch was chosen by it on these very "
        "rows, so it is a little too good; one run says nothing of the spread between seeds (`bort finetune --seeds` does).",
        "## Training",
    ]
    if "command" in facts:
        parts.append(block(shlex.join(map(str, facts["command"])), "bash"))
    if known:
        parts.append(facts_table("run", {_FACTS[name]: value for name, value in known.items()}))
    parts.append(settings_table("setting", dict(settings)))
    if "machine" in facts or "versions" in facts:
        parts += ["## Machine and versions", facts_table("", {**facts.get("machine", {}), **facts.get("versions", {})})]
    unknown = [
        "Its score on the test set: the leaderboard has those labels.",
        f"How well it does on rows that are unlike those of {task.name}.",
        "Which shortcuts of the training rows it uses, and which biases it has taken from them or its encoder: this was not examined.",
        "Its licence: that of the rows and of the encoder's text have a say, and the run does not know them.",
    ]
    return page(front, [*parts, "## Not known", bullets(unknown)])
