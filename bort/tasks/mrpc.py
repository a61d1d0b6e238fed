"""Builds GLUE's three MRPC files from the Microsoft Research Paraphrase Corpus.

GLUE may not publish the corpus; its own script makes the three files from the corpus's two and a list of the pairs that are the
development set. SentEval's copy, which GLUE's script downloads, is already tokenised (spaces around punctuation), so a model's input ids
differ from those of files made from the original.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bort.errors import BortError

_COLUMNS = 5
_TEST_HEADER = b"index\t#1 ID\t#2 ID\t#1 String\t#2 String\n"
_REMEDY = "take the file from another place"


def write_mrpc(train: Path, test: Path, dev_ids: Path, folder: Path) -> None:
    """Write ``train.tsv``, ``dev.tsv`` and ``test.tsv``.

    Args:
        train: ``msr_paraphrase_train.txt``: a header, then lines of label, two ids and two sentences.
        test: ``msr_paraphrase_test.txt``, likewise.
        dev_ids: lines of two ids, the pairs of the training file that go to ``dev.tsv``.
        folder: where the files go.

    Raises:
        BortError: if a line is laid out otherwise, or a pair of the development set is not in the training file; names the file and the
            line.
    """
    pairs = {tuple(line.split(b"\t")): number for number, line in _lines(dev_ids)}
    rows = _lines(train)
    header = next(rows, (1, b""))[1]
    found = set()
    with (folder / "train.tsv").open("wb") as train_file, (folder / "dev.tsv").open("wb") as dev_file:
        train_file.write(header + b"\n")
        dev_file.write(header + b"\n")
        for number, line in rows:
            pair = tuple(_cells(train, number, line)[1:3])
            if pair in pairs:
                found.add(pair)
            (dev_file if pair in pairs else train_file).write(line + b"\n")
    for pair, number in pairs.items():
        if pair not in found:
            raise BortError(f"{dev_ids.name}, line {number}: the pair is not in {train.name}; {_REMEDY}")
    with (folder / "test.tsv").open("wb") as test_file:
        test_file.write(_TEST_HEADER)
        for index, (number, line) in enumerate(list(_lines(test))[1:]):
            test_file.write(b"\t".join((str(index).encode(), *_cells(test, number, line)[1:])) + b"\n")


def _cells(path: Path, number: int, line: bytes) -> list[bytes]:
    cells = line.split(b"\t")
    if len(cells) != _COLUMNS:
        raise BortError(f"{path.name}, line {number}: {len(cells)} columns where {_COLUMNS} are needed; {_REMEDY}")
    return cells


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Number from 1 and bytes of every line, without white space around it, as GLUE's script reads them."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.strip()
