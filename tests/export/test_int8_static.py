"""Static INT8: what becomes INT8, in how many bits, that OpenVINO runs it, with VNNI and without, and that NNCF leaves no trace."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bort.errors import BortError
from bort.machine import cpu_flags, has_vnni

pytest.importorskip("onnx", reason="the extra openvino is not installed")
openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from bort.export.int8_static import StaticRecipe, can_quantize, quantize_static  # noqa: E402 (after what may skip the module)

from .test_int8_dynamic import outputs, random_rows, relative_error, write_graph  # noqa: E402

if not can_quantize():
    pytest.skip("NNCF is not installed", allow_module_level=True)

LENGTHS = [9, 30] * 8
RECIPES = {
    "attention": (StaticRecipe(attention=True), False),
    "smooth": (StaticRecipe(smooth=True), False),
    "reduced": (StaticRecipe(attention=True), True),
}
BY_HEAD = {"encoder.transformer_cells.1.attention_cell/carried", "encoder.transformer_cells.1.attention_cell/values"}
SCORES = {f"encoder.transformer_cells.{layer}.attention_cell/scores" for layer in range(2)}
CONTEXT = {f"encoder.transformer_cells.{layer}.attention_cell/context" for layer in range(2)}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A classifier's graph, with float embeddings, and its INT8 models by recipe, made when they are asked for."""
    folder = tmp_path_factory.mktemp("static")
    graph, models = write_graph(folder, "classifier"), {}

    def of(name):
        if name not in models:
            recipe, reduced_range = RECIPES[name]
            models[name] = folder / name / "openvino_model.xml"
            models[name].parent.mkdir()
            quantize_static(graph, models[name], random_rows("classifier", LENGTHS), recipe, reduced_range)
        return models[name]

    return graph, of


def quantized_products(model):
    """Of each matrix product: whether both sides are INT8, and the levels of its weights, None where both sides are activations."""
    products = {}
    for node in openvino.Core().read_model(model).get_ordered_ops():
        if node.get_type_name() != "MatMul":
            continue
        sides = [_origin(node.input_value(side).get_node()) for side in range(2)]
        weights = sides[1].get_data() if sides[1].get_type_name() == "Constant" else None
        is_int8 = sides[0].get_type_name() == "FakeQuantize" and (
            sides[1].get_type_name() == "FakeQuantize" if weights is None else weights.dtype == np.int8
        )
        products[node.get_friendly_name()] = is_int8, weights
    return products


def _origin(node):
    """What a side of a product comes from, behind changes of shape and what turns levels into numbers again."""
    while node.get_type_name() in ("Reshape", "Transpose", "Convert", "Subtract", "Multiply"):
        below = node.input_value(0).get_node()
        if node.get_type_name() == "Multiply" and below.get_type_name() not in ("Convert", "Subtract", "Constant"):
            break
        node = below
    return node


@pytest.mark.parametrize(
    ("name", "left_alone", "largest"),
    [("attention", CONTEXT, 127), ("smooth", SCORES | CONTEXT, 127), ("reduced", SCORES | CONTEXT | BY_HEAD, 64)],
)
def test_what_becomes_int8_and_in_how_many_levels(made, name, left_alone, largest):
    graph, of = made
    products = quantized_products(of(name))
    assert {product for product, (is_int8, _) in products.items() if not is_int8} == left_alone | {"classifier.3/product"}
    # Six matrices and two products of attention in each layer, and the classifier's two.
    assert len(products) == 2 * (6 + 2) + 2
    for is_int8, weights in products.values():
        if is_int8 and weights is not None:
            assert largest - 1 <= np.abs(weights.astype(int)).max() <= largest
    constants = [node for node in openvino.Core().read_model(of(name)).get_ops() if node.get_type_name() == "Constant"]
    assert [node.get_element_type().get_type_name() for node in constants if list(node.shape) == [150, 64]] == ["f32"]
    rows = random_rows("classifier", range(9, 31))
    for precision in ("float32", "bfloat16"):
        assert 0 < relative_error(outputs(of(name), rows, precision), outputs(graph, rows)) < 0.15
    assert sorted(path.name for path in of(name).parent.iterdir()) == ["openvino_model.bin", "openvino_model.xml"]


OUTPUTS = """
import sys
from pathlib import Path
import numpy as np
from tests.export.test_int8_dynamic import outputs, random_rows
rows = random_rows("classifier", range(5, 35))
np.savez(sys.argv[1], **{name: outputs(Path(name), rows, "float32") for name in sys.argv[2:]})
"""


def test_a_reduced_range_gives_the_same_answers_without_vnni(made, repository, tmp_path):
    """oneDNN can be told to do without: then it adds two products in 16 bits, which a full range overflows."""
    if not has_vnni(cpu_flags()):
        pytest.skip("this CPU has no VNNI to compare with")
    _, of = made
    models, found = [str(of(name)) for name in ("attention", "reduced")], []
    for number, isa in enumerate(("", "AVX512_CORE", "AVX2")):
        environment = os.environ | {"ONEDNN_MAX_CPU_ISA": isa, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-c", OUTPUTS, str(tmp_path / f"{number}.npz"), *models]
        process = subprocess.run(command, cwd=repository, env=environment, capture_output=True, text=True, check=False)
        assert process.returncode == 0, process.stderr
        with np.load(tmp_path / f"{number}.npz") as arrays:
            found.append([arrays[model] for model in models])
    (full, reduced), *others = found
    for other_full, other_reduced in others:
        print(f"full range {relative_error(other_full, full):.3g}, reduced {relative_error(other_reduced, reduced):.3g}")
        assert relative_error(other_reduced, reduced) < 0.005
        assert relative_error(other_full, full) > 0.02


def test_nncf_prints_nothing_and_leaves_nothing(tmp_path, capfd, monkeypatch):
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir(), work.mkdir()
    graph = write_graph(tmp_path, "encoder")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    monkeypatch.chdir(work)
    quantize_static(graph, tmp_path / "int8.xml", random_rows("encoder", [20] * 4), StaticRecipe())
    assert capfd.readouterr() == ("", "")
    assert not list(home.iterdir())
    assert not list(work.iterdir())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["graph.onnx", "home", "int8.bin", "int8.xml", "work"]


def test_what_nncf_cannot_read_is_one_line(tmp_path):
    (tmp_path / "graph.onnx").write_bytes(b"not a graph")
    with pytest.raises(BortError, match=r"graph\.onnx: NNCF could not quantise it .*take --runtime onnxruntime") as raised:
        quantize_static(tmp_path / "graph.onnx", tmp_path / "int8.xml", random_rows("classifier", [9]), StaticRecipe())
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "int8.xml").exists()


@pytest.mark.parametrize("missing", ["nncf", "openvino"])
def test_a_missing_library_is_named(tmp_path, monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(BortError, match=r"needs OpenVINO and NNCF; pip install openvino==.* nncf=="):
        quantize_static(tmp_path / "graph.onnx", tmp_path / "int8.xml", [], StaticRecipe())
