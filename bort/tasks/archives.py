"""Unpacks zip and gzipped tar archives as if their author meant harm.

It is a second line of defence: bort/tasks/download.py opens an archive only if its SHA-256 is the official one.

Notable: the caller says which members it wants and what each becomes, so nothing else is ever written, and a member's name never becomes a
path. Even so, a single member that points outside, is a link or a device, or is encrypted has the whole archive refused: what is wrong in
one place is not trusted in another. Sizes are counted while reading, whatever headers claim; checksums of zip and gzip are verified, and a
tar archive must have its end.
"""

from __future__ import annotations

import errno
import gzip
import re
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NoReturn

from bort.errors import BortError

_COPIED_AT_ONCE = 1 << 20
_TAR_BLOCK = 512
_ZIP_ENTRY = b"PK\x01\x02"
_REMEDY = "take it from another place"
# What Python's readers raise for bytes that make no sense; RecursionError for headers of headers of headers.
_DAMAGED = (
    zipfile.BadZipFile,
    tarfile.TarError,
    gzip.BadGzipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OverflowError,
    RecursionError,
    ValueError,
)


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold.

    Attributes:
        members: files, folders and all else.
        size: bytes unpacked, of all members.
        ratio: bytes unpacked for each byte of the archive; text has 3 to 10, what is made to fill a disk up to 1032.
        ratio_from: bytes unpacked below which the ratio does not matter.
    """

    members: int = 200_000
    size: int = 4 << 30
    ratio: int = 100
    ratio_from: int = 16 << 20


def unpack(
    archive: Path, folder: Path, place: Callable[[str], str | None], limits: Limits | None = None, called: str | None = None
) -> None:
    """Unpack the wanted members of an archive.

    Args:
        archive: a zip or a tar.gz file; which one is seen from its first bytes.
        folder: where the files go; it must be there. After an error it may hold some of them.
        place: maps a member's name to the relative path that it becomes, or to None for one to leave out.
        limits: how much to unpack at most.
        called: what errors call the archive; by default its path.

    Raises:
        BortError: if it is no archive, damaged, cut short, encrypted, too large, or has a member that has no business in it; names the
            archive and the member.
    """
    output = _Output(archive, folder, place, limits or Limits(), called or str(archive))
    with archive.open("rb") as file:
        start = file.read(2)
    try:
        if start.startswith(b"PK"):
            _unpack_zip(archive, output)
        elif start.startswith(b"\x1f\x8b"):
            _unpack_tar(archive, output)
        else:
            output.fail("neither a zip nor a tar.gz archive")
    except _DAMAGED as error:
        output.fail(f"the archive is damaged or cut short ({_shown(str(error))})", error)
    except OSError as error:
        # A seek to before the file's beginning, which only an offset in the archive can ask for; a full disk is another matter.
        if error.errno != errno.EINVAL:
            raise
        output.fail("the archive is damaged or cut short (an offset outside it)", error)


class _Output:
    """The files that come out of one archive, and how many bytes they are so far."""

    def __init__(self, archive: Path, folder: Path, place: Callable[[str], str | None], limits: Limits, called: str) -> None:
        self._folder = folder
        self._place = place
        self._called = called
        self.most_members = limits.members
        self.most = min(limits.size, max(limits.ratio_from, limits.ratio * archive.stat().st_size))
        self._size = 0
        self._members = 0
        self._places: set[str] = set()

    def fail(self, reason: str, cause: Exception | None = None) -> NoReturn:
        raise BortError(f"{self._called}: {reason}; {_REMEDY}") from cause

    def refuse(self, member: str, reason: str) -> NoReturn:
        self.fail(f"member {_shown(member)} {reason}")

    def admit(self, name: str) -> Path | None:
        """Check a member's name, and give the file that it becomes, if it is wanted."""
        self._members += 1
        if self._members > self.most_members:
            self.fail(f"more than {self.most_members} members")
        # A backslash separates folders on some systems, and a letter with a colon is a disk there.
        parts = name.replace("\\", "/").split("/")
        if "\0" in name or ".." in parts or not parts[0] or re.match(r"[A-Za-z]:", name):
            self.refuse(name, "points outside the folder")
        relative = self._place(name)
        if relative is None:
            return None
        if relative in self._places:
            self.refuse(name, f"is {relative} a second time")
        self._places.add(relative)
        return self._folder / relative

    def write(self, member: str, path: Path, content: IO[bytes]) -> int:
        """Write a member's file, and count its bytes."""
        path.parent.mkdir(parents=True, exist_ok=True)
        written = 0
        with path.open("xb") as file:
            while portion := content.read(_COPIED_AT_ONCE):
                self._size += len(portion)
                if self._size > self.most:
                    self.refuse(member, f"unpacks beyond {self.most} bytes, more than such data have")
                written += file.write(portion)
        return written


def _unpack_zip(archive: Path, output: _Output) -> None:
    # Python makes an object of every entry of the directory at the end before the first can be looked at.
    if sum(portion.count(_ZIP_ENTRY) for portion in _portions(archive)) > output.most_members:
        output.fail(f"more than {output.most_members} members")
    with zipfile.ZipFile(archive) as opened:
        wanted = []
        for info in opened.infolist():
            name = info.orig_filename
            path = output.admit(name)
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                output.refuse(name, f"is {_kind_of(kind)}")
            if info.flag_bits & 0x1:
                output.refuse(name, "is encrypted")
            if path is not None and not info.is_dir():
                if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    output.refuse(name, "is packed in an unusual way")
                wanted.append((info, path))
        for info, path in wanted:
            with opened.open(info) as content:
                size = output.write(info.orig_filename, path, content)
            if size != info.file_size:
                output.refuse(info.orig_filename, f"has {size} bytes where the archive's directory says {info.file_size}")


def _unpack_tar(archive: Path, output: _Output) -> None:
    with gzip.open(archive, "rb") as unzipped:
        blocks = _Blocks(unzipped, output)
        with tarfile.open(fileobj=blocks, mode="r:") as opened:  # type: ignore[call-overload]
            while (info := opened.next()) is not None:
                # tarfile keeps every header that it has read.
                opened.members = []
                path = output.admit(info.name)
                if not (info.isdir() or info.isreg()) or info.issparse():
                    output.refuse(info.name, f"is {_kind_of_tar(info)}")
                if info.size < 0:
                    output.refuse(info.name, f"has {info.size} bytes")
                if info.isreg() and path is not None:
                    content = opened.extractfile(info)
                    assert content is not None
                    if output.write(info.name, path, content) != info.size:
                        output.refuse(info.name, "is cut short")
        # tarfile takes any block that is no header for the end; the end is a block of zeros with nothing after it.
        if blocks.last != bytes(_TAR_BLOCK):
            output.fail("the archive is damaged or cut short (it has no end)")
        while rest := blocks.read(_COPIED_AT_ONCE):
            if rest.strip(b"\0"):
                output.fail("the archive is damaged (there is more after its end)")


class _Blocks:
    """Bytes of a tar archive for tarfile, which would read a header of any claimed length at once, and skip to any place."""

    def __init__(self, unzipped: gzip.GzipFile, output: _Output) -> None:
        self._unzipped = unzipped
        self._output = output
        self.last = b""

    def read(self, size: int) -> bytes:
        if not 0 <= size <= _COPIED_AT_ONCE:
            self._output.fail(f"a header of {size} bytes")
        self.last = self._unzipped.read(size)
        self._check(self._unzipped.tell())
        return self.last

    def seek(self, position: int) -> int:
        self._check(position)
        return self._unzipped.seek(position)

    def tell(self) -> int:
        return self._unzipped.tell()

    def _check(self, position: int) -> None:
        if not 0 <= position <= self._output.most:
            self._output.fail(f"unpacks beyond {self._output.most} bytes, more than such data have")


def _portions(path: Path) -> Iterator[bytes]:
    """The bytes of a file in overlapping portions, so that no signature is cut, and none counted twice."""
    overlap = len(_ZIP_ENTRY) - 1
    tail = b""
    with path.open("rb") as file:
        while portion := file.read(_COPIED_AT_ONCE):
            yield tail + portion
            tail = portion[-overlap:]


def _kind_of(mode: int) -> str:
    return {stat.S_IFLNK: "a symbolic link", stat.S_IFIFO: "a pipe", stat.S_IFSOCK: "a socket"}.get(mode, "a device")


def _kind_of_tar(info: tarfile.TarInfo) -> str:
    if info.issym():
        return "a symbolic link"
    if info.islnk():
        return "a hard link"
    return "a device or a pipe" if info.isdev() else "neither a file nor a folder"


def _shown(text: str) -> str:
    """A name or message from outside, on one line and cut."""
    shown = repr(text)
    return shown if len(shown) <= 100 else f"{shown[:100]}…"
