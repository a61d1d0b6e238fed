"""Rows of numbers from the pickle of an object array, read without running it.

``np.save`` stores an array of Python objects as a pickle (protocol 3, of NumPy 2 protocol 4), and the published data are such arrays:
ragged rows, each an array or a list of numbers.

Notable: no unpickler is at work here, and nothing that a pickle names is imported, called or changed. The opcodes that such an array needs
are carried out on plain records, the names of NumPy's constructors are nothing but strings, and any other opcode or name is an error. So a
pickle can neither run code nor make an array that points where it says; and its numbers are copied only once their type, shape and bytes
fit together. The price is a pass in Python over the opcodes, tens of microseconds a row.
"""

from __future__ import annotations

import math
import pickletools
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Any, NoReturn, cast

import numpy as np

# In bytes, of one value; rows are shorter, so a greater length is that of a damaged file.
_LARGEST_VALUE = 1 << 24
_NUMBERS = {f"{kind}{size}" for kind, sizes in (("i", (1, 2, 4, 8)), ("u", (1, 2, 4, 8)), ("f", (2, 4, 8))) for size in sizes}
_OBJECTS = "O8"
# NumPy 2 says _core.
_NAMES = {f"numpy.{core}.multiarray {name}": name for core in ("core", "_core") for name in ("_reconstruct", "scalar")} | {
    "numpy ndarray": "ndarray",
    "numpy dtype": "dtype",
}
_VALUES = {
    "BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "NONE", "NEWTRUE", "NEWFALSE", "BINUNICODE", "SHORT_BINUNICODE", "BINBYTES",
    "SHORT_BINBYTES",
}  # fmt: skip
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"EMPTY_TUPLE": 0, "TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_MARK = object()


@dataclass(frozen=True)
class _Name:
    text: str


@dataclass
class _Type:
    code: str
    order: str = "|"


@dataclass
class _Array:
    shape: tuple[int, ...] = ()
    type: _Type | None = None
    contents: list[Any] | bytes = b""


class _BoundedStream:
    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream

    def read(self, size: int) -> bytes:
        if size > _LARGEST_VALUE:
            raise ValueError(f"a value of {size} bytes in its pickle")
        return self._stream.read(size)

    def readline(self) -> bytes:
        return self._stream.readline(1000)


def read_pickled_rows(stream: IO[bytes], shape: tuple[int, ...]) -> list[np.ndarray]:
    """The rows of a pickled object array.

    Args:
        stream: at the beginning of the pickle, with nothing behind it.
        shape: (rows,), of arrays or lists of numbers, or (rows, width), of numbers; what the header of the array says.

    Returns:
        An array of numbers, of one dimension or of a type that shows that it is none, for each row.

    Raises:
        ValueError: if the pickle is damaged, refers to something else than an array's parts, or holds something else than such rows.
    """
    array = _interpret(stream)
    if stream.read(1):
        raise ValueError("something follows its pickle")
    if not isinstance(array, _Array) or array.type is None or array.type.code != _OBJECTS or array.shape != shape:
        raise ValueError(f"its pickle does not hold an object array of shape {shape}")
    elements = _elements(array)
    if len(shape) == 2:
        elements = [elements[first : first + shape[1]] for first in range(0, len(elements), shape[1])] if shape[1] else [[]] * shape[0]
    elif len(shape) != 1:
        raise ValueError(f"its shape is {shape}, not one of rows")
    return [_row(element, number) for number, element in enumerate(elements)]


def _elements(array: _Array) -> list[Any]:
    if not isinstance(array.contents, list) or len(array.contents) != math.prod(array.shape):
        raise ValueError("its pickle has more or fewer elements than its shape")
    return array.contents


def _row(element: Any, number: int) -> np.ndarray:
    if isinstance(element, _Array) and element.type is not None and len(element.shape) == 1:
        if element.type.code != _OBJECTS:
            return _numbers(element.type, element.shape[0], element.contents)
        element = _elements(element)
    if not isinstance(element, list) or any(type(value) not in (int, float) for value in element):
        raise ValueError(f"its row {number} is not a list of numbers")
    return np.array(element)


def _numbers(type_: _Type, count: int, contents: object) -> np.ndarray:
    dtype = np.dtype(type_.order + type_.code)
    if not isinstance(contents, bytes) or len(contents) != count * dtype.itemsize:
        raise ValueError(f"its pickle has an array of {count} {dtype} with another number of bytes")
    return np.frombuffer(contents, dtype)


def _interpret(stream: IO[bytes]) -> Any:
    """What a pickle describes: numbers, texts, bytes, lists, tuples, and the records above."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    argument: Any
    for opcode, argument, _ in pickletools.genops(cast("IO[bytes]", _BoundedStream(stream))):
        name = opcode.name
        if name in _VALUES:
            stack.append(_CONSTANTS.get(name, argument))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name in _TUPLES:
            stack.append(tuple(_pop(stack, _TUPLES[name])))
        elif name == "MARK":
            stack.append(_MARK)
        elif name == "TUPLE":
            stack.append(tuple(_pop_to_mark(stack)))
        elif name == "EMPTY_LIST":
            stack.append([])
        elif name in ("APPEND", "APPENDS"):
            values = _pop(stack, 1) if name == "APPEND" else _pop_to_mark(stack)
            _expect(stack[-1], list).extend(values)
        elif name == "GLOBAL":
            stack.append(_named(argument))
        elif name == "STACK_GLOBAL":
            stack.append(_named(" ".join(_expect(part, str) for part in _pop(stack, 2))))
        elif name == "REDUCE":
            function, arguments = _pop(stack, 2)
            stack.append(_constructed(_expect(function, _Name), _expect(arguments, tuple)))
        elif name == "BUILD":
            (state,) = _pop(stack, 1)
            _set_state(stack[-1], _expect(state, tuple))
        elif name == "STOP":
            (result,) = stack
            return result
        elif name not in ("PROTO", "FRAME"):
            raise ValueError(f"its pickle has the opcode {name}, which no array needs")
    raise AssertionError("genops ends with STOP or an error")


def _pop(stack: list[Any], count: int) -> list[Any]:
    if len(stack) < count:
        raise ValueError("its pickle takes more than it has")
    values = stack[len(stack) - count :]
    del stack[len(stack) - count :]
    return values


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    count = 0
    while stack[-1 - count] is not _MARK:
        count += 1
    values = _pop(stack, count)
    del stack[-1]
    return values


def _expect(value: Any, kind: type) -> Any:
    if not isinstance(value, kind):
        raise ValueError("its pickle is not that of an array")
    return value


def _named(text: str) -> _Name:
    if text not in _NAMES:
        raise ValueError(f"its pickle refers to {text.replace(' ', '.')[:100]!r}, which is no part of an array")
    return _Name(_NAMES[text])


def _constructed(name: _Name, arguments: tuple[Any, ...]) -> Any:
    constructors: dict[str, Callable[..., Any]] = {"_reconstruct": _reconstruct, "dtype": _dtype, "scalar": _scalar}
    if name.text not in constructors:
        _refuse_call(name.text)
    return constructors[name.text](*arguments)


def _refuse_call(name: str) -> NoReturn:
    raise ValueError(f"its pickle calls {name}, as that of no array does")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    if kind != _Name("ndarray") or shape != (0,) or code != b"b":
        _refuse_call("_reconstruct")
    return _Array()


def _dtype(code: object, align: object, copy: object) -> _Type:
    if not isinstance(code, str) or (code != _OBJECTS and code not in _NUMBERS):
        raise ValueError(f"its pickle has an array of {repr(code)[:20] if isinstance(code, str) else 'something'}, not of numbers")
    return _Type(code)


def _scalar(type_: object, contents: object) -> Any:
    if not isinstance(type_, _Type) or type_.code == _OBJECTS:
        _refuse_call("scalar")
    return _numbers(type_, 1, contents).tolist()[0]


def _set_state(record: object, state: tuple[Any, ...]) -> None:
    if isinstance(record, _Type) and len(state) == 8 and state[1] in ("<", ">", "|"):
        record.order = state[1]
        return
    if isinstance(record, _Array) and len(state) == 5 and record.type is None:
        _, shape, type_, _, contents = state
        if isinstance(shape, tuple) and all(type(size) is int and size >= 0 for size in shape) and isinstance(type_, _Type):
            record.shape, record.type, record.contents = shape, type_, contents
            return
    raise ValueError("its pickle gives an array a state that none has")
