"""Text files as documents of sentences: one sentence a line, a blank line between documents.

Notable: files are read as bytes and decoded line by line, so a byte that is not UTF-8 costs one character (U+FFFD) and is counted; it
neither stops a long run nor shifts the text behind it.
"""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bort.errors import BortError


@dataclass
class ReadingReport:
    """What was met while reading.

    Attributes:
        sentences: lines that held text.
        documents: groups of them.
        undecodable_lines: lines with bytes that are not UTF-8, each replaced by U+FFFD.
    """

    sentences: int = 0
    documents: int = 0
    undecodable_lines: int = 0


def find_text_files(inputs: Sequence[str]) -> list[Path]:
    """Expand files, glob patterns and folders (their ``*.txt``), each item possibly a comma-separated list, in sorted order.

    Raises:
        BortError: if an item matches no file.
    """
    files: list[Path] = []
    for item in [part for text in inputs for part in text.split(",") if part]:
        path = Path(item)
        matches = sorted(path.glob("**/*.txt")) if path.is_dir() else [Path(match) for match in sorted(glob.glob(item, recursive=True))]
        if path.is_file():
            matches = [path]
        matches = [match for match in matches if match.is_file()]
        if not matches:
            raise BortError(f"{item}: no such text file; give files, patterns or folders with .txt files")
        files.extend(matches)
    if not files:
        raise BortError("no input file given")
    return list(dict.fromkeys(files))


def read_documents(files: Sequence[Path], report: ReadingReport) -> Iterator[list[str]]:
    """Yield each document as its sentences, without surrounding white space; a document never spans two files.

    Raises:
        BortError: if a file cannot be read.
    """
    for path in files:
        sentences: list[str] = []
        try:
            with path.open("rb") as lines:
                for line in lines:
                    sentence = _decode(line, report).strip()
                    if sentence:
                        sentences.append(sentence)
                    elif sentences:
                        yield _count(sentences, report)
                        sentences = []
        except OSError as error:
            raise BortError(f"{path}: cannot read: {error.strerror}") from None
        if sentences:
            yield _count(sentences, report)


def _decode(line: bytes, report: ReadingReport) -> str:
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError:
        report.undecodable_lines += 1
        return line.decode("utf-8", errors="replace")


def _count(sentences: list[str], report: ReadingReport) -> list[str]:
    report.documents += 1
    report.sentences += len(sentences)
    return sentences
