"""The ONNX graph against the Gluon model: random sizes, lengths and paddings, all three kinds, in both runtimes."""

from __future__ import annotations

import numpy as np
import pytest

from bort.config import BortConfig
from bort.errors import BortError

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

import mxnet as mx  # noqa: E402 (after what may skip the module)

from bort.export.onnx_graph import build_graph, kind_of  # noqa: E402
from bort.export.runtimes import open_session  # noqa: E402
from bort.gluon.model import BortClassifier, BortModel, initialize, initialize_head  # noqa: E402
from bort.gluon.parameters import get_arrays  # noqa: E402

_CONFIGS = {
    "even": BortConfig(64, 96, 2, 4, 40, 150),
    "one_layer": BortConfig(48, 32, 1, 3, 24, 90, layer_norm_eps=1e-12),
    "one_head": BortConfig(32, 80, 3, 1, 33, 70, decoder_layer_norm_eps=1e-5),
}
_CLASSES = 3


def _model(config: BortConfig, kind: str, seed: int = 0):
    """A Gluon model with weights that are far from its start, and its parameters under published names."""
    net = BortModel(config, use_decoder=kind == "mlm", prefix="")
    if kind == "classifier":
        net = BortClassifier(net, _CLASSES)
        initialize(net.bort, mx.cpu(), seed)
        initialize_head(net, mx.cpu(), seed)
    else:
        initialize(net, mx.cpu(), seed)
    random = np.random.default_rng(seed)
    for parameter in net.collect_params().values():
        scale = 0.3 if parameter.name.endswith("weight") else 0.5
        value = scale * random.standard_normal(parameter.shape) + (1.0 if parameter.name.endswith("gamma") else 0.0)
        parameter.set_data(mx.nd.array(value))
    return net, get_arrays(net)


def _rows(config: BortConfig, random: np.random.Generator):
    """Ids of 1 to 5 rows, each of a length of its own, and their mask; what stands in padding is any token."""
    lengths = random.integers(1, config.max_position_embeddings + 1, int(random.integers(1, 6)))
    ids = random.integers(0, config.vocab_size, (len(lengths), lengths.max()))
    return ids, lengths, (np.arange(lengths.max()) < lengths[:, None]).astype(np.int64)


@pytest.fixture(params=[(name, kind) for name in _CONFIGS for kind in ("encoder", "mlm", "classifier")], ids="-".join)
def case(request, tmp_path):
    """Configuration, kind, Gluon model, and the file of its graph."""
    name, kind = request.param
    net, parameters = _model(_CONFIGS[name], kind)
    assert kind_of(parameters) == kind
    model = build_graph(_CONFIGS[name], parameters, {"id2label": '{"0": "no"}'})
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, tmp_path / "model.onnx")
    return _CONFIGS[name], kind, net, tmp_path / "model.onnx"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_outputs_match_gluon(case, runtime):
    if runtime == "openvino":
        pytest.importorskip("openvino", reason="the extra openvino is not installed")
    config, kind, net, path = case
    session = open_session(path, runtime, threads=1)
    random = np.random.default_rng(1)
    for _ in range(6):
        ids, lengths, mask = _rows(config, random)
        inputs = {"input_ids": ids, "attention_mask": mask}
        arguments = [mx.nd.array(ids, dtype="int32"), mx.nd.array(lengths)]
        if kind == "mlm":
            inputs["masked_positions"] = random.integers(0, ids.shape[1], (len(ids), 4))
            arguments.append(mx.nd.array(inputs["masked_positions"], dtype="int32"))
        expected = net(*arguments)
        expected = [array.asnumpy() for array in (expected if isinstance(expected, tuple) else [expected])]
        names = {"encoder": ["last_hidden_state"], "mlm": ["last_hidden_state", "logits"], "classifier": ["logits"]}[kind]
        outputs = session.run(inputs)
        assert sorted(outputs) == sorted(names)
        for name, theirs in zip(names, expected, strict=True):
            assert outputs[name].shape == theirs.shape
            np.testing.assert_allclose(outputs[name], theirs, rtol=1e-4, atol=1e-4)


def test_the_file_alone_is_enough(case):
    """A runtime without any of our modules runs it, and finds what was stored in it."""
    import onnxruntime

    config, _, _, path = case
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map == {"id2label": '{"0": "no"}'}
    assert {node.domain for node in onnx.load(path).graph.node} == {""}
    for value in session.get_inputs():
        assert value.shape[0] == "batch"
        assert value.type == "tensor(int64)"
    assert config.max_position_embeddings in (40, 24, 33)


def test_int8_embeddings_are_a_quarter_and_near(tmp_path):
    config = BortConfig(64, 32, 1, 4, 40, 2000)
    _, parameters = _model(config, "encoder")
    parameters["word_embed.0.weight"][7] = 0.0
    sessions, sizes = [], []
    for int8 in (False, True):
        path = tmp_path / f"{int8}.onnx"
        onnx.save(build_graph(config, parameters, int8_embeddings=int8), path)
        sessions.append(open_session(path, threads=1))
        sizes.append(path.stat().st_size)
    words = 4 * config.vocab_size * config.hidden_size
    assert sizes[0] - sizes[1] == pytest.approx(words * 3 / 4 - 4 * config.vocab_size, abs=2000)
    ids = np.arange(3, 33).reshape(3, 10)
    inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids)}
    exact, near = (session.run(inputs)["last_hidden_state"] for session in sessions)
    assert 0 < np.abs(near - exact).max() < 0.05 * np.abs(exact).max()


def test_the_output_projection_is_stored_once(tmp_path):
    config = BortConfig(32, 32, 1, 4, 40, 3000)
    _, parameters = _model(config, "mlm")
    size = len(build_graph(config, parameters).SerializeToString())
    assert size < 4 * config.vocab_size * config.hidden_size * 1.5
    # Untied, it is a matrix of its own.
    parameters["decoder.3.weight"] = parameters["decoder.3.weight"] + 1
    assert len(build_graph(config, parameters).SerializeToString()) > 4 * config.vocab_size * config.hidden_size * 2


@pytest.mark.parametrize(
    ("kind", "name", "change", "says"),
    [
        ("encoder", "encoder.layer_norm.beta", None, "encoder.layer_norm.beta is missing"),
        ("mlm", "decoder.3.bias", np.zeros(7), "decoder.3.bias has shape (7,), the configuration says (150,)"),
        ("classifier", "classifier.3.weight", np.zeros((4, 64)), "classifier.3.weight has shape (4, 64), the configuration says (3, 64)"),
        ("classifier", "classifier.3.bias", None, "classifier.3.bias is missing"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(kind, name, change, says):
    _, parameters = _model(_CONFIGS["even"], kind)
    parameters.pop(name) if change is None else parameters.update({name: change})
    with pytest.raises(BortError) as raised:
        build_graph(_CONFIGS["even"], parameters)
    assert says in str(raised.value)


def test_a_damaged_file_is_refused_in_one_line(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(b"\x08\x0anot a graph")
    for runtime in ("onnxruntime", "openvino"):
        if runtime == "openvino":
            pytest.importorskip("openvino", reason="the extra openvino is not installed")
        with pytest.raises(BortError, match="cannot load it") as raised:
            open_session(path, runtime)
        assert "\n" not in str(raised.value)
