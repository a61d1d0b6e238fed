"""Files that appear whole or not at all.

A reader never sees half a file: contents go to a temporary neighbour in the same folder, are flushed to the disk, and take their final
name in one rename, which POSIX makes atomic within a file system. A process killed halfway leaves a neighbour whose name begins with a
dot and ends in ``.partial``, which nothing reads.
"""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def whole_file(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path to write; on a clean exit it becomes ``path``, on an exception it is removed and ``path`` stays as it was.

    Missing parent folders are made.

    Raises:
        OSError: if the folder cannot be written, or ``path`` is a directory.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent)
    os.close(descriptor)
    partial = Path(name)
    try:
        yield partial
        _flush_to_disk(partial)
        # mkstemp makes files that only their owner can read; give the mode that open() would have given.
        partial.chmod(0o666 & ~_umask())
        partial.replace(path)
        _flush_to_disk(path.parent)
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def whole_directory(path: Path | str) -> Iterator[Path]:
    """Yield a temporary directory to fill; on a clean exit it becomes ``path``, replacing a directory of that name.

    A link to a directory stays a link, and what it points to is replaced.

    Raises:
        OSError: if the folder cannot be written, or ``path`` is something else than a directory.
    """
    path = Path(path).resolve()
    if path.exists() and not path.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".partial", dir=path.parent))
    try:
        yield partial
        for file in sorted(partial.rglob("*")):
            _flush_to_disk(file)
        partial.chmod(0o777 & ~_umask())
        _flush_to_disk(partial)
        if path.exists():
            # rename() cannot replace a directory that holds files, so the old one steps aside first, and back if the new one cannot come.
            retired = partial.with_name(f"{partial.name.removesuffix('.partial')}.retired.partial")
            path.rename(retired)
            try:
                partial.rename(path)
            except OSError:
                retired.rename(path)
                raise
            shutil.rmtree(retired)
        else:
            partial.rename(path)
        _flush_to_disk(path.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def write_text(path: Path | str, text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, whole or not at all."""
    with whole_file(path) as partial:
        partial.write_text(text, encoding="utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal.

    Raises:
        OSError: if the file cannot be read.
    """
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while portion := file.read(1 << 20):
            digest.update(portion)
    return digest.hexdigest()


def _flush_to_disk(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
