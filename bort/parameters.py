"""Parameter files as ``{name: array}``: MXNet's ``.params`` and safetensors, in plain NumPy.

Notable: no framework is needed. A file is never trusted: every length it claims is held against the bytes that are left before anything is
allocated, so memory stays within a fixed multiple of the file's size, and damage ends in a ``BortError`` that names the file and the byte
offset. What ``write_params_file`` writes is byte for byte what ``mx.nd.save`` writes. Both formats keep the order of the arrays.
``map_safetensors`` gives views into a file without reading it.

A ``.params`` file, little endian throughout: uint64 0x112, uint64 0, uint64 number of arrays, the arrays, uint64 number of names, and per
name a uint64 length and UTF-8 bytes. An array: uint32 version, int32 storage type (0 is dense), int32 number of dimensions, int64
dimensions, int32 device type and number, int32 element type, the elements. Version 1 lacks the storage type; before version 1 the number of
dimensions stood in the version's place, and dimensions were uint32. Version 3 differs from 2 only in that scalars are allowed.
safetensors: https://github.com/huggingface/safetensors#format.
"""

from __future__ import annotations

import io
import json
import math
import mmap
import os
import struct
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bort.errors import BortError
from bort.files import whole_file

_LIST_MAGIC = 0x112
_VERSION_1, _VERSION_2, _VERSION_3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
# Element types by their names in NumPy, which has none for bfloat16.
_MXNET_TYPES = {0: "<f4", 1: "<f8", 2: "<f2", 3: "|u1", 4: "<i4", 5: "|i1", 6: "<i8", 7: "|b1", 12: "bfloat16"}
_SAFETENSORS_TYPES = {
    "F32": "<f4", "F64": "<f8", "F16": "<f2", "BF16": "bfloat16", "BOOL": "|b1",
    "I8": "|i1", "I16": "<i2", "I32": "<i4", "I64": "<i8", "U8": "|u1", "U16": "<u2", "U32": "<u4", "U64": "<u8",
}  # fmt: skip
_LARGEST_SAFETENSORS_HEADER = 100_000_000
_MOST_DIMENSIONS = 32  # of a NumPy 1 array
_LARGEST_SIZE = 2**63 - 1
_DAMAGED = "the file is damaged or incomplete; copy or download it again"


def read_parameters(path: Path | str) -> dict[str, np.ndarray]:
    """Read a ``.params`` or safetensors file, told apart by content, into new, writable arrays, in the order of the file.

    The prefixes ``arg:`` and ``aux:``, which MXNet's older ``Module`` puts before names in a ``.params`` file, are dropped. bfloat16, which
    NumPy lacks, comes as float32, which holds each of its values exactly; every other type is kept.

    Raises:
        BortError: if the file cannot be read, is of neither format, is damaged, or holds what NumPy cannot (sparse arrays, 8-bit floats).
    """
    with _reading(path) as source:
        beginning = source.stream.read(9)
    # A safetensors header of 274 bytes begins with MXNet's magic number, so the byte behind it decides: "{" here, zero there.
    if beginning[8:] == b"{":
        return read_safetensors(path)
    if beginning[:8] == struct.pack("<Q", _LIST_MAGIC):
        return read_params_file(path)
    raise BortError(f"{path}, offset 0: neither an MXNet .params file nor safetensors; it begins with {beginning!r}")


def write_parameters(path: Path | str, arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str] | None = None) -> None:
    """Write ``arrays`` in the format that the suffix of ``path`` names, whole or not at all.

    Args:
        path: ends in ``.params`` or ``.safetensors``.
        arrays: any memory layout and byte order.
        metadata: texts to keep in a safetensors file; a ``.params`` file has no room for them.

    Raises:
        BortError: if the suffix is another, or the format cannot hold a name, an array or the metadata; ``path`` is then left as it was.
        OSError: if the file cannot be written; likewise.
    """
    suffix = Path(path).suffix
    if suffix == ".safetensors":
        write_safetensors(path, arrays, metadata)
    elif suffix == ".params":
        if metadata:
            raise BortError(f"{path}: a .params file cannot hold metadata; write .safetensors")
        write_params_file(path, arrays)
    else:
        raise BortError(f"{path}: parameters are written as .params or .safetensors, not {suffix or 'without a suffix'}")


def read_params_file(path: Path | str) -> dict[str, np.ndarray]:
    """Read an MXNet ``.params`` file of any version; see ``read_parameters``.

    Stricter than MXNet where it shrugs: bytes behind the last name, repeated names and a non-zero reserved word are refused.
    """
    with _reading(path) as source:
        magic, reserved = source.unpack("QQ", "the file header")
        if (magic, reserved) != (_LIST_MAGIC, 0):
            raise source.error(f"the file header is {magic:#x}, {reserved:#x} and not {_LIST_MAGIC:#x}, 0x0", at=0)
        count = source.count("arrays", smallest=20)
        arrays = [_read_mxnet_array(source, f"array {number} of {count}") for number in range(1, count + 1)]
        name_count = source.count("names", smallest=8)
        if name_count != count:
            remedy = "save a dict of arrays, not a list" if name_count == 0 else _DAMAGED
            raise source.error(f"{count} arrays, but {name_count} names", at=source.offset - 8, remedy=remedy)
        named: dict[str, np.ndarray] = {}
        for array in arrays:
            start = source.offset
            name = source.text(source.count("bytes of a name", smallest=1), "a name")
            if "\0" in name:
                raise source.error(f"the name {_quoted(name)} holds a zero byte", at=start)
            name = name[4:] if name.startswith(("arg:", "aux:")) else name
            if name in named:
                raise source.error(f"a second array is called {_quoted(name)} (arg: and aux: aside)", at=start, remedy="rename one of them")
            named[name] = array
        if source.remaining:
            raise source.error(f"{source.remaining} bytes follow the last name")
    return named


def write_params_file(path: Path | str, arrays: Mapping[str, np.ndarray]) -> None:
    """Write what ``mx.nd.save`` would write for the same dict on a CPU; see ``write_parameters``."""
    flags = {code: flag for flag, code in _MXNET_TYPES.items()}
    contents: list[tuple[bytes, np.ndarray]] = []
    names = struct.pack("<Q", len(arrays))
    for name, array in arrays.items():
        if _type_code(array.dtype) not in flags:
            raise BortError(f"{path}: MXNet has no type for {_quoted(name)}, which is {array.dtype}; convert it, or write .safetensors")
        if array.ndim == 0:
            raise BortError(f"{path}: MXNet cannot read a scalar back; reshape {_quoted(name)} to (1,), or write .safetensors")
        if "\0" in name:
            raise BortError(f"{path}: the name {_quoted(name)} holds a zero byte, at which MXNet would cut it; rename it")
        encoded = _encoded(name, path)
        names += struct.pack("<Q", len(encoded)) + encoded
        shape = struct.pack(f"<i{array.ndim}q", array.ndim, *array.shape)
        # Device type 1, number 0: the CPU.
        device_and_type = struct.pack("<iii", 1, 0, flags[_type_code(array.dtype)])
        contents.append((struct.pack("<Ii", _VERSION_2, 0) + shape + device_and_type, array))
    with whole_file(path) as partial, partial.open("wb") as stream:
        stream.write(struct.pack("<QQQ", _LIST_MAGIC, 0, len(arrays)))
        for header, array in contents:
            stream.write(header)
            stream.write(_raw_bytes(array))
        stream.write(names)


def read_safetensors(path: Path | str) -> dict[str, np.ndarray]:
    """Read a safetensors file; see ``read_parameters``. ``map_safetensors`` also gives the metadata."""
    with _reading(path) as source:
        tensors, _ = _read_safetensors_header(source)
        return {tensor.name: source.array(tensor.code, tensor.shape, "a tensor", at=tensor.start) for tensor in tensors}


@dataclass(frozen=True)
class StreamedArray:
    """An array that need not fit into memory, to be written.

    Attributes:
        dtype: of its elements.
        shape: of the whole.
        portions: arrays of ``dtype``, whose elements one after the other are those of the whole in row order; taken once.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    portions: Iterable[np.ndarray]

    @property
    def nbytes(self) -> int:
        """Size of the whole."""
        return math.prod(self.shape) * self.dtype.itemsize


def write_safetensors(
    path: Path | str, arrays: Mapping[str, np.ndarray | StreamedArray], metadata: Mapping[str, str] | None = None
) -> None:
    """Write a safetensors file whose arrays all lie at multiples of their element size; see ``write_parameters``.

    Raises:
        ValueError: if the portions of a streamed array are not the whole that it promises; ``path`` is then left as it was.
    """
    names_of_types = {code: name for name, code in _SAFETENSORS_TYPES.items()}
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    for text in (metadata or {}).values():
        if not isinstance(text, str):
            raise BortError(f"{path}: safetensors metadata is text, got {text!r}")
    for name, array in arrays.items():
        if _type_code(array.dtype) not in names_of_types:
            raise BortError(f"{path}: safetensors has no type for {_quoted(name)}, which is {array.dtype}; convert it")
        if name == "__metadata__":
            raise BortError(f"{path}: safetensors keeps the name __metadata__ for itself; rename the array")
        header[name] = {"dtype": names_of_types[_type_code(array.dtype)], "shape": array.shape}
    end = 0
    # Wide elements first: no array then needs padding to be aligned, which the format would not allow.
    in_file_order = sorted(arrays, key=lambda name: -arrays[name].dtype.itemsize)
    for name in in_file_order:
        end += arrays[name].nbytes
        header[name]["data_offsets"] = [end - arrays[name].nbytes, end]
    encoded = _encoded(json.dumps(header, ensure_ascii=False, separators=(",", ":")), path)
    encoded += b" " * (-len(encoded) % 8)
    with whole_file(path) as partial, partial.open("wb") as stream:
        stream.write(struct.pack("<Q", len(encoded)) + encoded)
        for name in in_file_order:
            array = arrays[name]
            portions = array.portions if isinstance(array, StreamedArray) else [array]
            written = 0
            for portion in portions:
                if portion.dtype != array.dtype:
                    raise ValueError(f"{name}: a portion of {portion.dtype} in an array of {array.dtype}")
                written += stream.write(_raw_bytes(portion))
            if written != array.nbytes:
                raise ValueError(f"{name}: portions of {written} bytes in an array of {array.nbytes}")


def map_safetensors(path: Path | str) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Map a safetensors file: read-only views of its arrays, and its metadata.

    Only the header is read; pages of the data come from the disk when an element is looked at. The views keep the mapping alive. They must
    not outlive the file's contents: replace a mapped file by renaming, as ``bort.files`` does, and never cut it short in place.

    Raises:
        BortError: as ``read_parameters``, and if a tensor is bfloat16, of which NumPy can give no view.
    """
    with _reading(path) as source:
        tensors, metadata = _read_safetensors_header(source)
        for tensor in tensors:
            if tensor.code == "bfloat16":
                raise source.error(f"tensor {_quoted(tensor.name)} is bfloat16", at=tensor.start, remedy="convert it to float32 or float16")
        mapped = np.frombuffer(mmap.mmap(source.stream.fileno(), source.size, access=mmap.ACCESS_READ), np.uint8)
    views = {tensor.name: mapped[tensor.start : tensor.end].view(tensor.code).reshape(tensor.shape) for tensor in tensors}
    return views, metadata


@dataclass
class _Source:
    """An open file that hands out nothing beyond its end.

    Attributes:
        size: bytes in the file when it was opened.
        offset: where the next byte is taken from.
    """

    path: Path | str
    stream: io.BufferedReader
    size: int
    offset: int = 0

    @property
    def remaining(self) -> int:
        return self.size - self.offset

    def error(self, problem: str, at: int | None = None, remedy: str = _DAMAGED) -> BortError:
        return BortError(f"{self.path}, offset {self.offset if at is None else at}: {problem}; {remedy}")

    def claim(self, count: int, what: str) -> None:
        """Refuse what cannot be there, before memory for it is asked for."""
        if count > self.remaining:
            raise self.error(f"{what} needs {count} more bytes, {self.remaining} are left")

    def advance(self, count: int, expected: int, what: str) -> None:
        if count != expected:
            raise self.error(f"the file shrank while {what} was read")
        self.offset += count

    def take(self, count: int, what: str) -> bytes:
        self.claim(count, what)
        taken = self.stream.read(count)
        self.advance(len(taken), count, what)
        return taken

    def unpack(self, layout: str, what: str) -> tuple[int, ...]:
        return struct.unpack(f"<{layout}", self.take(struct.calcsize(f"<{layout}"), what))

    def count(self, what: str, smallest: int) -> int:
        """A uint64 number of things that take ``smallest`` bytes each at least."""
        (count,) = self.unpack("Q", f"the number of {what}")
        if count * smallest > self.remaining:
            raise self.error(f"{count} {what} do not fit into the {self.remaining} bytes left", at=self.offset - 8)
        return count

    def text(self, count: int, what: str) -> str:
        start = self.offset
        try:
            return self.take(count, what).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error(f"{what} is not UTF-8", at=start + error.start) from None

    def byte_count(self, code: str, shape: Iterable[int], what: str, at: int) -> int:
        """Bytes of an array; refuses shapes that NumPy cannot have, be they empty or not."""
        shape = tuple(shape)
        if len(shape) > _MOST_DIMENSIONS or min(shape, default=0) < 0:
            raise self.error(f"{what} has an impossible shape, {shape[:_MOST_DIMENSIONS]}", at)
        item_size = _stored_type(code).itemsize
        if math.prod(max(length, 1) for length in shape) * item_size > _LARGEST_SIZE:
            raise self.error(f"{what} has an impossible shape, {shape}", at)
        return math.prod(shape) * item_size

    def array(self, code: str, shape: tuple[int, ...], what: str, at: int | None = None) -> np.ndarray:
        """A new array of the elements here, or at the offset ``at``."""
        if at is not None:
            self.offset = self.stream.seek(at)
        count = self.byte_count(code, shape, what, self.offset)
        self.claim(count, what)
        elements = np.empty(shape, _stored_type(code))
        self.advance(self.stream.readinto(_raw_bytes(elements)), count, what)
        if code != "bfloat16":
            return elements
        # bfloat16 is the upper half of float32. In place, because an operator would turn a 0-dimensional array into a scalar.
        widened = elements.astype(np.uint32)
        widened <<= np.uint32(16)
        return widened.view(np.float32)


@contextmanager
def _reading(path: Path | str) -> Iterator[_Source]:
    # A pipe or a device has no size, and opening a pipe would wait for a writer.
    if not os.path.isfile(path):
        raise BortError(f"{path}: no such file")
    try:
        with open(path, "rb") as stream:
            yield _Source(path, stream, os.fstat(stream.fileno()).st_size)
    except OSError as error:
        raise BortError(f"{path}: cannot be read: {error.strerror}") from None


def _read_mxnet_array(source: _Source, what: str) -> np.ndarray:
    start = source.offset
    (version,) = source.unpack("I", what)
    if version in (_VERSION_2, _VERSION_3):
        (storage,) = source.unpack("i", what)
        if storage in (1, 2):
            raise source.error(f"{what} is sparse, which is not supported", at=source.offset - 4, remedy='save it with tostype("default")')
        if storage != 0:
            raise source.error(f"{what} has the unknown storage type {storage}", at=source.offset - 4)
    dimensions, length = version, "I"
    if version in (_VERSION_1, _VERSION_2, _VERSION_3):
        (dimensions,), length = source.unpack("i", what), "q"
    elif version > _MOST_DIMENSIONS:
        raise source.error(f"{what} has the unknown version {version:#x}", at=start)
    if dimensions == 0 and version != _VERSION_3:
        # MXNet 1.9.1 also writes scalars like this, and then cannot read them: it skips their elements as if there were none.
        raise source.error(f"{what} has no shape: it was never initialised", at=start, remedy="save it after its initialisation")
    if not 0 <= dimensions <= _MOST_DIMENSIONS:
        raise source.error(f"{what} has {dimensions} dimensions", at=start)
    shape = source.unpack(f"{dimensions}{length}", what)
    _, _, flag = source.unpack("iii", what)
    if flag not in _MXNET_TYPES:
        raise source.error(f"{what} has the unknown element type {flag}", at=source.offset - 4)
    return source.array(_MXNET_TYPES[flag], shape, what)


@dataclass(frozen=True)
class _Tensor:
    """One entry of a safetensors header; ``start`` and ``end`` count from the beginning of the file."""

    name: str
    code: str
    shape: tuple[int, ...]
    start: int
    end: int


def _read_safetensors_header(source: _Source) -> tuple[list[_Tensor], dict[str, str]]:
    """Tensors in the order of the header, shown to cover the data without overlap, and the metadata."""
    length = source.count("bytes of header", smallest=1)
    if length > _LARGEST_SAFETENSORS_HEADER:
        raise source.error(f"a header of {length} bytes, more than the {_LARGEST_SAFETENSORS_HEADER} that the format allows", at=0)
    text = source.text(length, "the header")
    if not text.startswith("{"):
        raise source.error("the header is not a JSON object", at=8)
    try:
        header = json.loads(text, object_pairs_hook=_checked_object)
    except (ValueError, RecursionError) as error:  # RecursionError: brackets nested deeper than Python's stack
        raise source.error(f"the header is not JSON: {error}", at=8) from None
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise source.error("__metadata__ is not an object of texts", at=8)
    tensors = [_checked_tensor(source, name, entry) for name, entry in header.items()]
    end = source.offset
    for tensor in sorted(tensors, key=lambda tensor: (tensor.start, tensor.end)):
        if tensor.start != end:
            relation = "overlaps the tensor before it" if tensor.start < end else "leaves a gap before it"
            raise source.error(f"tensor {_quoted(tensor.name)} {relation}", at=min(tensor.start, end))
        end = tensor.end
    if end != source.size:
        raise source.error(f"the tensors end at {end}, the file at {source.size}", at=min(end, source.size))
    return tensors, metadata


def _checked_tensor(source: _Source, name: str, entry: object) -> _Tensor:
    what = f"tensor {_quoted(name)}"
    match entry:
        case {"dtype": str(type_name), "shape": [*shape], "data_offsets": [start, end]}:
            # type() rather than isinstance(): true and false are ints to Python.
            if not all(type(number) is int and 0 <= number <= _LARGEST_SIZE for number in (*shape, start, end)):
                raise source.error(f"{what} has a shape or data_offsets that are not sizes", at=8)
        case _:
            raise source.error(f"{what} lacks a dtype, a shape or a pair of data_offsets", at=8)
    if type_name not in _SAFETENSORS_TYPES:
        raise source.error(f"{what} has the dtype {_quoted(type_name)}, which NumPy lacks", at=8, remedy="convert it to float32 or float16")
    code = _SAFETENSORS_TYPES[type_name]
    if end - start != source.byte_count(code, shape, what, at=8):
        raise source.error(f"{what} has a shape that does not fill its data_offsets {start}–{end}", at=8)
    return _Tensor(name, code, tuple(shape), source.offset + start, source.offset + end)


def _checked_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object without what Python lets pass: repeated keys, and halves of surrogate pairs, which no text can hold."""
    for key, value in pairs:
        f"{key}{value if isinstance(value, str) else ''}".encode()
    unique = dict(pairs)
    if len(unique) < len(pairs):
        raise ValueError("a key is repeated")
    return unique


def _stored_type(code: str) -> np.dtype:
    return np.dtype("<u2" if code == "bfloat16" else code)


def _type_code(dtype: np.dtype) -> str:
    return str(dtype.newbyteorder("<").str)


def _raw_bytes(array: np.ndarray) -> memoryview:
    """Elements in row order, little endian; copied only if they do not lie so already."""
    return np.asarray(array, _type_code(array.dtype), order="C").reshape(-1).view(np.uint8).data


def _encoded(text: str, path: Path | str) -> bytes:
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BortError(f"{path}: {_quoted(text[error.start : error.end])} in a name cannot be written as UTF-8; rename it") from None


def _quoted(name: str) -> str:
    """A name on one line of bearable length, whatever a damaged file holds in its place."""
    return repr(name if len(name) <= 200 else name[:200] + "…")
