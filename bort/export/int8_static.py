"""Static INT8 for OpenVINO: NNCF calibrates an ONNX graph with rows, and writes OpenVINO's own form of it.

Notable: NNCF works in a process of its own. Elsewhere it would import PyTorch where that is installed, which must not meet MXNet, take over
logging, print, and report its use over the network. Ranges of activations come from histograms: NNCF's default, the mean over rows of each
row's extremes, cuts off half of the rows, and with its bias correction made twice the error. Not everything becomes INT8:

- A product with the weights of a softmax: most of them are far below one of 255 steps, and would be gone. NNCF knows this of the usual
  attention, but not of that for the first token alone, where it cost a classifier of CB 7 points.
- The last product of a classifier: its outputs decide, and it has a few columns.
- Embeddings are left as the graph has them (``int8_embeddings`` of :func:`bort.export.onnx_graph.build_graph`).
- With a reduced range, all products but those by one matrix of weights. Of two activations neither can be halved, so their sums would still
  overflow, and OpenVINO 2026.4.1 multiplies by several matrices at once (one a head) wrongly on CPUs with AVX2 alone.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError, on_one_line

_SMOOTHING = 0.5
_NEVER = ("/context", "classifier.3/product")
_ATTENTION = ("/scores",)
_BY_HEAD = ("/carried", "/values")


@dataclass(frozen=True)
class StaticRecipe:
    """How to quantise.

    Attributes:
        attention: also multiply queries by keys in INT8, unless the range is reduced.
        smooth: move the range of outlying activations into the weights first (SmoothQuant, Xiao et al. 2023).
    """

    attention: bool = False
    smooth: bool = False


def can_quantize() -> bool:
    """Whether OpenVINO and NNCF are installed; neither is imported."""
    return all(importlib.util.find_spec(name) is not None for name in ("openvino", "nncf"))


def quantize_static(
    graph: Path, target: Path, rows: Sequence[Mapping[str, NDArray[np.int64]]], recipe: StaticRecipe, reduced_range: bool = False
) -> None:
    """Quantise a graph; blocks for seconds to minutes, with all cores.

    Args:
        graph: ``.onnx``, in float32.
        target: ``.xml`` to write, and the ``.bin`` beside it.
        rows: inputs by name to calibrate with, the more like those of the model's use the better; a few hundred.
        reduced_range: give weights 7 of their 8 bits, so that sums of two products fit 16 bits.

    Raises:
        BortError: if OpenVINO or NNCF is not installed, or NNCF fails.
    """
    if not can_quantize():
        raise BortError("static INT8 needs OpenVINO and NNCF; pip install openvino==2026.4.1 nncf==3.4.0")
    with tempfile.TemporaryDirectory(prefix="bort_int8_") as scratch:
        file = Path(scratch) / "rows.npz"
        np.savez(file, **{f"{number}/{name}": array for number, row in enumerate(rows) for name, array in row.items()})
        call = json.dumps([str(graph), str(target), str(file), asdict(recipe), reduced_range])
        process = subprocess.run(
            [sys.executable, "-m", __name__, call], stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", check=False
        )
    if process.returncode != 0 or not target.is_file():
        said = (process.stderr.strip().splitlines() or [f"exit status {process.returncode}"])[-1]
        raise BortError(f"{graph}: NNCF could not quantise it ({on_one_line(said):.300}); take --runtime onnxruntime, which needs no NNCF")


def _read_rows(file: Path) -> list[dict[str, NDArray[np.int64]]]:
    rows: dict[int, dict[str, NDArray[np.int64]]] = {}
    with np.load(file, allow_pickle=False) as arrays:
        for key in arrays.files:
            number, _, name = key.partition("/")
            rows.setdefault(int(number), {})[name] = arrays[key]
    return list(rows.values())


def _quantize(graph: Path, target: Path, file: Path, recipe: StaticRecipe, reduced_range: bool) -> None:
    # As if these were not installed: by the first OpenVINO and NNCF report their use, and the second takes seconds to import for nothing.
    sys.modules |= {"openvino_telemetry": None, "torch": None}  # type: ignore[dict-item]
    import nncf
    import openvino
    from nncf.quantization import advanced_parameters as advanced
    from nncf.quantization.range_estimator import RangeEstimatorParametersSet

    rows = _read_rows(file)
    quantized = nncf.quantize(
        openvino.Core().read_model(graph),
        nncf.Dataset(rows),
        model_type=nncf.ModelType.TRANSFORMER,
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(rows),
        ignored_scope=nncf.IgnoredScope(
            types=["Gather"], patterns=[f".*{re.escape(ending)}$" for ending in _left_alone(recipe, reduced_range)], validate=False
        ),
        advanced_parameters=advanced.AdvancedQuantizationParameters(
            overflow_fix=nncf.OverflowFix.ENABLE if reduced_range else nncf.OverflowFix.DISABLE,
            activations_range_estimator_params=RangeEstimatorParametersSet.HISTOGRAM,
            disable_bias_correction=True,
            smooth_quant_alphas=advanced.AdvancedSmoothQuantParameters(matmul=_SMOOTHING if recipe.smooth else -1),
        ),
    )
    openvino.save_model(quantized, target, compress_to_fp16=False)


def _left_alone(recipe: StaticRecipe, reduced_range: bool) -> tuple[str, ...]:
    """How the names of the products end that do not become INT8."""
    attention = () if recipe.attention and not reduced_range else _ATTENTION
    return (*_NEVER, *attention, *(_BY_HEAD if reduced_range else ()))


def _main(call: str) -> None:
    graph, target, rows, recipe, reduced_range = json.loads(call)
    _quantize(Path(graph), Path(target), Path(rows), StaticRecipe(**recipe), reduced_range)


if __name__ == "__main__":
    _main(sys.argv[1])
