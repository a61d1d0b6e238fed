"""One way to run an exported model, whichever runtime it is for: ONNX Runtime, or OpenVINO, which reads its own files and ONNX's.

Notable: a session may be called from several threads at once. Both runtimes are optional; the one that is missing is named.
"""

from __future__ import annotations

import importlib
import queue
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError
from bort.machine import cpu_flags, has_bfloat16, num_threads

RUNTIMES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "bfloat16")
_HINTS = {"float32": "f32", "bfloat16": "bf16"}


class Session(Protocol):
    """A model that is loaded and ready.

    Attributes:
        runtime: one of :data:`RUNTIMES`.
        precision: one of :data:`PRECISIONS`, what it computes in where the file does not say INT8.
        inputs: names of what ``run`` takes.
    """

    runtime: str
    precision: str
    inputs: tuple[str, ...]

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        """Outputs by name."""


def open_session(model: Path, runtime: str | None = None, precision: str | None = None, threads: int | None = None) -> Session:
    """Load a model.

    Args:
        model: ``.onnx``, or the ``.xml`` of an OpenVINO model, whose ``.bin`` stands beside it.
        runtime: by default ONNX Runtime for the one and OpenVINO for the other.
        precision: by default bfloat16 for an ``.xml``, which is where INT8 models are kept, if the CPU computes in it, else float32.
        threads: by default one per core, or what ``OMP_NUM_THREADS`` says.

    Raises:
        BortError: if the runtime is not installed or does not run such a file, or the file is damaged.
    """
    is_ir = model.suffix == ".xml"
    runtime = runtime or ("openvino" if is_ir else "onnxruntime")
    if precision is None:
        precision = "bfloat16" if is_ir and has_bfloat16(cpu_flags()) else "float32"
    if runtime not in RUNTIMES or precision not in PRECISIONS:
        raise BortError(f"runtime {runtime} with {precision}: there are {', '.join(RUNTIMES)}, and {', '.join(PRECISIONS)}")
    if runtime == "onnxruntime" and (is_ir or precision != "float32"):
        raise BortError(f"{model}: ONNX Runtime runs .onnx files, in float32 or INT8; take the runtime openvino")
    if not model.is_file():
        raise BortError(f"{model}: no such file; export the model again: bort export --help")
    opened = _OnnxRuntimeSession if runtime == "onnxruntime" else _OpenVinoSession
    return opened(model, precision, num_threads() if threads is None else threads)


def import_extra(module: str, requirement: str) -> Any:
    """An optional library.

    Raises:
        BortError: with what to install, if it is missing.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise BortError(f"{module} is not installed ({error}); pip install {requirement}") from None


class _OnnxRuntimeSession:
    runtime = "onnxruntime"

    def __init__(self, model: Path, precision: str, threads: int) -> None:
        library = import_extra("onnxruntime", "onnxruntime==1.32.0")
        options = library.SessionOptions()
        options.intra_op_num_threads = threads
        # Errors only: a message for every constant that fusing has made superfluous tells nobody anything.
        options.log_severity_level = 3
        try:
            self._session = library.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        except Exception as error:
            raise BortError(f"{model}: ONNX Runtime cannot load it ({_first_line(error)}); export the model again") from None
        self.precision = precision
        self.inputs = tuple(value.name for value in self._session.get_inputs())
        self._outputs = [value.name for value in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        return dict(zip(self._outputs, self._session.run(self._outputs, dict(inputs)), strict=True))


class _OpenVinoSession:
    runtime = "openvino"

    def __init__(self, model: Path, precision: str, threads: int) -> None:
        # As if it were not installed: with it OpenVINO reports over the network that it was imported, and leaves files at home.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        library = import_extra("openvino", "openvino==2026.4.1")
        settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": _HINTS[precision]}
        try:
            core = library.Core()
            described = core.read_model(str(model))
            self._model = core.compile_model(described, "CPU", settings)
        except Exception as error:
            raise BortError(f"{model}: OpenVINO cannot load it ({_first_line(error)}); export the model again") from None
        self.precision = precision
        # Compiled, an output can have the names of what was fused into its node too.
        self.inputs = tuple(port.get_any_name() for port in described.inputs)
        self._outputs = [port.get_any_name() for port in described.outputs]
        # A request serves one call at a time; there come to be as many as there are calls at once.
        self._requests: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run(self, inputs: Mapping[str, NDArray[np.int64]]) -> dict[str, NDArray[np.float32]]:
        try:
            request = self._requests.get_nowait()
        except queue.Empty:
            request = self._model.create_infer_request()
        try:
            results = request.infer(dict(inputs), share_outputs=True)
            return {name: np.array(results[number], dtype=np.float32) for number, name in enumerate(self._outputs)}
        finally:
            self._requests.put(request)


def _first_line(error: Exception) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
