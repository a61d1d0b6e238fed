"""Shards: tokenised text on disk, memory-mapped, without pickle.

A shard is a safetensors file, so any reader of that format can look inside. ``token_ids`` holds all tokens of its documents without special
tokens, in the smallest unsigned type that fits the vocabulary; ``document_ends``, ``sentence_ends`` and ``sequence_ends`` (int64) say where
each document, sentence and training sequence ends. The header's metadata says how it was made: format version, vocabulary fingerprint,
longest sequence, source files.
"""

from __future__ import annotations

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
_SENTENCES_AT_ONCE = 20_000


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
    for index, builder in enumerate(builders):
        write_parameters(output / f"shard_{index:04d}_of_{settings.num_outputs:04d}.safetensors", builder.arrays(), metadata)
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
        directory: folder of shards, or one shard.
        vocab_fingerprint: of the vocabulary the shards must have been made with; None accepts any.

    Raises:
        BortError: if there is no shard, one is damaged, or shards differ in vocabulary or length.
    """

    def __init__(self, directory: Path | str, vocab_fingerprint: str | None = None) -> None:
        directory = Path(directory)
        paths = [directory] if directory.is_file() else sorted(directory.glob("shard_*.safetensors"))
        if not paths:
            raise BortError(f"{directory}: no shards (shard_*.safetensors); make them with: bort data --help")
        self._tokens: list[np.ndarray] = []
        self._bounds: list[NDArray[np.int64]] = []
        lengths = set()
        for path in paths:
            arrays, metadata = map_safetensors(path)
            lengths.add(_check_shard(path, arrays, metadata, vocab_fingerprint))
            vocab_fingerprint = metadata["vocab_fingerprint"]
            self._tokens.append(arrays["token_ids"])
            self._bounds.append(np.concatenate([[0], arrays["sequence_ends"]]))
        if len(lengths) > 1:
            raise BortError(f"{directory}: shards of different max_seq_length {sorted(lengths)}; keep each corpus in its own folder")
        self.max_seq_length = lengths.pop()
        self._firsts = np.cumsum([0, *(len(bounds) - 1 for bounds in self._bounds)])

    def __len__(self) -> int:
        return int(self._firsts[-1])

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Token ids of sequence ``index`` without special tokens, shape (n,) with 1 ≤ n ≤ ``max_seq_length`` - 2."""
        shard = int(np.searchsorted(self._firsts, index, side="right")) - 1
        bounds = self._bounds[shard]
        position = index - int(self._firsts[shard])
        return self._tokens[shard][bounds[position] : bounds[position + 1]].astype(np.int32)


def _check_shard(path: Path, arrays: dict[str, np.ndarray], metadata: dict[str, str], vocab_fingerprint: str | None) -> int:
    """The shard's ``max_seq_length``, once its header and ends have proved sound."""
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise BortError(f"{path}: not a shard of format {FORMAT} {VERSION}; make it again with bort data")
    if vocab_fingerprint is not None and metadata["vocab_fingerprint"] != vocab_fingerprint:
        raise BortError(f"{path}: made with another vocabulary than the model's; make the shards again, or give the right --vocab")
    try:
        max_seq_length = int(json.loads(metadata["settings"])["max_seq_length"])
        ends, tokens = arrays["sequence_ends"], arrays["token_ids"]
    except (KeyError, TypeError, ValueError):
        raise BortError(f"{path}: the shard's header is damaged; make it again with bort data") from None
    lengths = np.diff(ends, prepend=0)
    if ends.ndim != 1 or tokens.ndim != 1 or len(ends) == 0 or ends[-1] != len(tokens) or lengths.min() < 1:
        raise BortError(f"{path}: the ends of its sequences do not fit its {tokens.size} tokens; make it again with bort data")
    if lengths.max() > max_seq_length - 2:
        raise BortError(f"{path}: a sequence of {lengths.max()} tokens in a shard of max_seq_length {max_seq_length}; make it again")
    return max_seq_length
