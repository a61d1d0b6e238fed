"""A piece of the text, a few mebibytes: the unit of work of ``create_shards``, and of what a killed run need not do again.

The files stand one behind the other on one line of bytes, and a piece is a range of it. Its tokens, and where documents, sentences and
sequences end, counted in tokens from the piece's beginning, go to a file of growing arrays.

Notable: a piece holds the documents that begin in it, read to their ends wherever those are, so its file depends on the text and the
settings alone. No document, and no array, is ever in memory as a whole.
"""

from __future__ import annotations

import errno
import os
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from itertools import accumulate, pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.corpus.documents import ReadingReport
from bort.corpus.packing import Packer
from bort.corpus.sentences import SentenceBatch, between_blank_lines, json_records, one_a_line
from bort.corpus.spill import SpillWriter, read_spill, write_spill
from bort.errors import BortError
from bort.settings import ShardSettings
from bort.tokenizer import Tokenizer

PIECE_BYTES = 1 << 22
TOKENS, DOCUMENTS, SENTENCES, SEQUENCES = "token_ids", "document_ends", "sentence_ends", "sequence_ends"
ENDS = (DOCUMENTS, SENTENCES, SEQUENCES)
COUNTS = {TOKENS: "tokens", DOCUMENTS: "documents", SENTENCES: "sentences", SEQUENCES: "sequences"}


@dataclass(frozen=True)
class TextFile:
    """A plain file of text.

    Attributes:
        path: where its bytes are.
        name: the input it comes from, another file if that is compressed.
        size: bytes.
    """

    path: Path
    name: Path
    size: int


@dataclass(frozen=True)
class PieceWork:
    """What all pieces of a text have in common.

    Attributes:
        files: the text.
        tokenizer: cuts it.
        settings: of the shards.
        folder: where the pieces go.
    """

    files: Sequence[TextFile]
    tokenizer: Tokenizer
    settings: ShardSettings
    folder: Path

    @cached_property
    def firsts(self) -> list[int]:
        """Where each file begins on the line of all bytes, and where the last one ends."""
        return [0, *accumulate(file.size for file in self.files)]

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger]:
        """The smallest that holds every id."""
        return np.min_scalar_type(len(self.tokenizer.vocab) - 1)


@dataclass(frozen=True)
class Piece:
    """A range of the line of all bytes, ``start`` … ``stop`` - 1."""

    start: int
    stop: int

    def path(self, work: PieceWork) -> Path:
        """Its file."""
        return work.folder / f"piece_{self.start:015d}"


@dataclass(frozen=True)
class PieceReport:
    """What a piece holds.

    Attributes:
        read: counts.
        digest: SHA-256 of its tokens and ends.
        was_there: whether an earlier run has made it.
    """

    read: ReadingReport
    digest: str
    was_there: bool


def cut_into_pieces(start: int, stop: int) -> list[Piece]:
    """Pieces of about equal size that make up a range."""
    count = -(-(stop - start) // PIECE_BYTES)
    bounds = [start + number * (stop - start) // count for number in range(count + 1)] if count else []
    return [Piece(first, last) for first, last in pairwise(bounds)]


def make_piece(work: PieceWork, piece: Piece) -> PieceReport:
    """Tokenise and pack a piece, unless its file is there.

    A piece that is there is held against its digest, and made again if it is another.

    Raises:
        BortError: if the text cannot be read, or has changed since its size was taken, or is not what the settings say.
        OSError: if the file cannot be written.
    """
    path = piece.path(work)
    spill = read_spill(path)
    # Pieces are not flushed to the disk: of one whose end has survived a loss of power, pages before it may have been lost.
    was_there = spill is not None and spill.is_as_written()
    if not was_there:
        read = ReadingReport(text_bytes=piece.stop - piece.start)
        with write_spill(path, {TOKENS: work.dtype} | dict.fromkeys(ENDS, np.dtype(np.int64))) as writer:
            for number in range(bisect_right(work.firsts, piece.start) - 1, len(work.files)):
                first, last = work.firsts[number : number + 2]
                if first >= piece.stop:
                    break
                if first < last:
                    _tokenise(work, number, max(piece.start - first, 0), min(piece.stop, last) - first, writer, read)
            for name, field in COUNTS.items():
                setattr(read, field, writer.counts[name])
            writer.facts = asdict(read)
        spill = read_spill(path)
    if spill is None:
        raise OSError(errno.EIO, "it is not as it was written", str(path))
    return PieceReport(ReadingReport(**spill.facts), spill.digest, was_there)


def _tokenise(work: PieceWork, number: int, start: int, stop: int, writer: SpillWriter, read: ReadingReport) -> None:
    """Add the documents of file ``number`` that begin in ``start`` … ``stop`` - 1."""
    file, settings = work.files[number], work.settings
    try:
        with file.path.open("rb") as stream:
            if os.fstat(stream.fileno()).st_size != file.size:
                raise BortError(f"{file.name}: its size has changed while it was read; run again when it is whole")
            if settings.documents == "blank_line":
                batches = between_blank_lines(stream, start, stop, read, file.name)
            elif settings.documents == "line":
                batches = one_a_line(stream, start, stop, read, file.name)
            else:
                batches = json_records(stream, start, stop, read, file.name, settings.text_key)
            begun = writer.counts[TOKENS]
            packer = Packer(settings.max_seq_length - 2, settings.short_seq_prob, settings.seed, number, begun)
            for tokens, bounds, batch in _encoded(batches, work.tokenizer):
                bounds += writer.counts[TOKENS]
                sentence_ends, document_ends = bounds[1:], bounds[batch.document_starts]
                writer.add(TOKENS, tokens)
                writer.add(SENTENCES, sentence_ends)
                writer.add(DOCUMENTS, document_ends[document_ends > begun])
                writer.add(SEQUENCES, packer.add(sentence_ends, batch.document_starts, batch.document_offsets))
            writer.add(SEQUENCES, packer.finish())
            if writer.counts[TOKENS] > begun:
                writer.add(DOCUMENTS, np.array([writer.counts[TOKENS]], dtype=np.int64))
    except OSError as error:
        if error.filename is None or Path(error.filename) != file.path:
            raise
        raise BortError(f"{file.name}: cannot read: {error.strerror}") from None


def _encoded(
    batches: Iterator[SentenceBatch], tokenizer: Tokenizer
) -> Iterator[tuple[NDArray[np.unsignedinteger], NDArray[np.int64], SentenceBatch]]:
    """Tokens of each batch, where its sentences begin among them with the last one's end, and the batch.

    Sentences and documents without a token are left out: a SentencePiece model may have none for a line of exotic white space.
    """
    waiting: int | None = None
    for batch in batches:
        tokens, bounds = tokenizer.encode_ragged(batch.sentences)
        lengths = np.diff(bounds)
        starts, offsets = batch.document_starts, batch.document_offsets
        if waiting is not None and (len(starts) == 0 or starts[0] > 0):
            starts, offsets = np.concatenate([[0], starts]), np.concatenate([[waiting], offsets])
        waiting = None
        if lengths.min() == 0:
            kept = lengths > 0
            starts = np.concatenate([[0], np.cumsum(kept)])[starts]
            # Of documents that now begin at one sentence, all but the last have none; one that begins behind the last waits for the next.
            real = np.append(starts[1:] > starts[:-1], True) if len(starts) else starts
            starts, offsets, bounds = starts[real], offsets[real], np.concatenate([[0], bounds[1:][kept]])
            if len(starts) and starts[-1] == kept.sum():
                waiting = int(offsets[-1])
                starts, offsets = starts[:-1], offsets[:-1]
        yield tokens, bounds, SentenceBatch(batch.sentences, starts, offsets)
