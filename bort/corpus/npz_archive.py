"""NumPy's .npz container, written in one pass over the rows and read through memory maps.

A .npz file is a zip archive of .npy files (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

Notable: ``np.savez`` wants whole arrays and ``np.load`` gives them; here neither side holds more than a block of rows. Members that are
stored as they are get mapped where they lie in the archive; compressed ones are unpacked into a nameless temporary file first, which goes
away with the process. The bytes written depend on the arrays alone, not on the clock. A file is never trusted: what a header claims is held
against what is there before anything is mapped or read. Arrays of Python objects are pickles: they are loaded only where the caller says
so, and then only as far as they consist of NumPy arrays and plain values, so that a pickle finds no function to call.
"""

from __future__ import annotations

import hashlib
import json
import math
import mmap
import pickle
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np

from bort.errors import BortError
from bort.files import whole_file

_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip archive
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_COPIED_AT_ONCE = 1 << 20
_DAMAGED = "the file is damaged or incomplete; copy it or make it again"
# What a pickled array of arrays or numbers refers to; NumPy 2 says _core.
_PICKLED_NAMES = {(f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")} | {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
}


def write_npz_file(
    path: Path, blocks: Iterable[Mapping[str, np.ndarray]], extra: Mapping[str, np.ndarray], compressed: Collection[str] = ()
) -> int:
    """Write one archive, whole or not at all.

    Args:
        path: ends in ``.npz``.
        blocks: each the next rows of every array, under the same names, with the same types and the same shapes but for the number of rows.
        extra: small arrays to put in whole.
        compressed: names to deflate; the others are stored as they are, so that they can be mapped.

    Returns:
        The number of rows.

    Raises:
        OSError: if it cannot be written; the disk needs room for the arrays twice.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    spools: dict[str, IO[bytes]] = {}
    first: dict[str, np.ndarray] = {}
    rows = 0
    with ExitStack() as stack:
        for block in blocks:
            for name, array in block.items():
                if name not in spools:
                    first[name] = array[:0]
                    spools[name] = stack.enter_context(tempfile.TemporaryFile(dir=path.parent))
                spools[name].write(np.ascontiguousarray(array).data)
            rows += len(array)
        with whole_file(path) as partial, zipfile.ZipFile(partial, "w") as archive:
            for name, spool in spools.items():
                spool.seek(0)
                _add_member(archive, name, first[name].dtype, (rows, *first[name].shape[1:]), spool, name in compressed)
            for name, array in extra.items():
                with tempfile.TemporaryFile() as spool:
                    spool.write(array.tobytes())
                    spool.seek(0)
                    _add_member(archive, name, array.dtype, array.shape, spool, False)
    return rows


def _add_member(archive: zipfile.ZipFile, name: str, dtype: np.dtype, shape: tuple[int, ...], data: IO[bytes], deflate: bool) -> None:
    info = zipfile.ZipInfo(f"{name}.npy", _EARLIEST_DATE)
    info.compress_type = zipfile.ZIP_DEFLATED if deflate else zipfile.ZIP_STORED
    info.external_attr = 0o644 << 16
    # Beyond 2 GB a member needs the archive's 64-bit form, which must be known before its first byte is written.
    info.file_size = math.prod(shape) * dtype.itemsize
    with archive.open(info, "w") as member:
        header = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(member, header)
        shutil.copyfileobj(data, member, _COPIED_AT_ONCE)


@dataclass(frozen=True)
class Member:
    """One array of an archive, by what its header says.

    Attributes:
        dtype: of its elements; ``object`` for a pickled one.
        shape: of the array.
        data_start: bytes from the beginning of the .npy file to the elements.
        info: its entry in the archive's directory.
    """

    dtype: np.dtype
    shape: tuple[int, ...]
    data_start: int
    info: zipfile.ZipInfo

    @property
    def is_pickled(self) -> bool:
        return bool(self.dtype.hasobject)


class NpzFile:
    """An open archive; see :func:`open_npz`.

    Attributes:
        path: of the file.
        members: its arrays by name.
        fingerprint: of names and contents, from the CRC-32 that the archive's directory has of every member.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile) -> None:
        self.path = path
        self._archive = archive
        self.members: dict[str, Member] = {}
        for info in archive.infolist():
            name = info.filename.removesuffix(".npy")
            if name == info.filename:
                continue
            if name in self.members:
                raise BortError(f"{path}: holds the array {name!r} twice; {_DAMAGED}")
            self.members[name] = self._read_header(name, info)
        entries = sorted((name, member.info.CRC, member.info.file_size) for name, member in self.members.items())
        self.fingerprint = hashlib.sha256(json.dumps(entries).encode()).hexdigest()

    def map(self, name: str) -> np.ndarray:
        """A read-only view of an array that is not pickled. It outlives the open archive.

        Raises:
            BortError: if the member is damaged.
        """
        member = self.members[name]
        if 0 in member.shape:
            return np.empty(member.shape, member.dtype)
        size, offset = member.info.file_size, 0
        if member.info.compress_type == zipfile.ZIP_STORED:
            mapped, offset = self._map_in_place(name, member)
        else:
            with tempfile.TemporaryFile() as unpacked, self._archive.open(member.info) as packed:
                shutil.copyfileobj(packed, unpacked, _COPIED_AT_ONCE)
                unpacked.flush()
                if unpacked.tell() != size:
                    self._refuse(name, f"unpacks to {unpacked.tell()} bytes, not to the {size} that the archive's directory says")
                mapped = mmap.mmap(unpacked.fileno(), size, access=mmap.ACCESS_READ)
        return np.frombuffer(mapped, member.dtype, math.prod(member.shape), offset + member.data_start).reshape(member.shape)

    def unpickle(self, name: str) -> np.ndarray:
        """An array of Python objects, read into memory.

        Raises:
            BortError: if its pickle is damaged, does not hold what its header says, or refers to anything but NumPy's arrays.
        """
        member = self.members[name]
        with self._archive.open(member.info) as stream:
            stream.read(member.data_start)
            try:
                array = _ArrayUnpickler(stream).load()
            except BortError as error:
                self._refuse(name, str(error), "such a file can run code where it is loaded; get it from somewhere else")
            except Exception as error:  # a damaged pickle can raise anything
                self._refuse(name, f"its pickle cannot be read: {type(error).__name__}: {error}".splitlines()[0])
        if not isinstance(array, np.ndarray) or array.dtype != object or array.shape != member.shape:
            self._refuse(name, f"its pickle does not hold an object array of shape {member.shape}")
        return array

    def _read_header(self, name: str, info: zipfile.ZipInfo) -> Member:
        with self._archive.open(info) as stream:
            version = np.lib.format.read_magic(stream)
            if version not in ((1, 0), (2, 0)):
                self._refuse(name, f"is of version {version} of the .npy format")
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, fortran_order, dtype = read(stream)
            start = stream.tell()
        if fortran_order and len(shape) > 1:
            self._refuse(name, "is stored column by column", "save it in C order")
        if min(shape, default=0) < 0 or len(shape) > 32:
            self._refuse(name, f"has an impossible shape, {shape}")
        if not dtype.hasobject and start + math.prod(shape) * dtype.itemsize != info.file_size:
            self._refuse(name, f"has {info.file_size - start} bytes, which are not a {dtype} array of shape {shape}")
        return Member(dtype, shape, start, info)

    def _map_in_place(self, name: str, member: Member) -> tuple[mmap.mmap, int]:
        """The mapped archive, and where in it the member's .npy file begins."""
        with self.path.open("rb") as stream:
            mapped = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
        start = member.info.header_offset
        _, name_length, extra_length = _LOCAL_HEADER.unpack_from(mapped, start)
        start += _LOCAL_HEADER.size + name_length + extra_length
        if member.info.compress_size != member.info.file_size or start + member.info.file_size > len(mapped):
            self._refuse(name, "goes beyond the end of the file")
        return mapped, start

    def _refuse(self, name: str, problem: str, remedy: str = _DAMAGED) -> NoReturn:
        raise BortError(f"{self.path}: the array {name!r} {problem}; {remedy}")


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an archive and check the headers of all its arrays.

    Raises:
        BortError: if it cannot be read or is damaged, also while it is open.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            yield NpzFile(path, archive)
    except OSError as error:
        raise BortError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError) as error:
        # RuntimeError: encrypted, or packed by a method that Python lacks.
        raise BortError(f"{path}: not a .npz archive, or a damaged one: {str(error).splitlines()[0] if str(error) else error!r}") from None


class _ArrayUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _PICKLED_NAMES:
            raise BortError(f"its pickle refers to {module}.{name}, which is no part of an array")
        return super().find_class(module, name)
