"""The rows by name, and that the peers have the published sizes."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys

import pytest

from bort import BortError
from bort.bench.inference.rows import PEERS, ROWS, Row, choose_rows

HAS_TRANSFORMERS = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
# Millions, without pooler: papers and model cards.
PUBLISHED = {
    "bert-base": 109,
    "bert-large": 334,
    "roberta-large": 354,
    "distilbert": 66,
    "mobilebert": 25,
    "tinybert-4l": 14,
    "minilm-l6": 23,
}
COUNT = """
import json, torch
from bort.bench.inference.peers import build_peer
from bort.bench.inference.rows import PEERS
counts = {}
with torch.device("meta"):
    for name in PEERS:
        counts[name] = sum(parameter.numel() for parameter in build_peer(name).parameters())
print(json.dumps(counts))
"""


@pytest.mark.skipif(not HAS_TRANSFORMERS, reason="needs PyTorch and Transformers, which are an extra: pip install .[peers]")
def test_peers_have_the_published_number_of_parameters():
    result = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    counts = json.loads(result.stdout)
    assert counts.keys() == PEERS.keys()
    assert {name: round(counts[name] / 1e6) for name in PUBLISHED} == pytest.approx(PUBLISHED, abs=1)
    # The classifier is the encoder with its pooler and two outputs.
    assert counts["bert-base-classifier"] - counts["bert-base"] == 768 * 768 + 768 + 2 * 768 + 2


def test_every_model_is_there_in_every_runtime_that_was_asked_for():
    names = {str(row) for row in ROWS}
    assert len(names) == len(ROWS)
    assert {"bort/gluon/fp32", "bort/onnxruntime/fp32", "bort/onnxruntime/int8"} <= names
    assert {"bort/openvino/fp32", "bort/openvino/bf16", "bort/openvino/int8"} <= names
    for name in PUBLISHED:
        assert {f"{name}/torch/fp32", f"{name}/onnxruntime/fp32", f"{name}/onnxruntime/int8"} <= names


def test_patterns_choose_rows_in_their_order():
    assert choose_rows(["bert-base/torch/*", "bort/o*/fp32"]) == [
        Row("bort", "onnxruntime", "fp32"),
        Row("bort", "openvino", "fp32"),
        Row("bert-base", "torch", "fp32"),
    ]
    assert choose_rows(["*"]) == list(ROWS)


def test_a_pattern_without_a_row_is_refused():
    with pytest.raises(BortError, match="no row is called bert-huge/torch/fp32; there are bort/gluon/fp32"):
        choose_rows(["bort/*", "bert-huge/torch/fp32"])
