"""Files of the models that are measured: Bort's own from Gluon, and of Bort and its peers the ONNX graphs and their INT8 forms.

Each function runs in a process of its own (:func:`bort.bench.processes.measure`), since what makes one form may not meet what makes
another, and leaves nothing in memory. All that is made of a model lies in one folder, its right outputs among it: Gluon's for Bort,
PyTorch's for the peers.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.bench.inference.cases import read_batches
from bort.bench.inference.rows import BORT_CLASSIFIER, CLASSES, PEERS, Row
from bort.config import BortConfig
from bort.hugging_face_names import from_hugging_face
from bort.machine import cpu_flags, has_vnni
from bort.model_directory import find_model
from bort.parameters import read_parameters, write_parameters

CONFIG_FILE, EXPECTED_FILE = "config.json", "expected.npz"
GLUON_FILE, TORCH_FILE = "bort.params", "model.safetensors"
GRAPH_FILE, INT8_GRAPH_FILE, INT8_IR_FILE = "model.onnx", "model_int8.onnx", "openvino_model.xml"
OWN_GRAPH = "mobilebert"
"""The peer whose graph PyTorch's exporter makes."""
_CALIBRATION_ROWS, _CALIBRATION_LENGTHS = 32, (8, 128)
_DISTILBERT_EPSILON = 1e-12
_TOKEN_TYPES = "embeddings.token_type_embeddings.weight"
_DISTILBERT_FIELDS = {
    "dim": "hidden_size",
    "hidden_dim": "intermediate_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "max_position_embeddings": "max_position_embeddings",
    "vocab_size": "vocab_size",
}
_DISTILBERT_NAMES = {
    "transformer.layer": "encoder.layer",
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}


def files_of(row: Row, folder: Path) -> list[Path]:
    """What a row loads from its model's folder; the first is what a runtime opens."""
    match row.runtime, row.precision:
        case "gluon", _:
            return [folder / GLUON_FILE]
        case "torch", _:
            return [folder / TORCH_FILE]
        case "openvino", "int8":
            return [folder / INT8_IR_FILE, (folder / INT8_IR_FILE).with_suffix(".bin")]
        case "onnxruntime", "int8":
            return [folder / INT8_GRAPH_FILE]
    return [folder / GRAPH_FILE]


def make_bort(folder: str, model: str, name: str, cases: str) -> None:
    """Write Bort's parameters and the outputs that Gluon has for them.

    Args:
        folder: made.
        model: an architecture, a ``config.json``, or a model folder, whose weights are taken; others are random, biases and norms too.
        name: Bort's among the rows, of the encoder or of the classifier.
        cases: file of batches.

    Raises:
        BortError: if the model is none of these, or damaged.
    """
    from bort.bench.inference.runners import open_gluon
    from bort.gluon.model import get_bort_model
    from bort.gluon.parameters import get_arrays

    source = find_model(model)
    net, _ = get_bort_model(model, use_decoder=False)
    arrays, random = get_arrays(net), np.random.default_rng(0)
    if source.parameters is None:
        arrays = {key: array if array.ndim > 1 else array + _draw(random, array.shape) for key, array in arrays.items()}
    if name == BORT_CLASSIFIER:
        size = source.config.hidden_size
        shapes = {"1.weight": (size, size), "1.bias": (size,), "3.weight": (CLASSES, size), "3.bias": (CLASSES,)}
        head = {f"classifier.{key}": _draw(random, shape) for key, shape in shapes.items()}
        arrays = {f"bort.{key}": array for key, array in arrays.items()} | head
    path = Path(folder)
    path.mkdir(parents=True)
    (path / CONFIG_FILE).write_text(json.dumps(source.config.to_dict()), encoding="utf-8")
    write_parameters(path / GLUON_FILE, arrays)
    run = open_gluon(path, name == BORT_CLASSIFIER)
    np.savez(path / EXPECTED_FILE, **{case: run(batch) for case, batch in read_batches(Path(cases)).items()})


def make_graph(folder: str, name: str) -> None:
    """Write the ONNX graph in float32."""
    if name != OWN_GRAPH:
        _write_graph(Path(folder), name, Path(folder, GRAPH_FILE), int8_embeddings=False)


def make_dynamic_int8(folder: str, name: str) -> None:
    """Write the graph with INT8 weights for ONNX Runtime, which quantises what it multiplies them with as it runs.

    Raises:
        BortError: if ONNX Runtime is not installed.
    """
    from bort.export.int8_dynamic import quantize_dynamic

    with _graph_to_quantise(Path(folder), name) as graph:
        quantize_dynamic(graph, Path(folder, INT8_GRAPH_FILE), not has_vnni(cpu_flags()))


def make_static_int8(folder: str, name: str, vocab_size: int, longest: int) -> None:
    """Write the graph in INT8 for OpenVINO, calibrated on rows of random ids and lengths.

    Raises:
        BortError: if OpenVINO or NNCF is not installed.
    """
    from bort.export.int8_static import StaticRecipe, quantize_static

    random = np.random.default_rng(0)
    shortest, most = _CALIBRATION_LENGTHS
    rows = []
    for length in random.integers(shortest, min(most, longest) + 1, _CALIBRATION_ROWS).tolist():
        ids = random.integers(5, vocab_size, (1, length))
        rows.append({"input_ids": ids, "attention_mask": np.ones_like(ids)})
    with _graph_to_quantise(Path(folder), name) as graph:
        quantize_static(graph, Path(folder, INT8_IR_FILE), rows, StaticRecipe(attention=True), not has_vnni(cpu_flags()))


@contextmanager
def _graph_to_quantise(path: Path, name: str) -> Iterator[Path]:
    """A graph whose word embeddings are INT8 already, as exported INT8 models have them; of MobileBERT its own, with float32 embeddings."""
    if name == OWN_GRAPH:
        yield path / GRAPH_FILE
        return
    with tempfile.TemporaryDirectory(prefix="bort_bench_") as scratch:
        _write_graph(path, name, Path(scratch, GRAPH_FILE), int8_embeddings=True)
        yield Path(scratch, GRAPH_FILE)


def _write_graph(path: Path, name: str, target: Path, int8_embeddings: bool) -> None:
    import onnx

    from bort.export.onnx_graph import build_graph

    if name in PEERS:
        config, arrays = _published(path)
    else:
        config, arrays = BortConfig.from_json(path / CONFIG_FILE), read_parameters(path / GLUON_FILE)
    onnx.save(build_graph(config, arrays, int8_embeddings=int8_embeddings), target)


def _draw(random: np.random.Generator, shape: tuple[int, ...]) -> NDArray[np.float32]:
    return np.float32(0.02) * random.standard_normal(shape, dtype=np.float32)


def _published(path: Path) -> tuple[BortConfig, dict[str, np.ndarray]]:
    """Configuration and parameters of a peer of BERT's or RoBERTa's kind, under published names; DistilBERT is a BERT by other names."""
    fields = json.loads((path / CONFIG_FILE).read_text(encoding="utf-8"))
    arrays = read_parameters(path / TORCH_FILE)
    kind = fields["model_type"]
    if kind == "distilbert":
        kind = "bert"
        fields = {"layer_norm_eps": _DISTILBERT_EPSILON} | {ours: fields[theirs] for theirs, ours in _DISTILBERT_FIELDS.items()}
        for theirs, ours in _DISTILBERT_NAMES.items():
            arrays = {name.replace(theirs, ours): array for name, array in arrays.items()}
        arrays[_TOKEN_TYPES] = np.zeros((1, fields["hidden_size"]), dtype=np.float32)
    return BortConfig.from_dict(fields), from_hugging_face({f"{kind}.{name}": array for name, array in arrays.items()})
