"""Dynamic INT8: what becomes INT8, in how many bits, that ONNX Runtime runs it, and that nothing is printed on the way."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from bort.config import BortConfig

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from bort.export.int8_dynamic import quantize_dynamic  # noqa: E402 (after what may skip the module)
from bort.export.onnx_graph import _encoder_shapes, build_graph  # noqa: E402
from bort.export.runtimes import open_session  # noqa: E402

CONFIG = BortConfig(64, 96, 2, 4, 40, 150)
CLASSES = 3
KINDS = ("encoder", "mlm", "classifier")


def random_parameters(kind, config=CONFIG, seed=0):
    """Parameters under published names, far from a fresh model's, so that rows differ in what comes out."""
    random, size = np.random.default_rng(seed), config.hidden_size
    shapes = dict(_encoder_shapes(config))
    if kind == "mlm":
        shapes |= {"decoder.0.weight": (size, size), "decoder.0.bias": (size,), "decoder.2.gamma": (size,), "decoder.2.beta": (size,)}
        shapes |= {"decoder.3.weight": (config.vocab_size, size), "decoder.3.bias": (config.vocab_size,)}
    if kind == "classifier":
        shapes = {f"bort.{name}": shape for name, shape in shapes.items()}
        shapes |= {"classifier.1.weight": (size, size), "classifier.1.bias": (size,)}
        shapes |= {"classifier.3.weight": (CLASSES, size), "classifier.3.bias": (CLASSES,)}
    scale = 1.5 / np.sqrt(size)
    return {
        name: ((scale if len(shape) > 1 else 0.2) * random.standard_normal(shape) + name.endswith("gamma")).astype(np.float32)
        for name, shape in shapes.items()
    }


def random_rows(kind, lengths, config=CONFIG, seed=1):
    """Inputs of one row each, of these lengths."""
    random = np.random.default_rng(seed)
    rows = []
    for length in lengths:
        row = {"input_ids": random.integers(0, config.vocab_size, (1, length)), "attention_mask": np.ones((1, length), dtype=np.int64)}
        rows.append(row | ({"masked_positions": random.integers(0, length, (1, 3))} if kind == "mlm" else {}))
    return rows


def write_graph(folder, kind, int8_embeddings=False, seed=0):
    path = folder / "graph.onnx"
    onnx.save(build_graph(CONFIG, random_parameters(kind, seed=seed), int8_embeddings=int8_embeddings), path)
    return path


def outputs(model, rows, precision=None):
    """All outputs of all rows, one after the other."""
    session = open_session(model, precision=precision)
    return np.concatenate([values.ravel() for row in rows for _, values in sorted(session.run(row).items())])


def relative_error(found, expected):
    return float(np.sqrt(((found - expected) ** 2).mean() / expected.var()))


def matrices(model):
    """Of each product with a constant: its constant, by the product's name; of one that is quantised the levels."""
    graph = onnx.load(model).graph
    constants = {constant.name: onnx.numpy_helper.to_array(constant) for constant in graph.initializer}
    return {
        node.name.removesuffix("_quant"): constants[node.input[1]]
        for node in graph.node
        if node.op_type in ("MatMul", "MatMulInteger") and node.input[1] in constants
    }


@pytest.mark.parametrize("reduced_range", [False, True], ids=["full", "reduced"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_matrix_but_the_deciding_one_becomes_int8(tmp_path, kind, reduced_range):
    graph = write_graph(tmp_path, kind)
    quantize_dynamic(graph, tmp_path / "int8.onnx", reduced_range)
    before, after = matrices(graph), matrices(tmp_path / "int8.onnx")
    assert after.keys() == before.keys()
    left_alone = {name for name, matrix in after.items() if matrix.dtype != np.int8}
    assert left_alone == ({"classifier.3/product"} if kind == "classifier" else set())
    largest = 64 if reduced_range else 127
    for name, matrix in after.items():
        assert matrix.shape == before[name].shape
        if matrix.dtype == np.int8:
            # Every column uses its range, and none goes beyond it.
            reached = np.abs(matrix.astype(int)).max(axis=tuple(range(matrix.ndim - 1)))
            assert set(reached.tolist()) <= {largest - 1, largest}
    rows = random_rows(kind, [1, 2, 9, 40, 17])
    error = relative_error(outputs(tmp_path / "int8.onnx", rows), outputs(graph, rows))
    assert 0 < error < (0.2 if reduced_range else 0.1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.onnx", "int8.onnx"]


def test_several_rows_at_once_and_padding_change_nothing_but_rounding(tmp_path):
    graph = write_graph(tmp_path, "classifier")
    quantize_dynamic(graph, tmp_path / "int8.onnx")
    rows = random_rows("classifier", [7, 30, 12])
    ids, mask = np.zeros((3, 32), dtype=np.int64), np.zeros((3, 32), dtype=np.int64)
    for number, row in enumerate(rows):
        length = row["input_ids"].shape[1]
        ids[number, :length], mask[number, :length] = row["input_ids"], 1
    # Activations have one scale for the whole batch, so the levels are others; the error stays of the same size.
    together = open_session(tmp_path / "int8.onnx").run({"input_ids": ids, "attention_mask": mask})["logits"].ravel()
    assert relative_error(together, outputs(graph, rows)) < 0.1


@pytest.mark.parametrize("int8_embeddings", [False, True])
def test_embeddings_stay_as_the_graph_has_them(tmp_path, int8_embeddings):
    graph = write_graph(tmp_path, "encoder", int8_embeddings)
    quantize_dynamic(graph, tmp_path / "int8.onnx")
    before, after = (
        [onnx.numpy_helper.to_array(constant) for constant in onnx.load(path).graph.initializer if list(constant.dims) == [150, 64]]
        for path in (graph, tmp_path / "int8.onnx")
    )
    assert [array.dtype for array in after] == [np.int8 if int8_embeddings else np.float32]
    np.testing.assert_array_equal(after[0], before[0])


def test_nothing_is_printed_and_logging_stays_as_it_was(tmp_path):
    """In a process of its own, since pytest has handlers that the library's warnings would go to."""
    graph = write_graph(tmp_path, "classifier")
    program = (
        "import logging, sys, pathlib\n"
        "from bort.export.int8_dynamic import quantize_dynamic\n"
        "quantize_dynamic(*map(pathlib.Path, sys.argv[1:]))\n"
        "assert logging.getLogger().handlers == [], logging.getLogger().handlers\n"
    )
    command = [sys.executable, "-c", program, str(graph), str(tmp_path / "int8.onnx")]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stdout, process.stderr) == (0, "", "")
