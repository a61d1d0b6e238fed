"""Dynamic INT8 for ONNX Runtime: weights are quantised once, activations anew in every run, so nothing is calibrated.

Notable: products of two activations stay float32, and so does the last product of a classifier, whose outputs decide. Embeddings are left
as the graph has them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from bort.export.runtimes import import_extra

ONNX = "onnx==1.23.2 ml_dtypes==0.5.4"
_NEVER = "classifier.3/product"


def quantize_dynamic(graph: Path, target: Path, reduced_range: bool = False) -> None:
    """Quantise the products of a graph by constant matrices, a scale for every column.

    Args:
        graph: ``.onnx``, in float32.
        target: ``.onnx`` to write.
        reduced_range: give weights 7 of their 8 bits, so that sums of two products fit 16 bits.

    Raises:
        BortError: if ONNX Runtime is not installed.
    """
    onnx, quantization = import_extra("onnx", ONNX), import_extra("onnxruntime.quantization", "onnxruntime==1.32.0")
    with _silent():
        quantization.quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=reduced_range,
            weight_type=quantization.QuantType.QInt8,
            nodes_to_exclude=[node.name for node in onnx.load(graph, load_external_data=False).graph.node if node.name.endswith(_NEVER)],
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    model = onnx.load(target)
    _spread_over_heads(model)
    onnx.save(model, target)
    onnx.checker.check_model(target, full_check=True)


def _spread_over_heads(model: Any) -> None:
    """Give scales and zero points of several matrices at once (one a head) their rank, without which ONNX Runtime refuses to run them."""
    from onnx import numpy_helper

    constants = {constant.name: constant for constant in model.graph.initializer}
    for node in model.graph.node:
        weight = constants.get(node.input[1]) if node.op_type == "MatMulInteger" else None
        if weight is None or len(weight.dims) != 3:
            continue
        heads, _, columns = weight.dims
        for part in ("_scale", "_zero_point"):
            constant = constants[node.input[1].removesuffix("_quantized") + part]
            spread = np.broadcast_to(numpy_helper.to_array(constant), (heads, 1, columns))
            constant.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(spread), constant.name))


@contextmanager
def _silent() -> Iterator[None]:
    """Keep a library that warns through the root logger from printing, unless the program has handlers of its own."""
    handler = logging.NullHandler()
    logging.getLogger().addHandler(handler)
    try:
        yield
    finally:
        logging.getLogger().removeHandler(handler)
