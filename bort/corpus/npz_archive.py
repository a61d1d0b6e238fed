"""NumPy's .npz container, written in one pass over the rows and read through memory maps.

A .npz file is a zip archive of .npy files (https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html).

Notable: ``np.savez`` wants whole arrays and ``np.load`` gives them; here neither side holds more than a block of rows. Members that are
stored as they are get mapped where they lie in the archive, once their checksum has proved right; deflated ones are unpacked in steps of
bounded size into a nameless temporary file first, which goes away with the process. The bytes written depend on the arrays alone, not on
the clock. A file is never trusted: what a header claims is held against what is there before anything is mapped or read. Arrays of Python
objects are pickles, which are never run: ``bort.corpus.npz_pickle`` reads the rows of numbers in them.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

import numpy as np

from bort.corpus.npz_pickle import read_pickled_rows
from bort.errors import BortError
from bort.files import whole_file

_EARLIEST_DATE = (1980, 1, 1, 0, 0, 0)  # of a zip archive
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_COPIED_AT_ONCE = 1 << 20
_DAMAGED = "the file is damaged or incomplete; copy it or make it again"
_LARGEST_HEADER = 1 << 16  # bytes of a .npy file; NumPy refuses longer ones than 10 000
_LARGEST_EXPANSION = 1032  # of deflate: 258 bytes from 2 bits
_ALIGNMENT = 64


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


@dataclass(frozen=True)
class Placement:
    """Where the elements of an array are: in the archive as they are stored, or in its spool, from byte ``start`` on."""

    in_archive: bool
    start: int
    dtype: np.dtype
    shape: tuple[int, ...]


class NpzFile:
    """An open archive; see :func:`open_npz`.

    What cannot be mapped where it lies goes to one nameless temporary file, the spool. So the views of an archive keep two descriptors open
    at most, however many arrays they are of.

    Attributes:
        path: of the file.
        members: its arrays by name.
        fingerprint: of names and contents, from the CRC-32 that the archive's directory has of every member. Stored members have proved to
            have it; of deflated ones, those that were unpacked.
    """

    def __init__(self, path: Path, archive: zipfile.ZipFile, spool: IO[bytes]) -> None:
        self.path = path
        self._archive = archive
        self._spool = spool
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
        """A read-only view of one array, as ``views(place(name))``."""
        return self.views({name: self.place(name)})[name]

    def place(self, name: str) -> Placement:
        """Make an array that is not pickled ready to be mapped: unpack it if it is deflated.

        Raises:
            BortError: if the member is damaged, or the disk has no room.
        """
        member = self.members[name]
        if member.info.compress_type == zipfile.ZIP_STORED:
            return Placement(True, self._start_in_archive(name, member) + member.data_start, member.dtype, member.shape)
        start = self._align_spool()
        with self._archive.open(member.info) as packed:
            while portion := packed.read(_COPIED_AT_ONCE):
                self._write_to_spool(portion)
        size = self._spool.tell() - start
        if size != member.info.file_size:
            self._refuse(name, f"unpacks to {size} bytes, not to the {member.info.file_size} that the archive's directory says")
        return Placement(False, start + member.data_start, member.dtype, member.shape)

    def spool(self, blocks: Iterable[np.ndarray]) -> Placement:
        """Write rows, in blocks of one type and width, where they can be mapped.

        Raises:
            BortError: if the disk has no room.
        """
        start, rows = self._align_spool(), 0
        for block in blocks:
            self._write_to_spool(np.ascontiguousarray(block).data)
            rows += len(block)
        return Placement(False, start, block.dtype, (rows, *block.shape[1:]))

    def views(self, placements: Mapping[str, Placement]) -> dict[str, np.ndarray]:
        """Read-only views of arrays. They outlive the open archive."""
        self._spool.flush()
        maps: dict[bool, mmap.mmap] = {}
        views = {}
        for name, placement in placements.items():
            if 0 in placement.shape:
                views[name] = np.empty(placement.shape, placement.dtype)
                continue
            if placement.in_archive not in maps:
                with self.path.open("rb") if placement.in_archive else nullcontext(self._spool) as stream:
                    maps[placement.in_archive] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            flat = np.frombuffer(maps[placement.in_archive], placement.dtype, math.prod(placement.shape), placement.start)
            views[name] = flat.reshape(placement.shape)
        return views

    def unpickle(self, name: str) -> list[np.ndarray]:
        """Rows of an array of Python objects, read into memory without running its pickle; see :func:`read_pickled_rows`.

        Raises:
            BortError: if its pickle is damaged, does not hold what its header says, or anything but rows of numbers.
        """
        member = self.members[name]
        with self._archive.open(member.info) as packed, io.BufferedReader(packed, _COPIED_AT_ONCE) as stream:  # type: ignore[type-var]
            stream.read(member.data_start)
            try:
                return read_pickled_rows(stream, member.shape)
            except (ValueError, LookupError, TypeError, OverflowError) as error:
                self._refuse(name, f"cannot be read: {error}".splitlines()[0])

    def _read_header(self, name: str, info: zipfile.ZipInfo) -> Member:
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            self._refuse(name, "is packed by another method than deflate", "save it with NumPy")
        if info.file_size > _LARGEST_EXPANSION * max(info.compress_size, 1):
            self._refuse(name, f"has {info.compress_size} bytes, which cannot unpack to the {info.file_size} that the directory says")
        with self._archive.open(info) as packed:
            stream = io.BytesIO(packed.read(_LARGEST_HEADER))
            if info.compress_type == zipfile.ZIP_STORED:
                while packed.read(_COPIED_AT_ONCE):
                    pass  # zipfile compares the checksum at the end
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

    def _start_in_archive(self, name: str, member: Member) -> int:
        """Where in the archive the member's .npy file begins."""
        start = member.info.header_offset
        with self.path.open("rb") as stream:
            stream.seek(start)
            _, name_length, extra_length = _LOCAL_HEADER.unpack(stream.read(_LOCAL_HEADER.size))
            end_of_file = stream.seek(0, io.SEEK_END)
        start += _LOCAL_HEADER.size + name_length + extra_length
        if member.info.compress_size != member.info.file_size or start + member.info.file_size > end_of_file:
            self._refuse(name, "goes beyond the end of the file")
        return int(start)

    def _align_spool(self) -> int:
        self._write_to_spool(bytes(-self._spool.tell() % _ALIGNMENT))
        return self._spool.tell()

    def _write_to_spool(self, portion: bytes | memoryview) -> None:
        # Written, not set through a map: on a full disk that would be a signal and not an error.
        try:
            self._spool.write(portion)
            self._spool.flush()
        except OSError as error:
            problem = f"cannot unpack {self.path} there: {error.strerror}"
            raise BortError(f"{tempfile.gettempdir()}: {problem}; make room, or set TMPDIR to a folder with room") from None

    def _refuse(self, name: str, problem: str, remedy: str = _DAMAGED) -> NoReturn:
        raise BortError(f"{self.path}: the array {name!r} {problem}; {remedy}")


@contextmanager
def open_npz(path: Path) -> Iterator[NpzFile]:
    """Open an archive, check the headers of all its arrays, and read what is stored once, for its checksum: about a second for a GB or two.

    Raises:
        BortError: if it cannot be read or is damaged, also while it is open.
    """
    try:
        with zipfile.ZipFile(path) as archive, tempfile.TemporaryFile() as spool:
            yield NpzFile(path, archive, spool)
    except OSError as error:
        raise BortError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, ValueError, OverflowError, RuntimeError) as error:
        # RuntimeError: encrypted, or packed by a method that Python lacks.
        raise BortError(f"{path}: not a .npz archive, or a damaged one: {str(error).splitlines()[0] if str(error) else error!r}") from None
