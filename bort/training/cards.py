"""Cards of a model and of its data: Markdown for people, with the YAML that Hugging Face reads in front.

Notable: a card says what it is given and nothing else. A figure is measured, counted or set, and stands with what it means; what nobody
measured is listed as not known. Names and texts that a user chose cannot break a table, a code block or the YAML.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from bort.config import BortConfig
from bort.training.markdown import block, bullets, code, fact, facts_table, page, rounded, settings_table, table

_TIED = "decoder.3.weight"
_HEAD = "decoder."
_MEASURES = {
    "mlm_loss": "cross-entropy, nats per masked token; lower is better",
    "mlm_accuracy": "share of masked tokens predicted exactly; higher is better",
}
# What a description of data counts, and what of it is odd, in words.
_COUNTS = {
    "sequences": "sequences",
    "tokens": "tokens, special ones not counted",
    "sentences": "sentences",
    "documents": "documents",
    "text_bytes": "bytes of plain text",
    "num_source_files": "source files",
    "num_shards": "shards",
    "max_seq_length": "longest sequence, special tokens included",
    "vocab_size": "tokens of the vocabulary",
    "vocab_fingerprint": "fingerprint of the vocabulary, SHA-256",
    "fingerprint": "fingerprint of the data",
}
_ODD = {
    "undecodable_lines": "sentences with bytes that are not UTF-8, each replaced by U+FFFD",
    "lines_with_nul": "sentences with U+0000, which was kept",
    "long_lines": "lines so long that they were cut into several sentences",
    "skipped_lines": "lines of JSON so long that they were left out",
}
_FACTS = {
    "teacher": "teacher",
    "steps": "updates",
    "tokens": "tokens seen, padding not counted",
    "seconds": "seconds of training",
    "workers": "workers",
}
_SNIPPET = """\
from bort import Tokenizer, get_bort_model  # before mxnet: it restores what MXNet needs of NumPy
import mxnet as mx

folder = "."  # where this card is
net, vocab = get_bort_model(folder, vocab=folder)
tokenizer = Tokenizer.from_directory(folder)

ids = tokenizer.encode("The weather is")
input_ids = mx.nd.array([[vocab.bos_id, *ids, vocab.mask_id, vocab.eos_id]])
sequence, decoded = net(input_ids, masked_positions=mx.nd.array([[len(ids) + 1]]))
print(tokenizer.decode([int(decoded[0, 0].argmax(axis=0).asscalar())]))"""


def count_parameters(arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Numbers of parameters, ``all`` and of the ``encoder`` alone; the output projection is the word embedding and counts once.

    Args:
        arrays: under published names.
    """
    sizes = {name: array.size for name, array in arrays.items() if name != _TIED}
    return {"all": sum(sizes.values()), "encoder": sum(size for name, size in sizes.items() if not name.startswith(_HEAD))}


def model_card(config: BortConfig, settings: Mapping[str, Any], evaluation: Mapping[str, float], training: Mapping[str, Any]) -> str:
    """The ``README.md`` of a pre-trained model's folder.

    Args:
        config: sizes.
        settings: everything that decided the outcome, by the names of the command's options; ``model``, the sizes, is left out.
        evaluation: the last evaluation on held-out text; empty if there was none.
        training: facts of the run; what is not known is left out. ``parameters`` as :func:`count_parameters` gives them; ``teacher``, its
            name as the user gave it, None for none; ``command``, the words of it; ``steps``, ``tokens``, ``seconds``, ``workers``; ``data``
            and ``held_out``, descriptions as :func:`data_card` takes; ``machine`` and ``versions``, mappings. Other names get one row each.
    """
    teacher, data, held_out = (training.get(name) for name in ("teacher", "data", "held_out"))
    tags = ["bort", "mxnet", "masked-language-modeling", *(["knowledge-distillation"] if teacher else [])]
    front: dict[str, Any] = {"library_name": "bort", "pipeline_tag": "fill-mask", "tags": tags}
    if "mlm_accuracy" in evaluation:
        front["metrics"] = ["accuracy"]
    if evaluation:
        front["model-index"] = _model_index(evaluation)

    learnt = "masked language modelling" + (f" and distillation from {code(teacher)}" if teacher else ", without a teacher")
    sizes = {name: value for name, value in asdict(config).items() if name != "hidden_dropout_prob"}
    with_rows_of_their_own = ("parameters", "command", "data", "held_out", "machine", "versions")
    facts = {_FACTS.get(name, code(name)): value for name, value in training.items() if name not in with_rows_of_their_own}
    parts = [
        f"# Bort of {config.num_hidden_layers} layers, hidden size {config.hidden_size}",
        f"A post-LayerNorm encoder with learned positions and a masked-language-model head, trained by {learnt}. The run that trained it "
        "wrote this card: each figure was measured, counted or set there.",
        "## Loading",
        block(_SNIPPET, "python"),
        "## Sizes",
        settings_table("config.json", sizes),
    ]
    if "parameters" in training:
        parts.append("{all:,} parameters, {encoder:,} of them without the head.".format(**training["parameters"]))
    parts += [
        "## Held-out text",
        *(_evaluated(evaluation, held_out, training.get("steps")) if evaluation else ["It was not evaluated."]),
        "## Training",
    ]
    if "command" in training:
        parts.append(block(shlex.join(map(str, training["command"])), "bash"))
    if data:
        parts.append(f"It was trained on {_summary(data)}.")
    if facts:
        parts.append(facts_table("run", facts))
    parts.append(settings_table("setting", {name: value for name, value in settings.items() if name != "model"}))
    if "machine" in training or "versions" in training:
        parts += ["## Machine and versions", facts_table("", {**training.get("machine", {}), **training.get("versions", {})})]
    unknown = [
        *([] if evaluation else ["How well it predicts text that it has not seen."]),
        "What it is worth on any task after fine-tuning: nothing was measured here.",
        *(["How much of its teacher's ability it kept: the teacher was not evaluated beside it."] if teacher else []),
        *(["Whether held-out and training text overlap: they were not compared."] if evaluation else []),
        *([] if data else ["What text it was trained on."]),
        "Which biases, and which passages of its training text, it has learnt: this was not examined.",
        f"Its licence: that of the training text{' and of the teacher' if teacher else ''} has a say, and the run does not know it.",
    ]
    return page(front, [*parts, "## Not known", bullets(unknown)])


def data_card(description: Mapping[str, Any]) -> str:
    """The card of pre-training data.

    Args:
        description: what the data say of themselves; what is not there is left out. ``source_files``, name → bytes, or a list of ``path``
            and ``size``; ``settings``; ``sequences``, ``documents``, ``sentences``, ``tokens``, ``vocab_size``, ``vocab_fingerprint`` and
            the like; numbers of odd lines by kind. Mappings may nest. Other names get one row each.
    """
    facts = _flat({name: value for name, value in description.items() if name not in ("source_files", "settings")})
    front: dict[str, Any] = {"task_categories": ["fill-mask"], "tags": ["bort", "masked-language-modeling"]}
    if isinstance(facts.get("sequences"), int):
        front["size_categories"] = [_size_category(facts["sequences"])]
    odd = {words: facts.pop(name) for name, words in _ODD.items() if name in facts}
    counts = {words: facts.pop(name) for name, words in _COUNTS.items() if name in facts}
    parts = ["# Pre-training data", "Text as sequences of token ids, for masked language modelling."]
    if counts or facts:
        parts += ["## Contents", facts_table("", counts | {code(name): value for name, value in facts.items()})]
    files = _source_files(description)
    if files:
        parts += ["## Files", facts_table("file", {code(name): size for name, size in files.items()}, "bytes")]
    if description.get("num_source_files", 0) > len(files):
        parts.append(f"These are the first; {description['num_source_files'] - len(files):,} more are not listed.")
    if description.get("settings"):
        parts += ["## Settings", settings_table("setting", _flat(description["settings"]))]
    if odd:
        met = {words: number for words, number in odd.items() if number}
        parts += ["## Odd text", facts_table("", met, "count") if met else "None was met."]
    unknown = [
        "Who wrote the text, when, and in which languages.",
        "Under which licences it stands, and so whether the data, or a model trained on them, may be passed on.",
        "Whether it holds personal, offensive or false statements, or passages of a test set: it was not searched for any.",
        "How many of its documents are copies of each other: they were not compared.",
    ]
    return page(front, [*parts, "## Not known", bullets(unknown)])


def _model_index(evaluation: Mapping[str, float]) -> list[dict[str, Any]]:
    metrics = [{"type": name, "name": name, "value": rounded(value)} for name, value in evaluation.items()]
    task = {"type": "fill-mask", "name": "masked language modelling"}
    return [{"name": "bort", "results": [{"task": task, "dataset": {"name": "held-out text", "type": "text"}, "metrics": metrics}]}]


def _evaluated(evaluation: Mapping[str, float], held_out: Mapping[str, Any] | None, steps: int | None) -> list[str]:
    rows = [(code(name), str(rounded(value)), _MEASURES.get(name, "")) for name, value in evaluation.items()]
    on_what = f" on {_summary(held_out)}" if held_out else ""
    after = f"after {steps:,} updates" if steps is not None else "after training"
    how = f"Measured {after}{on_what}, once over all of it, with masks that the run's seed alone decides; no dropout."
    return [table(("measure", "value", "meaning"), rows), how]


def _summary(description: Mapping[str, Any]) -> str:
    """What a description counts, in half a sentence."""
    facts, files = _flat(description), _source_files(description)
    counted = [f"{fact(facts[name])} {name}" for name in ("documents", "sentences", "tokens", "sequences") if name in facts]
    number = facts.get("num_source_files", len(files))
    from_files = f" from {number:,} file{'s' if number > 1 else ''}" if number else ""
    return (", ".join(counted) or "text of unknown size") + from_files


def _source_files(description: Mapping[str, Any]) -> dict[str, Any]:
    """Name → bytes of the files that a description lists, be it as a mapping or as a list of paths and sizes."""
    files = description.get("source_files") or {}
    return dict(files) if isinstance(files, Mapping) else {file["path"]: file["size"] for file in files}


def _size_category(count: int) -> str:
    """Hugging Face's word for so many examples."""
    bounds = ("1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T")
    for power, (below, bound) in enumerate(zip(("", *bounds), bounds, strict=False), start=3):
        if count < 10**power:
            return f"{below}<n<{bound}" if below else f"n<{bound}"
    return f"n>{bounds[-1]}"


def _flat(mapping: Mapping[str, Any]) -> dict[str, Any]:
    """The values of nested mappings in one; of two with one name the outer counts."""
    flat: dict[str, Any] = {}
    for name, value in mapping.items():
        if isinstance(value, Mapping):
            flat = _flat(value) | flat
        else:
            flat[name] = value
    return flat
