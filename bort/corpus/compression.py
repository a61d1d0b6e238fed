"""Compressed text, told by its suffix ``.gz`` or ``.zst``, as a stream of plain bytes.

Notable: damage and truncation end in a ``BortError`` that names the file; neither ever looks like the end of the text.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path

import zstandard

from bort.errors import BortError
from bort.files import whole_file

SUFFIXES = (".gz", ".zst")
_CHUNK = 1 << 20
# A few bytes of Zstandard may stand for thirty thousand times as many, which its library would put into memory at once.
_ZSTANDARD_CHUNK = 1 << 11


def is_compressed(path: Path) -> bool:
    """Whether ``path`` has a suffix of compressed text."""
    return path.suffix.lower() in SUFFIXES


def decompress(path: Path, plain: Path) -> None:
    """Write what the compressed file ``path`` holds to ``plain``, whole or not at all, in bounded memory.

    Raises:
        BortError: if ``path`` cannot be read, or is damaged or incomplete.
        OSError: if ``plain`` cannot be written.
    """
    if path.is_file() and path.stat().st_size == 0:
        # Not even the text of no bytes compresses to none.
        raise BortError(f"{path}: damaged or incomplete: it is empty; copy or download it again")
    read = _read_gzip if path.suffix.lower() == ".gz" else _read_zstandard
    with whole_file(plain) as partial, partial.open("wb") as stream:
        for chunk in _blaming(path, read(path)):
            stream.write(chunk)


def _blaming(path: Path, chunks: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from chunks
    except (gzip.BadGzipFile, zlib.error, zstandard.ZstdError, EOFError) as error:
        raise BortError(f"{path}: damaged or incomplete: {' '.join(str(error).split())}; copy or download it again") from None
    except OSError as error:
        raise BortError(f"{path}: cannot read: {error.strerror}") from None


def _read_gzip(path: Path) -> Iterator[bytes]:
    with gzip.open(path) as stream:
        while chunk := stream.read(_CHUNK):
            yield chunk


def _read_zstandard(path: Path) -> Iterator[bytes]:
    library = zstandard.ZstdDecompressor()
    frame = library.decompressobj()
    begun = False
    with path.open("rb") as stream:
        while data := stream.read(_ZSTANDARD_CHUNK):
            while data:
                begun = True
                yield frame.decompress(data)
                if not frame.eof:
                    break
                # Several frames may follow each other, as in a .gz file.
                data, frame, begun = frame.unused_data, library.decompressobj(), False
    if begun:
        raise EOFError("it ends in the middle of a frame")
