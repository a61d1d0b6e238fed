"""Shards: tokenised text on disk, memory-mapped, without pickle.

A shard is a safetensors file, so any reader of that format can look inside. ``token_ids`` holds all tokens of its documents without special
tokens, in the smallest unsigned type that fits the vocabulary; ``document_ends``, ``sentence_ends`` and ``sequence_ends`` (int64) say where
each document, sentence and training sequence ends. The header's metadata says how it was made: format version, vocabulary fingerprint,
longest sequence, source files.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bort.corpus.documents import ReadingReport, read_documents
from bort.corpus.packing import pack_full_sentences
from bort.errors import BortError
from bort.parameters import map_safetensors, write_parameters
from bort.randomness import Purpose, generator
from bort.settings import ShardSettings
from bort.tokenizer import Tokenizer

FORMAT = "bort-shard"
VERSION = 1
SHARD_PATTERN = "shard_*.safetensors"
_SENTENCES_AT_ONCE = 20_000


def shard_names(count: int) -> list[str]:
    """File names of a set of ``count`` shards."""
    return [f"shard_{index:04d}_of_{count:04d}.safetensors" for index in range(count)]


class _ShardBuilder:
    """Tokens and ends of one shard while it grows."""

    def __init__(self, dtype: np.dtype[np.unsignedinteger]) -> None:
        self._dtype = dtype
        self._tokens: list[NDArray[np.unsignedinteger]] = []
        self._ends: dict[str, list[NDArray[np.int64]]] = {"document_ends": [], "sentence_ends": [], "sequence_ends": []}
        self.num_tokens = 0

    def add(self, tokens: NDArray[np.unsignedinteger], sentence_ends: NDArray[np.int64], sequence_ends: Sequence[int]) -> None:
        ends = {"document_ends": [len(tokens)], "sentence_ends": sentence_ends, "sequence_ends": sequence_ends}
        for name, values in ends.items():
            self._ends[name].append(np.asarray(values, dtype=np.int64) + self.num_tokens)
        self._tokens.append(tokens.astype(self._dtype))
        self.num_tokens += len(tokens)

    def arrays(self) -> dict[str, np.ndarray]:
        return {"token_ids": np.concatenate(self._tokens)} | {name: np.concatenate(ends) for name, ends in self._ends.items()}


def create_shards(files: Sequence[Path], tokenizer: Tokenizer, output: Path, settings: ShardSettings) -> ReadingReport:
    """Tokenise text files into ``settings.num_outputs`` shards under ``output``; document *i* goes to shard *i* mod the number of shards.

    Returns:
        What was read.

    Raises:
        BortError: if a file cannot be read, or there are fewer documents with text than shards.
    """
    vocab = tokenizer.vocab
    dtype: np.dtype[np.unsignedinteger] = np.min_scalar_type(len(vocab) - 1)
    builders = [_ShardBuilder(dtype) for _ in range(settings.num_outputs)]
    report = ReadingReport()
    for number, (tokens, sentence_ends) in enumerate(_tokenise(read_documents(files, report), tokenizer)):
        random = generator(Purpose.PACKING, settings.seed, number)
        sequence_ends = pack_full_sentences(sentence_ends, settings.max_seq_length - 2, settings.short_seq_prob, random)
        builders[number % settings.num_outputs].add(tokens, sentence_ends, sequence_ends)
    if any(builder.num_tokens == 0 for builder in builders):
        raise BortError(
            f"{files[0]}{' and others' if len(files) > 1 else ''}: {report.documents} documents do not fill {settings.num_outputs} shards; "
            "documents are separated by blank lines; give more text or fewer --num_outputs"
        )
    metadata = {
        "format": FORMAT,
        "version": str(VERSION),
        "vocab_fingerprint": vocab.fingerprint,
        "vocab_size": str(len(vocab)),
        "settings": json.dumps(asdict(settings)),
        "source_files": json.dumps([str(file) for file in files]),
    }
    names = shard_names(settings.num_outputs)
    for name, builder in zip(names, builders, strict=True):
        write_parameters(output / name, builder.arrays(), metadata)
    for stale in set(output.glob(SHARD_PATTERN)) - {output / name for name in names}:
        stale.unlink()
    return report


def _tokenise(documents: Iterator[list[str]], tokenizer: Tokenizer) -> Iterator[tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]]:
    """Tokens and sentence ends of each document; documents are tokenised together, because one call for many sentences is fast."""
    pending: list[list[str]] = []
    waiting = 0
    for document in documents:
        pending.append(document)
        waiting += len(document)
        if waiting >= _SENTENCES_AT_ONCE:
            yield from _tokenise_together(pending, tokenizer)
            pending, waiting = [], 0
    yield from _tokenise_together(pending, tokenizer)


def _tokenise_together(documents: list[list[str]], tokenizer: Tokenizer) -> Iterator[tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]]:
    encoded = iter(tokenizer.encode_batch([sentence for document in documents for sentence in document]))
    for document in documents:
        sentences = [next(encoded) for _ in document]
        ends = np.cumsum([len(sentence) for sentence in sentences], dtype=np.int64)
        # A SentencePiece model may have no token for a line of exotic white space.
        if ends[-1]:
            yield np.concatenate(sentences), ends


class Corpus:
    """All sequences of a folder of shards, by number, without reading them into memory.

    Args:
        directory: folder of a whole set of shards.
        vocab_fingerprint: of the vocabulary the shards must have been made with; None accepts any.

    Raises:
        BortError: if there is no shard, one is missing or damaged, or they were not made together or with this vocabulary.
    """

    def __init__(self, directory: Path | str, vocab_fingerprint: str | None = None) -> None:
        directory = Path(directory)
        paths = sorted(directory.glob(SHARD_PATTERN))
        if not paths:
            raise BortError(f"{directory}: no shards ({SHARD_PATTERN}); make them with: bort data --help")
        if [path.name for path in paths] != shard_names(len(paths)):
            raise BortError(f"{directory}: its {len(paths)} shards are not one whole set; make them again: bort data --help")
        self._tokens: list[np.ndarray] = []
        self._bounds: list[NDArray[np.int64]] = []
        digest = hashlib.sha256()
        origins = set()
        for path in paths:
            arrays, metadata = map_safetensors(path)
            self.max_seq_length = _check_shard(path, arrays, metadata, vocab_fingerprint)
            origins.add(json.dumps(metadata, sort_keys=True))
            self._tokens.append(arrays["token_ids"])
            self._bounds.append(np.concatenate([[0], arrays["sequence_ends"]]))
            digest.update(arrays["sequence_ends"].tobytes())
        if len(origins) > 1:
            raise BortError(f"{directory}: its shards were made from different texts or with different settings; make them again")
        self._vocab_size = int(metadata["vocab_size"])
        self._firsts = np.cumsum([0, *(len(bounds) - 1 for bounds in self._bounds)])
        self.fingerprint = hashlib.sha256(digest.digest() + origins.pop().encode()).hexdigest()
        """Of the texts' files, the settings and every sequence's length."""

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Token ids of sequence ``index`` without special tokens, shape (n,) with 1 ≤ n ≤ ``max_seq_length`` - 2.

        Raises:
            BortError: if a shard is damaged so that an id lies outside the vocabulary.
        """
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        bounds = self._bounds[shard]
        position = index - int(self._firsts[shard])
        tokens = self._tokens[shard][bounds[position] : bounds[position + 1]].astype(np.int32)
        if tokens.max() >= self._vocab_size:
            raise BortError(
                f"shard {shard}, sequence {position}: token id {tokens.max()} in a vocabulary of {self._vocab_size}; make it again"
            )
        return tokens


def _check_shard(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str], vocab_fingerprint: str | None) -> int:
    """The shard's ``max_seq_length``, once its header and ends have proved sound."""
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise BortError(f"{path}: not a shard of format {FORMAT} {VERSION}; make it again with bort data")
    try:
        fingerprint, max_seq_length = metadata["vocab_fingerprint"], int(json.loads(metadata["settings"])["max_seq_length"])
        ends, tokens, _ = arrays["sequence_ends"], arrays["token_ids"], int(metadata["vocab_size"])
    except (KeyError, TypeError, ValueError):
        raise BortError(f"{path}: the shard's header is damaged; make it again with bort data") from None
    if vocab_fingerprint is not None and fingerprint != vocab_fingerprint:
        raise BortError(f"{path}: made with another vocabulary than the model's; make the shards again, or give the right --vocab")
    if ends.ndim != 1 or ends.dtype != np.int64 or tokens.ndim != 1 or tokens.dtype.kind != "u" or len(ends) == 0:
        raise BortError(f"{path}: its arrays are not those of a shard; make it again with bort data")
    lengths = np.diff(ends, prepend=0)
    if ends[-1] != len(tokens) or lengths.min() < 1:
        raise BortError(f"{path}: the ends of its sequences do not fit its {tokens.size} tokens; make it again with bort data")
    if lengths.max() > max_seq_length - 2:
        raise BortError(f"{path}: a sequence of {lengths.max()} tokens in a shard of max_seq_length {max_seq_length}; make it again")
    return max_seq_length
