"""Parameter files made by hand, byte by byte, and their readers: what the tests of parameter files share."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

# In this order: the first restores the NumPy names that the second needs.
import bort.gluon  # noqa: F401  # isort: skip
import mxnet as mx  # isort: skip

MXNET_TYPES = {"float32": 0, "float64": 1, "float16": 2, "uint8": 3, "int32": 4, "int8": 5, "int64": 6, "bool": 7}
SAFETENSORS_TYPES = [*MXNET_TYPES, "int16", "uint16", "uint32", "uint64"]
VERSION_1, VERSION_2, VERSION_3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA

# The function-scoped tmp_path is overwritten by every example, which is what is wanted.
examples = settings(derandomize=True, deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def dicts_of_arrays(types: list[str], least_dimensions: int):
    """Dicts of arrays of any bits, NaN payloads included, some of them empty; names without the characters that files cannot hold."""
    arrays = st.sampled_from(types).flatmap(
        lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=least_dimensions, max_dims=5, min_side=0, max_side=4))
    )
    names = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
    return st.dictionaries(names.filter(lambda name: not name.startswith(("arg:", "aux:", "__metadata__"))), arrays, max_size=5)


def assert_same(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        assert (actual[name].dtype, actual[name].shape) == (array.dtype, array.shape)
        assert actual[name].tobytes() == array.tobytes()


def from_mxnet(path: Path) -> dict[str, np.ndarray]:
    # MXNet gives a list where there are no names, and bfloat16 as raw halves, of a type of its own.
    loaded = mx.nd.load(str(path)) or {}
    wide = {name: mx.nd.amp_cast(array, dtype="float32") for name, array in loaded.items() if isinstance(array.dtype, np.dtype)}
    return {name: array.asnumpy() for name, array in {**loaded, **wide}.items()}


# Files made by hand.


def record(shape: tuple[int, ...], flag: int, elements: bytes, version: int = VERSION_2, storage: int = 0) -> bytes:
    head = struct.pack("<I", version) + (b"" if version == VERSION_1 else struct.pack("<i", storage))
    return head + struct.pack(f"<i{len(shape)}q3i", len(shape), *shape, 1, 0, flag) + elements


def params_file(records: list[bytes], names: list[bytes]) -> bytes:
    listed = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return struct.pack("<3Q", 0x112, 0, len(records)) + b"".join(records) + struct.pack("<Q", len(names)) + listed


def one(content: bytes, name: bytes = b"x") -> bytes:
    return params_file([content], [name])


def safetensors_file(header: object, data: bytes = b"", padding: int = 0) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    text += b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def entry(dtype: str, shape: list, begin: object, end: object) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


SIX = np.arange(6, dtype="<f4").reshape(2, 3)
SMALL_PARAMS = params_file([record((2, 3), 0, SIX.tobytes()), record((3,), 6, bytes(24)), record((0, 2), 3, b"")], [b"a", b"b.c", b"d"])
SMALL_SAFETENSORS = safetensors_file(
    {"__metadata__": {"k": "v"}, "a": entry("F32", [2, 3], 8, 32), "b": entry("I64", [1], 0, 8), "c": entry("U8", [0, 2], 32, 32)},
    bytes(8) + SIX.tobytes(),
)
