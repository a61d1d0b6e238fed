"""The INT8 models that one model can become, from the fastest to the most careful.

Notable: none of them is right for every model. What outlying activations a model has, and what its CPU is good at, decide what is lost and
what is gained, so all are made and measured (bort/export/int8.py).
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bort.errors import BortError
from bort.export.exported_folder import IR_FILE, MODEL_FILE
from bort.export.int8_dynamic import quantize_dynamic
from bort.export.int8_rows import Inputs
from bort.export.int8_static import StaticRecipe, can_quantize, quantize_static

AUTO = "auto"


@dataclass(frozen=True)
class Candidate:
    """One way to quantise a model.

    Attributes:
        name: what a reader calls it.
        runtime: what it is for.
        int8_embeddings: whether word embeddings are INT8, a quarter of their size.
        recipe: of static INT8; None is dynamic.
    """

    name: str
    runtime: str
    int8_embeddings: bool
    recipe: StaticRecipe | None = None

    def make(self, graphs: Mapping[bool, Path], rows: Sequence[Inputs], reduced_range: bool, folder: Path) -> None:
        """Write the model into a folder, under the name that an exported folder has for it.

        Args:
            graphs: ``.onnx`` in float32, with INT8 embeddings and without.
            rows: to calibrate with; dynamic INT8 needs none.
            reduced_range: give weights 7 of their 8 bits, for CPUs without VNNI.

        Raises:
            BortError: if what quantises is not installed, or fails.
        """
        graph = graphs[self.int8_embeddings]
        if self.recipe is None:
            quantize_dynamic(graph, folder / MODEL_FILE, reduced_range)
        else:
            quantize_static(graph, folder / IR_FILE, rows, self.recipe, reduced_range)


_STATIC = (
    Candidate("OpenVINO, attention too", "openvino", True, StaticRecipe(attention=True)),
    Candidate("OpenVINO", "openvino", True, StaticRecipe()),
    Candidate("OpenVINO, smoothed, float embeddings", "openvino", False, StaticRecipe(smooth=True)),
)
_DYNAMIC = (
    Candidate("ONNX Runtime", "onnxruntime", True),
    Candidate("ONNX Runtime, float embeddings", "onnxruntime", False),
)


def find_candidates(runtime: str, reduced_range: bool) -> tuple[Candidate, ...]:
    """What can be made here, for a runtime or, with ``auto``, for those that are installed.

    Raises:
        BortError: if nothing can.
    """
    # A reduced range leaves the products of attention out, so two of them are one.
    static = tuple(each for each in _STATIC if not (reduced_range and each.recipe and each.recipe.attention))
    if runtime == "openvino":
        return static
    if runtime == "onnxruntime":
        return _DYNAMIC
    found = (static if can_quantize() else ()) + (_DYNAMIC if importlib.util.find_spec("onnxruntime") else ())
    if not found:
        raise BortError(
            "INT8 needs a runtime: pip install onnxruntime==1.32.0, or openvino==2026.4.1 nncf==3.4.0, which is faster on CPUs with VNNI"
        )
    return found
