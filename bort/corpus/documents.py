"""Files of text: where they are found, their documents, and a report of what was met in them."""

from __future__ import annotations

import glob
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from tempfile import TemporaryDirectory

from bort.corpus.compression import SUFFIXES, decompress, is_compressed
from bort.corpus.sentences import OddLines, between_blank_lines
from bort.errors import BortError


@dataclass
class ReadingReport(OddLines):
    """What was met while reading, and what became of it.

    Attributes:
        text_bytes: of plain text.
        documents: with at least one token.
        sentences: lines that held text.
        sequences: for training.
        tokens: special tokens not included.
    """

    text_bytes: int = 0
    documents: int = 0
    sentences: int = 0
    sequences: int = 0
    tokens: int = 0

    @classmethod
    def from_json(cls, text: str) -> ReadingReport:
        """The report of which ``text`` is the mapping by name.

        Raises:
            TypeError, ValueError: if it is none.
        """
        report = cls(**json.loads(text))
        counts = [getattr(report, field.name) for field in fields(cls) if field.name != "first"]
        if not all(isinstance(count, int) for count in counts) or not isinstance(report.first, dict):
            raise TypeError
        return report

    def add(self, other: ReadingReport) -> None:
        """Add the counts of ``other``, which was read later."""
        self.first = other.first | self.first
        for field in (field for field in fields(ReadingReport) if field.name != "first"):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


def counted(number: int, thing: str) -> str:
    """``number`` of a thing, in words: "1 file", "2 files"."""
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


def find_text_files(inputs: Sequence[str], suffix: str = ".txt") -> list[Path]:
    """Expand files, glob patterns and folders, each item possibly a comma-separated list, in sorted order.

    Args:
        inputs: of a folder, those files count whose name ends in ``suffix``, or in ``suffix`` and ``.gz`` or ``.zst``.
        suffix: of plain files.

    Raises:
        BortError: if an item matches no file, or something that is neither file nor folder.
    """
    files: list[Path] = []
    for item in [part for text in inputs for part in text.split(",") if part]:
        path = Path(item)
        if path.is_dir():
            matches = sorted(match for ending in ("", *SUFFIXES) for match in path.glob(f"**/*{suffix}{ending}"))
        else:
            matches = [path] if path.is_file() else [Path(match) for match in sorted(glob.glob(item, recursive=True))]
        if any(match.exists() and not (match.is_file() or match.is_dir()) for match in matches):
            raise BortError(f"{item}: not a regular file, and text is read more than once; write it to a file first")
        matches = [match for match in matches if match.is_file()]
        if not matches:
            raise BortError(f"{item}: no such text file; give files, patterns or folders with {suffix} files, plain, .gz or .zst")
        files.extend(matches)
    if not files:
        raise BortError("no input file given")
    return list(dict.fromkeys(files))


def read_documents(files: Sequence[Path], report: ReadingReport) -> Iterator[list[str]]:
    """Yield each document of files in the form ``blank_line`` as its sentences.

    Raises:
        BortError: if a file cannot be read.
    """
    for path in files:
        document: list[str] = []
        with TemporaryDirectory() as folder:
            plain = path
            if is_compressed(path):
                plain = Path(folder) / path.stem
                decompress(path, plain)
            try:
                with plain.open("rb") as stream:
                    for batch in between_blank_lines(stream, 0, plain.stat().st_size, report, path):
                        bounds = [0, *batch.document_starts.tolist(), len(batch.sentences)]
                        for number in range(len(bounds) - 1):
                            if number and document:
                                yield _count(document, report)
                                document = []
                            document += batch.sentences[bounds[number] : bounds[number + 1]]
            except OSError as error:
                raise BortError(f"{path}: cannot read: {error.strerror}") from None
        if document:
            yield _count(document, report)


def _count(sentences: list[str], report: ReadingReport) -> list[str]:
    report.documents += 1
    report.sentences += len(sentences)
    return sentences
