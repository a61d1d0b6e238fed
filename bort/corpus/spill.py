"""Growing arrays in one file: what a worker knows of its part of a shard before the shard's size is known.

The file is the arrays' elements in the order in which they came, then a JSON trailer that says which came when, then the trailer's length
as a little-endian uint64. It gets its name when it is whole; as it is soon read and removed, it is not flushed to the disk first, and one
that a loss of power has cut short counts as absent.
"""

from __future__ import annotations

import hashlib
import json
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

_LENGTH = struct.Struct("<Q")
_BYTES_AT_ONCE = 1 << 20


@dataclass
class SpillWriter:
    """Appends to arrays.

    Attributes:
        stream: of the file.
        dtypes: of the arrays.
        facts: what the trailer is to hold besides, as JSON has it.
        counts: number of elements of each array so far.
    """

    stream: BinaryIO
    dtypes: Mapping[str, np.dtype[Any]]
    facts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.counts = dict.fromkeys(self.dtypes, 0)
        self._portions: list[tuple[str, int]] = []
        self._digest = hashlib.sha256()

    def add(self, name: str, elements: np.ndarray) -> None:
        """Append ``elements``, of shape (n,), to the array ``name``."""
        if len(elements):
            data = elements.astype(self.dtypes[name], copy=False).data
            self.stream.write(data)
            self._digest.update(data)
            self._portions.append((name, len(elements)))
            self.counts[name] += len(elements)

    def end(self) -> None:
        """Write the trailer."""
        trailer = {
            "dtypes": {name: dtype.str for name, dtype in self.dtypes.items()},
            "portions": self._portions,
            "digest": self._digest.hexdigest(),
            "facts": self.facts,
        }
        text = json.dumps(trailer).encode()
        self.stream.write(text + _LENGTH.pack(len(text)))


@contextmanager
def write_spill(path: Path, dtypes: Mapping[str, np.dtype[Any]]) -> Iterator[SpillWriter]:
    """Yield a writer of arrays of ``dtypes``; ``path`` appears on a clean exit.

    Raises:
        OSError: if the file cannot be written.
    """
    # Another process may be at the same file, left over from a run that was killed.
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with partial.open("wb") as stream:
            writer = SpillWriter(stream, dtypes)
            yield writer
            writer.end()
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Spill:
    """A whole file of arrays.

    Attributes:
        path: of the file.
        dtypes: of the arrays.
        portions: name and number of elements of each portion, in the order of the file.
        digest: SHA-256 of all elements in that order.
        facts: what the writer noted.
    """

    path: Path
    dtypes: dict[str, np.dtype[Any]]
    portions: list[tuple[str, int]]
    digest: str
    facts: dict[str, Any]

    def is_as_written(self) -> bool:
        """Whether the elements still have their digest; reads all of them."""
        left = sum(count * self.dtypes[name].itemsize for name, count in self.portions)
        digest = hashlib.sha256()
        with self.path.open("rb") as stream:
            while read := stream.read(min(left, _BYTES_AT_ONCE)):
                digest.update(read)
                left -= len(read)
        return digest.hexdigest() == self.digest

    def count(self, name: str) -> int:
        """Number of elements of an array."""
        return sum(count for other, count in self.portions if other == name)

    def elements(self, name: str) -> Iterator[np.ndarray]:
        """The elements of an array, about a mebibyte at once, in arrays that may be written to."""
        dtype = self.dtypes[name]
        with self.path.open("rb") as stream:
            offset = 0
            for other, count in self.portions:
                if other == name:
                    stream.seek(offset)
                    for first in range(0, count, _BYTES_AT_ONCE // dtype.itemsize):
                        yield np.fromfile(stream, dtype, min(count - first, _BYTES_AT_ONCE // dtype.itemsize))
                offset += count * self.dtypes[other].itemsize


def read_spill(path: Path) -> Spill | None:
    """The file ``path``, or None if there is none, or none that is whole."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(size - _LENGTH.size)
            (length,) = _LENGTH.unpack(stream.read())
            data_end = size - _LENGTH.size - length
            stream.seek(data_end)
            trailer = json.loads(stream.read(length))
        dtypes = {name: np.dtype(code) for name, code in trailer["dtypes"].items()}
        portions = [(name, count) for name, count in trailer["portions"]]
        if data_end != sum(count * dtypes[name].itemsize for name, count in portions):
            return None
        return Spill(path, dtypes, portions, trailer["digest"], trailer["facts"])
    except (FileNotFoundError, OSError, struct.error, ValueError, KeyError, TypeError):
        return None
