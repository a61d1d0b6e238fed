"""Cards: their YAML and tables parse whatever is in them, every figure comes from their inputs, and what they say can be run."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys

import numpy as np
import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bort import BortConfig, get_bort_model
from bort.gluon.parameters import get_arrays, named_parameters
from bort.model_directory import write_model_directory
from bort.training.cards import count_parameters, data_card, model_card

CONFIG = BortConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=7, num_attention_heads=6, max_position_embeddings=96)
SETTINGS = {"lr": 3e-4, "num_steps": 12345, "seed": 17, "kd_loss": "hinton", "whole_word_mask": False, "teacher_parameters": None}
EVALUATION = {"mlm_loss": 3.87654321, "mlm_accuracy": 0.23456789, "masked_tokens": 4321.0}
DATA = {
    "source_files": {"corpus/one.txt": 90210, "corpus/two.txt": 777},
    "settings": {"max_seq_length": 88, "short_seq_prob": 0.15},
    "vocab_fingerprint": "ab" * 32,
    "vocab_size": 50265,
    "counts": {"documents": 31, "sentences": 415, "tokens": 926535, "sequences": 8979},
    "odd_lines": {"undecodable_lines": 3, "long_lines": 0},
}
HELD_OUT = {
    "source_files": [{"path": "corpus/three.txt", "size": 662}],
    "num_source_files": 1,
    "documents": 29,
    "sequences": 5772,
    "undecodable_lines": 0,
}
TRAINING = {
    "parameters": {"all": 1618033, "encoder": 1414213},
    "teacher": "runs/teacher/model",
    "command": ["bort", "pretrain", "--data", "my shards", "--lr", "3e-4"],
    "steps": 12345,
    "tokens": 57721566,
    "seconds": 49.015,
    "workers": 13,
    "data": DATA,
    "held_out": HELD_OUT,
    "machine": {"cpu": "A 6502", "cores": 11, "memory_gb": 25.3, "cpu_flags": ["avx2", "amx_int8"]},
    "versions": {"bort": "0.1.0", "mxnet": "1.9.1"},
}


def front(card):
    _, block, _ = card.split("---\n", 2)
    return yaml.safe_load(block)


def tables(card):
    """Cells of every table as a Markdown parser sees them: table → row → text."""
    found, row = [], []
    body = card.split("---\n", 2)[2]
    for token in MarkdownIt("commonmark").enable("table").parse(body):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            row = []
            found[-1].append(row)
        elif token.type == "inline" and token.level > 3:
            row.append("".join(child.content for child in token.children))
    return found


def section(card, heading):
    return card.split(f"## {heading}\n")[1].split("\n## ")[0]


def numbers(text):
    """Numbers that stand alone, without separators of thousands; those in a model's loading code are not figures."""
    text = re.sub(r"```python.*?```", "", text, flags=re.DOTALL)
    return {float(number.replace(",", "")) for number in re.findall(r"(?<![\w.-])\d[\d,]*(?:\.\d+)?(?:e-?\d+)?(?![\w.])", text)}


def given_numbers(value):
    if isinstance(value, dict):
        return {number for item in value.items() for inner in item for number in given_numbers(inner)}
    if isinstance(value, list | tuple):
        return {number for inner in value for number in given_numbers(inner)}
    if isinstance(value, bool) or value is None:
        return set()
    return numbers(value) if isinstance(value, str) else {float(value)}


def test_every_figure_is_given_or_counted():
    inputs = [CONFIG.to_dict(), SETTINGS, EVALUATION, TRAINING]
    shown = numbers(model_card(CONFIG, SETTINGS, EVALUATION, TRAINING))
    counted = {1.0, 2.0}  # source files
    known = given_numbers(inputs) | {round(value, 4) for value in EVALUATION.values()} | counted
    assert shown <= known, shown - known
    # And the other way round: everything given is said somewhere.
    assert {3e-4, 12345, 17, 3.8765, 0.2346, 4321, 1618033, 1414213, 57721566, 49.015, 13, 926535, 5772, 11, 25.3} <= shown
    categories = {1.0, 10.0}
    assert numbers(data_card(DATA)) <= given_numbers(DATA) | {256.0} | categories
    assert {90210, 777, 88, 0.15, 50265, 31, 415, 926535, 8979, 3} <= numbers(data_card(DATA))


def test_the_front_matter_is_what_hugging_face_reads():
    fields = front(model_card(CONFIG, SETTINGS, EVALUATION, TRAINING))
    assert fields["library_name"] == "bort"
    assert fields["pipeline_tag"] == "fill-mask"
    assert fields["metrics"] == ["accuracy"]
    assert "knowledge-distillation" in fields["tags"]
    (result,) = fields["model-index"][0]["results"]
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == {
        "mlm_loss": 3.8765,
        "mlm_accuracy": 0.2346,
        "masked_tokens": 4321.0,
    }
    for invented in ("license", "language", "datasets", "base_model"):
        assert invented not in fields


def test_what_was_not_measured_is_not_claimed():
    card = model_card(CONFIG, SETTINGS, {}, {"teacher": None})
    fields = front(card)
    assert "model-index" not in fields
    assert "metrics" not in fields
    assert "knowledge-distillation" not in fields["tags"]
    assert "without a teacher" in card
    assert "It was not evaluated." in section(card, "Held-out text")
    unknown = section(card, "Not known")
    assert "How well it predicts text that it has not seen." in unknown
    assert "What text it was trained on." in unknown
    with_all = section(model_card(CONFIG, SETTINGS, EVALUATION, TRAINING), "Not known")
    assert "How well it predicts" not in with_all
    assert "What text it was trained on" not in with_all
    assert "the teacher was not evaluated beside it" in with_all


@pytest.mark.parametrize(
    ("sequences", "category"),
    [(1, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (123_456, "100K<n<1M"), (10**9, "1B<n<10B"), (10**12, "n>1T")],
)
def test_the_size_of_data_is_named_as_hugging_face_does(sequences, category):
    assert front(data_card({"sequences": sequences}))["size_categories"] == [category]


def test_odd_text_is_said_with_its_number_or_to_be_absent():
    assert "3 |" in section(data_card(DATA), "Odd text")
    assert section(data_card(HELD_OUT), "Odd text").strip() == "None was met."
    assert "## Odd text" not in data_card({"sequences": 4})


def test_files_that_are_not_listed_are_counted():
    card = data_card(HELD_OUT | {"num_source_files": 20_001})
    assert ["corpus/three.txt", "662"] in tables(card)[1]
    assert "These are the first; 20,000 more are not listed." in card
    assert "not listed" not in data_card(HELD_OUT)
    assert "5,772 sequences from 1 file," in model_card(CONFIG, SETTINGS, EVALUATION, TRAINING)


def test_facts_by_other_names_are_kept():
    assert ["warm_starts", "41"] in [row for table in tables(model_card(CONFIG, SETTINGS, {}, {"warm_starts": 41})) for row in table]
    assert ["corpus", "c0ffee"] in [row for table in tables(data_card({"corpus": "c0ffee"})) for row in table]


odd_text = st.text(st.sampled_from("a|`\n\r\t\\<>&*_#-:'\"{}[]é ") | st.characters(codec="utf-8"), max_size=20)


def shown(text):
    """What a reader should see of it on one line."""
    return " ".join(text.split()).replace("\0", "\ufffd") or "(nothing)"


@settings(derandomize=True, deadline=None, max_examples=100)
@given(name=odd_text.filter(lambda name: name != "b.txt"), other=odd_text, number=st.integers(0, 10**9))
@example(name="`x", other="x``", number=3)
@example(name="a\n| b |\n# c", other="\\", number=3)
def test_odd_names_are_shown_and_break_nothing(name, other, number):
    description = {"source_files": {name: number, "b.txt": 2}, "settings": {other: name}, "sequences": number, "from": other}
    card = data_card(description)
    assert front(card)["tags"] == ["bort", "masked-language-modeling"]
    assert tables(card) == [
        [["", ""], ["sequences", f"{number:,}"], ["from", shown(other)]],
        [["file", "bytes"], [shown(name), f"{number:,}"], ["b.txt", "2"]],
        [["setting", "value"], [shown(other), shown(name)]],
    ]
    training = {"teacher": "t" + name, "command": ["bort", name], "data": description, "versions": {"x": other}, "machine": {"cpu": name}}
    card = model_card(CONFIG, {"kd_loss": other, "x": name}, {"mlm_loss": 2.5, "odd": 1.0}, training)
    assert front(card)["pipeline_tag"] == "fill-mask"
    sizes, measured, facts, chosen, machine = tables(card)
    assert (len(sizes), len(measured)) == (1 + 8, 1 + 2)
    assert facts == [["run", ""], ["teacher", shown("t" + name)]]
    assert chosen == [["setting", "value"], ["kd_loss", shown(other)], ["x", shown(name)]]
    assert machine == [["", ""], ["cpu", shown(name)], ["x", shown(other)]]
    headings = ["Loading", "Sizes", "Held-out text", "Training", "Machine and versions", "Not known"]
    tokens = MarkdownIt("commonmark").enable("table").parse(card.split("---\n", 2)[2])
    assert [text.content for tag, text in itertools.pairwise(tokens) if tag.type == "heading_open"][1:] == headings


def test_a_command_of_many_lines_and_fences_stays_a_block():
    card = model_card(CONFIG, SETTINGS, {}, {"command": ["bort", "a\n```\n# b", "c"]})
    blocks = [token.content for token in MarkdownIt("commonmark").parse(card) if token.type == "fence"]
    assert "bort 'a\n```\n# b' c\n" in blocks


def test_parameters_are_counted_from_the_arrays():
    net, _ = get_bort_model(BortConfig(hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6, vocab_size=400))
    distinct = {id(parameter): parameter for parameter in named_parameters(net).values()}
    head = 24 * 24 + 24 + 24 + 24 + 400  # dense layer, LayerNorm, bias of the output
    total = sum(int(np.prod(parameter.shape)) for parameter in distinct.values())
    assert count_parameters(get_arrays(net)) == {"all": total, "encoder": total - head}


def test_the_loading_code_runs_beside_the_card(tmp_path, tokenizer):
    config = BortConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=1, num_attention_heads=6, max_position_embeddings=64, vocab_size=400
    )
    arrays = get_arrays(get_bort_model(config, seed=2)[0])
    card = model_card(config, SETTINGS, {}, TRAINING)
    write_model_directory(tmp_path / "model", config, arrays, tokenizer, texts={"README.md": card})
    written = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert written == card
    (code,) = re.findall(r"```python\n(.*?)```", written, flags=re.DOTALL)
    check = "\nimport json; print(json.dumps([list(sequence.shape), list(decoded.shape), len(vocab)]))"
    result = subprocess.run([sys.executable, "-c", code + check], cwd=tmp_path / "model", capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    length = len(tokenizer.encode("The weather is")) + 3
    assert json.loads(result.stdout.splitlines()[-1]) == [[1, length, 24], [1, 1, 400], 400]
