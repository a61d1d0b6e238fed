"""Finished pieces become a shard, by copying: memory does not grow with the shard."""

from __future__ import annotations

import errno
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bort.corpus.documents import ReadingReport
from bort.corpus.pieces import COUNTS, ENDS, TOKENS, Piece, PieceReport, PieceWork
from bort.corpus.spill import read_spill
from bort.parameters import StreamedArray, write_safetensors


def assemble(
    work: PieceWork, pieces: Sequence[Piece], reports: Sequence[PieceReport], path: Path, metadata: Mapping[str, str]
) -> ReadingReport:
    """Write the shard ``path``, whole or not at all, and remove its pieces.

    Args:
        work: of the pieces.
        pieces: in order, none for a shard without text.
        reports: one a piece.
        metadata: of the shard; its counts and the digest of its contents are added.

    Returns:
        The sum of ``reports``.

    Raises:
        OSError: if the shard cannot be written.
    """
    total = ReadingReport()
    digest = hashlib.sha256()
    for report in reports:
        total.add(report.read)
        digest.update(report.digest.encode())
    arrays = {TOKENS: StreamedArray(work.dtype, (total.tokens,), _elements(work, pieces, TOKENS))}
    for name in ENDS:
        arrays[name] = StreamedArray(np.dtype(np.int64), (getattr(total, COUNTS[name]),), _elements(work, pieces, name))
    write_safetensors(path, arrays, {**metadata, "counts": json.dumps(asdict(total)), "contents": digest.hexdigest()})
    for piece in pieces:
        piece.path(work).unlink()
    return total


def _elements(work: PieceWork, pieces: Sequence[Piece], name: str) -> Iterator[np.ndarray]:
    tokens_before = 0
    for piece in pieces:
        spill = read_spill(piece.path(work))
        if spill is None:
            raise OSError(errno.EIO, "it is not as it was written", str(piece.path(work)))
        for elements in spill.elements(name):
            if name in ENDS:
                elements += tokens_before
            yield elements
        tokens_before += spill.count(TOKENS)
