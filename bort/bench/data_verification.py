"""Compares shards with the text they were made from, along the slow path: a plain reading loop and the reference's tokenisation.

It reads the shard with the project's reader of safetensors and the text with a loop of its own, without the code that cuts text into
blocks, packs it, and tokenises it fast. Text is plain, one sentence per line. Sentence and document ends are compared throughout; ids too,
unless the text is so long that a stated sample of blocks has to do, the first of them always.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bort.corpus.lines import LONGEST_LINE
from bort.errors import BortError
from bort.parameters import map_safetensors

_BLOCK = 1000  # sentences
_SHOWN = 60  # characters of a sentence in a message


class Encoder(Protocol):
    """The part of a tokenizer that gives ids without special tokens."""

    def encode(self, text: str) -> list[int]: ...


@dataclass
class Verification:
    """What was compared, all of it equal.

    Attributes:
        documents, sentences, tokens: of the shards.
        sentences_encoded: those whose ids were compared.
        bytes_encoded: UTF-8 bytes of them.
        seconds: that the reference took to encode them.
    """

    documents: int = 0
    sentences: int = 0
    tokens: int = 0
    sentences_encoded: int = 0
    bytes_encoded: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Sentence:
    """A line with text, where it stands, and whether it opens a document."""

    text: str
    file: Path
    line: int
    opens_document: bool


def read_sentences(files: Iterable[Path]) -> Iterator[Sentence]:
    """Lines with text, without a byte order mark before the first; a blank line and a file's end end a document.

    Raises:
        BortError: if a line is so long that it would be cut.
    """
    for file in files:
        opens_document = True
        with file.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                if len(line) > LONGEST_LINE:
                    raise BortError(f"{file}, line {number}: {len(line)} bytes, which are cut into several sentences; give other text")
                text = line.decode("utf-8-sig" if number == 1 else "utf-8", errors="replace").strip()
                if text:
                    yield Sentence(text, file, number, opens_document)
                opens_document = not text


def verify_shard(files: Sequence[Path], shard: Path, reference: Encoder, share: float = 1.0, show_progress: bool = False) -> Verification:
    """Compare the only shard of its set with the text.

    Args:
        files: the text, one sentence per line.
        reference: what is right.
        share: of the blocks of sentences whose ids are compared, in (0, 1], drawn with a fixed seed; all others only by their ends.

    Raises:
        BortError: at the first difference; the message names the sentence.
    """
    arrays, _ = map_safetensors(shard)
    tokens, sentence_ends, document_ends = arrays["token_ids"], arrays["sentence_ends"], arrays["document_ends"]
    sampled = np.random.default_rng(0)
    result = Verification()
    lengths_of_documents: list[int] = []
    sentences = iter(tqdm(read_sentences(files), desc="verifying", unit=" sentences", disable=None if show_progress else True))
    while block := list(itertools.islice(sentences, _BLOCK)):
        for sentence in block:
            if sentence.opens_document:
                lengths_of_documents.append(0)
            lengths_of_documents[-1] += 1
        first = result.sentences
        result.sentences += len(block)
        if result.sentences > len(sentence_ends):
            raise BortError(
                f"{shard}: ends after sentence {len(sentence_ends)}; the text continues at {_where(block[len(sentence_ends) - first])}"
            )
        # At least one block is compared, however small the share.
        if sampled.random() < share or first == 0:
            _compare_ids(block, _sentences_of(tokens, sentence_ends, first, len(block)), shard, reference, result)
    if result.sentences != len(sentence_ends):
        raise BortError(f"{shard}: holds {len(sentence_ends)} sentences, the text has {result.sentences}")
    result.tokens, result.documents = len(tokens), len(lengths_of_documents)
    if not np.array_equal(document_ends, sentence_ends[np.cumsum(lengths_of_documents) - 1]):
        raise BortError(f"{shard}: its {len(document_ends)} documents do not end where the {result.documents} of the text end")
    return result


def _compare_ids(block: Sequence[Sentence], found: Iterator[list[int]], shard: Path, reference: Encoder, result: Verification) -> None:
    start = time.perf_counter()
    expected = [reference.encode(sentence.text) for sentence in block]
    result.seconds += time.perf_counter() - start
    for sentence, right, ids in zip(block, expected, found, strict=True):
        if ids != right:
            place = next(
                (place for place, (one, other) in enumerate(zip(ids, right, strict=False)) if one != other), min(len(ids), len(right))
            )
            raise BortError(
                f"{shard}: {_where(sentence)} has other ids than by the reference, from token {place} of the sentence on: "
                f"{ids[place : place + 5]} in place of {right[place : place + 5]}"
            )
        result.bytes_encoded += len(sentence.text.encode())
    result.sentences_encoded += len(block)


def _sentences_of(tokens: np.ndarray, ends: NDArray[np.int64], first: int, count: int) -> Iterator[list[int]]:
    bounds = [int(ends[first - 1]) if first else 0, *ends[first : first + count].tolist()]
    return (tokens[start:end].tolist() for start, end in itertools.pairwise(bounds))


def _where(sentence: Sentence) -> str:
    shown = sentence.text if len(sentence.text) <= _SHOWN else sentence.text[:_SHOWN] + "…"
    return f"{sentence.file}, line {sentence.line} ({shown!r})"
