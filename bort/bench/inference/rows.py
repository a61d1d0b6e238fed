"""What is measured: Bort and models of published shapes, each as so many runtimes and precisions run it.

Notable: a row does the same work as every other, from ids to the hidden states of all positions. Two rows are apart: classifiers as they
are deployed, where Bort's graph computes its last layer for the first token alone and its peer, from Transformers, for all of them.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bort.errors import BortError

BORT, BORT_CLASSIFIER = "bort", "bort-classifier"
BASE, LARGE, BASE_CLASSIFIER = "bert-base", "bert-large", "bert-base-classifier"
CLASSES = 2


@dataclass(frozen=True)
class Peer:
    """A model of Transformers.

    Attributes:
        architecture: class of Transformers; what precedes ``Model`` or ``For`` in it has a configuration class of its own.
        fields: of that configuration; the others are the library's defaults, which for each class are the published shape.
        tokenizer: what its kind of model cuts text with: wordpiece or bpe.
    """

    architecture: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    tokenizer: str = "wordpiece"

    @property
    def is_classifier(self) -> bool:
        """Whether its output is logits and not hidden states."""
        return self.architecture.endswith("Classification")


def _bert(hidden_size: int, intermediate_size: int, num_attention_heads: int, num_hidden_layers: int) -> dict[str, int]:
    return {
        "hidden_size": hidden_size,
        "intermediate_size": intermediate_size,
        "num_attention_heads": num_attention_heads,
        "num_hidden_layers": num_hidden_layers,
    }


_ROBERTA = {"vocab_size": 50265, "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5}
PEERS: dict[str, Peer] = {
    BASE: Peer("BertModel"),
    LARGE: Peer("BertModel", _bert(1024, 4096, 16, 24)),
    "roberta-large": Peer("RobertaModel", _ROBERTA | _bert(1024, 4096, 16, 24), "bpe"),
    "distilbert": Peer("DistilBertModel"),
    "mobilebert": Peer("MobileBertModel"),
    "tinybert-4l": Peer("BertModel", _bert(312, 1200, 12, 4)),
    "minilm-l6": Peer("BertModel", _bert(384, 1536, 12, 6)),
    BASE_CLASSIFIER: Peer("BertForSequenceClassification", {"num_labels": CLASSES}),
}
"""Published shapes by name: BERT (Devlin et al. 2019), RoBERTa (Liu et al. 2019), DistilBERT (Sanh et al. 2019), MobileBERT (Sun et al.
2020), TinyBERT (Jiao et al. 2020), and MiniLM's layers of 384 (Wang et al. 2020) in the six-layer form that is in most use."""


@dataclass(frozen=True)
class Row:
    """One way to run one model.

    Attributes:
        model: Bort, or a name of :data:`PEERS`.
        runtime: gluon, torch, onnxruntime or openvino.
        precision: fp32, bf16 or int8; INT8 is dynamic in ONNX Runtime and calibrated in OpenVINO.
    """

    model: str
    runtime: str
    precision: str

    def __str__(self) -> str:
        return f"{self.model}/{self.runtime}/{self.precision}"

    @property
    def is_classifier(self) -> bool:
        """Whether it is one of the two rows that are apart."""
        return self.model in (BORT_CLASSIFIER, BASE_CLASSIFIER)

    @property
    def reference(self) -> str:
        """The runtime whose outputs are right for its model."""
        return "torch" if self.model in PEERS else "gluon"


_RUNTIMES_OF_PEERS = (("torch", "fp32"), ("onnxruntime", "fp32"), ("onnxruntime", "int8"))
ROWS: tuple[Row, ...] = (
    Row(BORT, "gluon", "fp32"),
    Row(BORT, "onnxruntime", "fp32"),
    Row(BORT, "onnxruntime", "int8"),
    Row(BORT, "openvino", "fp32"),
    Row(BORT, "openvino", "bf16"),
    Row(BORT, "openvino", "int8"),
    *(Row(name, *how) for name, peer in PEERS.items() if not peer.is_classifier for how in _RUNTIMES_OF_PEERS),
    # What the same runtime makes of the most cited peer.
    Row(BASE, "openvino", "fp32"),
    Row(BASE, "openvino", "int8"),
    Row(BORT_CLASSIFIER, "openvino", "int8"),
    Row(BASE_CLASSIFIER, "torch", "fp32"),
)


def choose_rows(patterns: Sequence[str]) -> list[Row]:
    """The rows whose names match any of these shell patterns, in the order of :data:`ROWS`.

    Raises:
        BortError: if a pattern matches none.
    """
    names = [str(row) for row in ROWS]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise BortError(f"no row is called {pattern}; there are {', '.join(names)}, and patterns such as 'bort/*'")
    return [row for row in ROWS if any(fnmatch.fnmatchcase(str(row), pattern) for pattern in patterns)]
