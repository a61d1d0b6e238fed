"""From parameters straight to an ONNX graph: the encoder, the encoder with its masked-language-model head, or a classifier.

Notable: the graph consists of standard operators only, and its attention is written out. ONNX Runtime fuses what gains by it when it loads
the file; with its own fused operators in the file it was slower (docs/experiments.md), and any other runtime reads this one too. Batch and
length are dynamic. A classifier reads nothing but the first token's encoding, so its last layer computes no other position, by the same
reordering as ``bort/gluon/first_token.py``: the query is carried into the space of the layer's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from bort.config import BortConfig
from bort.errors import BortError

KINDS = ("encoder", "mlm", "classifier")
OPSET, _IR_VERSION = 21, 10
_ENCODER = "bort."
_HEAD = ("classifier.1.weight", "classifier.1.bias", "classifier.3.weight", "classifier.3.bias")
# Exponentials of scores this far down are 0 in float32, and the number is one in bfloat16 and float16 too.
_MASKED = -10000.0


def kind_of(parameters: Mapping[str, Any]) -> str:
    """Which of :data:`KINDS` parameters under published names are."""
    if any(name.startswith("classifier.") for name in parameters):
        return "classifier"
    return "mlm" if any(name.startswith("decoder.") for name in parameters) else "encoder"


def build_graph(
    config: BortConfig, parameters: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None, int8_embeddings: bool = False
) -> onnx.ModelProto:
    """The graph of what the parameters are.

    Its inputs are ``input_ids`` and ``attention_mask``, int64 (batch, length), the mask 1 for a token and 0 for padding behind it; and
    for masked language modelling ``masked_positions``, int64 (batch, masked). Its float32 outputs are, of an encoder,
    ``last_hidden_state`` (batch, length, hidden_size), zero in padding; for masked language modelling that and ``logits`` (batch, masked,
    vocab_size); of a classifier ``logits`` (batch, classes).

    Args:
        parameters: under published names; a fine-tuned classifier's encoder has the prefix ``bort.``.
        metadata: texts to store in the file, such as the names of the labels.
        int8_embeddings: store the word embeddings as int8 with one float32 scale a token, a quarter of their size.

    Raises:
        BortError: if a parameter is missing or of another shape.
    """
    kind = kind_of(parameters)
    prefix = _ENCODER if kind == "classifier" else ""
    _check_shapes(config, parameters, kind, prefix)
    graph = _Graph({name.removeprefix(prefix): array for name, array in parameters.items()})
    mask = _additive_mask(graph)
    hidden = _embed(graph, config, int8_embeddings)
    last = config.num_hidden_layers - 1
    for layer in range(config.num_hidden_layers):
        attend = _first_attention if kind == "classifier" and layer == last else _attention
        hidden = _layer(graph, config, layer, hidden, mask, attend)
    if kind == "classifier":
        outputs = [("logits", _classify(graph, hidden), ["batch", parameters["classifier.3.bias"].shape[0]])]
    else:
        is_token = graph.add("Unsqueeze", graph.add("Cast", "attention_mask", to=TensorProto.FLOAT), graph.ints("last_axis", [2]))
        sequence = graph.add("Mul", hidden, is_token)
        outputs = [("last_hidden_state", sequence, ["batch", "length", config.hidden_size])]
        if kind == "mlm":
            outputs.append(("logits", _predict_masked(graph, config, sequence), ["batch", "masked", config.vocab_size]))
    inputs = {"input_ids": ["batch", "length"], "attention_mask": ["batch", "length"]}
    if kind == "mlm":
        inputs["masked_positions"] = ["batch", "masked"]
    model = graph.finish(f"bort_{kind}", inputs, outputs)
    helper.set_model_props(model, dict(metadata or {}))
    return model


class _Graph:
    """Nodes and constants as they are added; ``parameters`` become constants under their published names."""

    def __init__(self, parameters: Mapping[str, np.ndarray]) -> None:
        self.parameters = parameters
        self._nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def add(self, operator: str, *inputs: str, name: str | None = None, **attributes: Any) -> str:
        """The only output of a new node."""
        return self.add_all(operator, *inputs, outputs=1, name=name, **attributes)[0]

    def add_all(self, operator: str, *inputs: str, outputs: int, name: str | None = None, **attributes: Any) -> list[str]:
        """All outputs of a new node."""
        name = name or f"{operator.lower()}_{len(self._nodes)}"
        results = [name] if outputs == 1 else [f"{name}.{number}" for number in range(outputs)]
        self._nodes.append(helper.make_node(operator, inputs, results, name=name, **attributes))
        return results

    def constant(self, name: str, array: NDArray[Any]) -> str:
        """A constant, stored once for each name."""
        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.asarray(array, order="C"), name)
        return name

    def ints(self, name: str, values: Sequence[int]) -> str:
        """A constant of int64, which shapes and axes are."""
        return self.constant(name, np.array(values, dtype=np.int64))

    def number(self, name: str, value: float) -> str:
        """A float32 scalar."""
        return self.constant(name, np.array(value, dtype=np.float32))

    def parameter(self, name: str) -> str:
        """A parameter as it is."""
        return self.constant(name, self.parameters[name].astype(np.float32, copy=False))

    def dense(self, inputs: str, name: str) -> str:
        """``inputs`` times the transposed weight, plus the bias."""
        weight = self.constant(f"{name}.weight.T", self.parameters[f"{name}.weight"].T.astype(np.float32, copy=False))
        return self.add("Add", self.add("MatMul", inputs, weight, name=f"{name}/product"), self.parameter(f"{name}.bias"), name=name)

    def layer_norm(self, inputs: str, name: str, epsilon: float) -> str:
        """LayerNorm over the last axis."""
        scale, shift = self.parameter(f"{name}.gamma"), self.parameter(f"{name}.beta")
        return self.add("LayerNormalization", inputs, scale, shift, axis=-1, epsilon=epsilon, name=name)

    def finish(self, name: str, inputs: Mapping[str, list[Any]], outputs: Sequence[tuple[str, str, list[Any]]]) -> onnx.ModelProto:
        """The model; ``outputs`` are (name, value, shape)."""
        # Renamed, not copied by a node: a runtime that removes the node has two names for the result.
        final = {value: output for output, value, _ in outputs}
        for node in self._nodes:
            for names in (node.input, node.output):
                names[:] = [final.get(value, value) for value in names]
        graph = helper.make_graph(
            self._nodes,
            name,
            [helper.make_tensor_value_info(key, TensorProto.INT64, shape) for key, shape in inputs.items()],
            [helper.make_tensor_value_info(key, TensorProto.FLOAT, shape) for key, _, shape in outputs],
            list(self.constants.values()),
        )
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=_IR_VERSION, producer_name="bort")


def _additive_mask(graph: _Graph) -> str:
    """0 for a token and a very negative number for padding, (batch, 1, 1, length)."""
    is_padding = graph.add("Sub", graph.number("one", 1.0), graph.add("Cast", "attention_mask", to=TensorProto.FLOAT))
    return graph.add("Unsqueeze", graph.add("Mul", is_padding, graph.number("masked", _MASKED)), graph.ints("head_axes", [1, 2]))


def _embed(graph: _Graph, config: BortConfig, int8: bool) -> str:
    words = graph.parameters["word_embed.0.weight"]
    if int8:
        largest = np.abs(words).max(axis=1, keepdims=True)
        scales = np.where(largest > 0, largest / 127.0, 1.0).astype(np.float32)
        levels = np.rint(words / scales).astype(np.int8)
        rounded = graph.add("Cast", graph.add("Gather", graph.constant("word_levels", levels), "input_ids"), to=TensorProto.FLOAT)
        embedded = graph.add("Mul", rounded, graph.add("Gather", graph.constant("word_scales", scales), "input_ids"))
    else:
        embedded = graph.add("Gather", graph.parameter("word_embed.0.weight"), "input_ids", name="word_embed")
    length = graph.add("Shape", "input_ids", start=1, end=2)
    zero = graph.ints("zero", [0])
    positions = graph.add("Slice", graph.parameter("encoder.position_weight"), zero, length, zero)
    return graph.layer_norm(graph.add("Add", embedded, positions), "encoder.layer_norm", config.layer_norm_eps)


def _layer(graph: _Graph, config: BortConfig, layer: int, hidden: str, mask: str, attend: Any) -> str:
    name = f"encoder.transformer_cells.{layer}"
    residual, context = attend(graph, config, f"{name}.attention_cell", hidden, mask)
    attended = graph.add("Add", graph.dense(context, f"{name}.proj"), residual)
    attended = graph.layer_norm(attended, f"{name}.layer_norm", config.layer_norm_eps)
    inner = graph.add("Gelu", graph.dense(attended, f"{name}.ffn.ffn_1"))
    return graph.layer_norm(
        graph.add("Add", graph.dense(inner, f"{name}.ffn.ffn_2"), attended), f"{name}.ffn.layer_norm", config.layer_norm_eps
    )


def _attention(graph: _Graph, config: BortConfig, name: str, hidden: str, mask: str) -> tuple[str, str]:
    """What the layer adds to, and the context, both (batch, length, hidden_size)."""
    heads, width = config.num_attention_heads, config.hidden_size // config.num_attention_heads
    split = graph.ints("split_heads", [0, 0, heads, width])
    # Keys are turned over for the product of the scores.
    orders = {"query": [0, 2, 1, 3], "key": [0, 2, 3, 1], "value": [0, 2, 1, 3]}
    query, key, value = (
        graph.add("Transpose", graph.add("Reshape", graph.dense(hidden, f"{name}.proj_{part}"), split), perm=order)
        for part, order in orders.items()
    )
    scaled = graph.add("Mul", query, graph.number("query_scale", width**-0.5))
    scores = graph.add("Add", graph.add("MatMul", scaled, key, name=f"{name}/scores"), mask)
    context = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), value, name=f"{name}/context")
    merged = graph.add("Transpose", context, perm=[0, 2, 1, 3])
    return hidden, graph.add("Reshape", merged, graph.ints("merge_heads", [0, 0, config.hidden_size]))


def _first_attention(graph: _Graph, config: BortConfig, name: str, hidden: str, mask: str) -> tuple[str, str]:
    """As :func:`_attention` for the first position alone, both (batch, hidden_size); see bort/gluon/first_token.py for the formulas.

    The bias of the keys adds the same to all scores of a head, which a softmax does not see, and weights sum to 1, so the values' bias is
    added as it is.
    """
    heads, size = config.num_attention_heads, config.hidden_size
    width = size // heads
    first = graph.add("Gather", hidden, graph.constant("first", np.array(0, dtype=np.int64)), axis=1)
    query = graph.add("Mul", graph.dense(first, f"{name}.proj_query"), graph.number("query_scale", width**-0.5))
    # (heads, batch, width) times (heads, width, hidden_size)
    query = graph.add("Transpose", graph.add("Reshape", query, graph.ints("split_first", [0, heads, width])), perm=[1, 0, 2])
    keys = graph.parameters[f"{name}.proj_key.weight"].reshape(heads, width, size).astype(np.float32)
    carried = graph.add("MatMul", query, graph.constant(f"{name}.proj_key.by_head", keys), name=f"{name}/carried")
    carried = graph.add("Transpose", carried, perm=[1, 0, 2])
    turned = graph.add("Transpose", hidden, perm=[0, 2, 1])
    of_head = graph.add("Squeeze", mask, graph.ints("head_axis", [1]))
    scores = graph.add("Add", graph.add("MatMul", carried, turned, name=f"{name}/scores"), of_head)
    summed = graph.add("MatMul", graph.add("Softmax", scores, axis=-1), hidden, name=f"{name}/context")
    values = graph.parameters[f"{name}.proj_value.weight"].reshape(heads, width, size).transpose(0, 2, 1).astype(np.float32)
    context = graph.add("Transpose", summed, perm=[1, 0, 2])
    context = graph.add("MatMul", context, graph.constant(f"{name}.proj_value.by_head", values), name=f"{name}/values")
    context = graph.add("Reshape", graph.add("Transpose", context, perm=[1, 0, 2]), graph.ints("merge_first", [0, size]))
    return first, graph.add("Add", context, graph.parameter(f"{name}.proj_value.bias"))


def _predict_masked(graph: _Graph, config: BortConfig, sequence: str) -> str:
    chosen = graph.add("GatherND", sequence, graph.add("Unsqueeze", "masked_positions", graph.ints("last_axis", [2])), batch_dims=1)
    transformed = graph.add("Gelu", graph.dense(chosen, "decoder.0"))
    transformed = graph.layer_norm(transformed, "decoder.2", config.decoder_layer_norm_eps)
    words = graph.parameters["word_embed.0.weight"]
    if "word_embed.0.weight" in graph.constants and np.array_equal(words, graph.parameters["decoder.3.weight"]):
        # Stored once; a runtime turns it over when it loads the file.
        product = graph.add("MatMul", transformed, graph.add("Transpose", "word_embed.0.weight", perm=[1, 0]), name="decoder.3/product")
        return graph.add("Add", product, graph.parameter("decoder.3.bias"), name="decoder.3")
    return graph.dense(transformed, "decoder.3")


def _classify(graph: _Graph, first: str) -> str:
    return graph.dense(graph.add("Tanh", graph.dense(first, "classifier.1")), "classifier.3")


def _check_shapes(config: BortConfig, parameters: Mapping[str, np.ndarray], kind: str, prefix: str) -> None:
    expected = {f"{prefix}{name}": shape for name, shape in _encoder_shapes(config).items()}
    size = config.hidden_size
    if kind == "mlm":
        expected |= {"decoder.0.weight": (size, size), "decoder.0.bias": (size,), "decoder.2.gamma": (size,), "decoder.2.beta": (size,)}
        expected |= {"decoder.3.weight": (config.vocab_size, size), "decoder.3.bias": (config.vocab_size,)}
    if kind == "classifier":
        classes = parameters[_HEAD[3]].shape[0] if _HEAD[3] in parameters else 0
        expected |= dict(zip(_HEAD, ((size, size), (size,), (classes, size), (classes,)), strict=True))
    missing = sorted(expected.keys() - parameters.keys())
    if missing:
        raise BortError(f"the parameter {missing[0]} is missing; give a model folder, or parameters that belong to the architecture")
    for name, shape in expected.items():
        if parameters[name].shape != shape:
            raise BortError(f"the parameter {name} has shape {parameters[name].shape}, the configuration says {shape}")


def _encoder_shapes(config: BortConfig) -> dict[str, tuple[int, ...]]:
    size, inner = config.hidden_size, config.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "word_embed.0.weight": (config.vocab_size, size),
        "encoder.position_weight": (config.max_position_embeddings, size),
    }
    norms = ["encoder.layer_norm"]
    for layer in range(config.num_hidden_layers):
        name = f"encoder.transformer_cells.{layer}"
        dense = {f"attention_cell.proj_{part}": (size, size) for part in ("query", "key", "value")}
        dense |= {"proj": (size, size), "ffn.ffn_1": (inner, size), "ffn.ffn_2": (size, inner)}
        for part, shape in dense.items():
            shapes |= {f"{name}.{part}.weight": shape, f"{name}.{part}.bias": shape[:1]}
        norms += [f"{name}.layer_norm", f"{name}.ffn.layer_norm"]
    return shapes | {f"{norm}.{part}": (size,) for norm in norms for part in ("gamma", "beta")}
