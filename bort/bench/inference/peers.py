"""Models of Transformers with random weights, as a process that makes their files and the outputs that are right for their ids.

It is a process of its own, since PyTorch may not meet MXNet's libraries. What is written is what ``from_pretrained`` reads, and of
MobileBERT, whose layers are of a kind of its own, the ONNX graph that PyTorch's exporter makes; the graphs of all others are built as
Bort's is. Biases and norms are random too, so that none of them can be lost unseen.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from bort.bench.inference.cases import Batch, read_batches
from bort.bench.inference.models import EXPECTED_FILE, GRAPH_FILE, OWN_GRAPH
from bort.bench.inference.rows import PEERS, Peer

_OPSET = 20
# Only hidden states are asked for; DistilBERT has no pooler that could be left out.
_WITHOUT_POOLER = ("BertModel", "RobertaModel", "MobileBertModel")
transformers.utils.logging.disable_progress_bar()


def make_peer(folder: str, name: str, fields: dict[str, Any], cases: str, threads: int) -> None:
    """Draw a model and write its files.

    Args:
        folder: made.
        name: one of :data:`bort.bench.inference.rows.PEERS`.
        fields: of the configuration, in place of those that are published.
        cases: file of batches.
        threads: of PyTorch.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model = build_peer(name, fields).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.02 * torch.randn_like(parameter))
    path = Path(folder)
    model.save_pretrained(path)
    expected = {case: run(model, batch) for case, batch in read_batches(Path(cases)).items()}
    np.savez(path / EXPECTED_FILE, **expected)
    if name == OWN_GRAPH:
        _export(model, path / GRAPH_FILE)


def build_peer(name: str, fields: Mapping[str, Any] | None = None) -> torch.nn.Module:
    """A model with weights as Transformers draws them; ``fields`` of its configuration stand in place of those that are published."""
    peer = PEERS[name]
    model: torch.nn.Module = _named(peer)(_named(peer, "Config")(**(dict(peer.fields) | dict(fields or {}))), **_options(peer))
    return model


def load_peer(folder: Path, name: str, threads: int) -> torch.nn.Module:
    """The model as users load it, in evaluation mode, with Transformers' default attention."""
    torch.set_num_threads(threads)
    peer = PEERS[name]
    model: torch.nn.Module = _named(peer).from_pretrained(folder, **_options(peer))
    return model.eval()


def run(model: torch.nn.Module, batch: Batch) -> NDArray[np.float32]:
    """Hidden states (B, T, hidden_size), or logits (B, classes) of a classifier."""
    with torch.inference_mode():
        outputs = model(**{name: torch.from_numpy(ids) for name, ids in batch.items()})
    found: NDArray[np.float32] = outputs[0].numpy()
    return found


def _named(peer: Peer, part: str | None = None) -> Any:
    """A class of Transformers: the model's own, or its configuration's."""
    stem = peer.architecture.removesuffix("Model").removesuffix("ForSequenceClassification")
    return getattr(transformers, peer.architecture if part is None else stem + part)


def _options(peer: Peer) -> dict[str, Any]:
    return {"add_pooling_layer": False} if peer.architecture in _WITHOUT_POOLER else {}


class _HiddenStates(torch.nn.Module):
    """The model with one output, as the exporter takes it."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.model(input_ids=input_ids, attention_mask=attention_mask)[0]
        return hidden


def _export(model: torch.nn.Module, path: Path) -> None:
    """By the exporter that traces, since the one that does not needs another library."""
    ids = torch.full((2, 16), 7)
    names = ["input_ids", "attention_mask"]
    with warnings.catch_warnings():
        # Of being the older one, and of values that tracing takes for constants: whether it may is verified by outputs of other shapes.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _HiddenStates(model),
            (ids, torch.ones_like(ids)),
            str(path),
            input_names=names,
            output_names=["last_hidden_state"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in [*names, "last_hidden_state"]},
            opset_version=_OPSET,
            dynamo=False,
        )
