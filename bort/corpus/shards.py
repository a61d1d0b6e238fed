"""Shards: tokenised text on disk, memory-mapped, without pickle.

A shard is a safetensors file, so any reader of that format can look inside. ``token_ids`` holds all tokens of its documents without special
tokens, in the smallest unsigned type that fits the vocabulary; ``document_ends``, ``sentence_ends`` and ``sequence_ends`` (int64) say where
each document, sentence and training sequence ends. The header's metadata says how it was made: format version, vocabulary fingerprint and
size, settings, source files with sizes and times, counts.

Notable: of *n* shards, shard *k* holds the documents that begin in the *k*-th *n*-th of the text's bytes, in their order. The bytes of a
shard are a function of the files and the settings, whatever the number of workers, and memory depends on neither the size of the text nor
that of a document. The same command takes up a killed run: finished shards stay, and so do the finished pieces of the others, which wait in
the folder ``.work`` of the output.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import resource
import shutil
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bort.corpus.assembly import assemble
from bort.corpus.compression import decompress, is_compressed
from bort.corpus.documents import ReadingReport, counted
from bort.corpus.pieces import (
    PIECE_BYTES,
    SENTENCES,
    SEQUENCES,
    TOKENS,
    Piece,
    PieceReport,
    PieceWork,
    TextFile,
    cut_into_pieces,
    make_piece,
)
from bort.corpus.workers import Task, run_tasks
from bort.errors import BortError
from bort.files import write_text
from bort.parameters import map_safetensors
from bort.settings import ShardSettings
from bort.tokenizer import Tokenizer

FORMAT = "bort-shard"
VERSION = 2
SHARD_PATTERN = "shard_*.safetensors"
WORK_FOLDER = ".work"
_PLAN = "plan.json"
_MOST_NAMED_FILES = 1000
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Descriptors that a process needs besides those of its shards.
_OTHER_FILES = 256
_OF_ONE_SHARD = ("counts", "contents", "shard")
_LENGTHS_AT_ONCE = 1 << 20


@dataclass
class ShardingReport(ReadingReport):
    """What was read for a set of shards, and how much of it had been read by an earlier run.

    Attributes:
        kept_shards: finished by an earlier run.
        kept_bytes: of plain text that an earlier run has read.
        empty_shards: shards without a document, because documents are few or large.
    """

    kept_shards: int = 0
    kept_bytes: int = 0
    empty_shards: int = 0

    def warnings(self) -> list[str]:
        empty, documents = counted(self.empty_shards, "empty shard"), counted(self.documents, "document")
        few = f"{empty}: the text has {documents}, too few or too large for so many shards"
        return super().warnings() + ([few] if self.empty_shards else [])


def shard_names(count: int) -> list[str]:
    """File names of a set of ``count`` shards."""
    return [f"shard_{index:04d}_of_{count:04d}.safetensors" for index in range(count)]


def create_shards(
    files: Sequence[Path], tokenizer: Tokenizer, output: Path, settings: ShardSettings, num_workers: int = 1, show_progress: bool = False
) -> ShardingReport:
    """Tokenise text files into ``settings.num_outputs`` shards under ``output``, where an older set gives way to them.

    Args:
        files: plain, or compressed with the suffix ``.gz`` or ``.zst``; these are first decompressed into ``output``'s work folder.
        tokenizer: cuts the text.
        output: made if it is missing.
        settings: of the shards.
        num_workers: processes, each on one core.
        show_progress: draw a bar if standard error is a terminal.

    Returns:
        What is in the shards, those of an earlier run included.

    Raises:
        BortError: if a file cannot be read or is damaged, no document has text, or there is no room for the shards.
        OSError: if the shards cannot be written for another reason.
    """
    if num_workers < 1:
        raise BortError(f"num_workers must be at least 1, got {num_workers}")
    origin = _origin(files, tokenizer, settings)
    output_existed = output.exists()
    if output_existed and not output.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(output))
    report = ShardingReport()
    missing = []
    for index, name in enumerate(shard_names(settings.num_outputs)):
        finished = _finished_counts(output / name, {**origin, "shard": str(index)})
        if finished is None:
            missing.append(index)
        else:
            report.add(finished)
            report.kept_shards += 1
            report.kept_bytes += finished.text_bytes
            report.empty_shards += finished.documents == 0
    folder = output / WORK_FOLDER
    try:
        if missing:
            _take_up_work(folder, json.dumps({**origin, "piece_bytes": PIECE_BYTES}))
            plain = _decompressed(files, folder, num_workers, show_progress)
            _make_shards(missing, PieceWork(plain, tokenizer, settings, folder), output, origin, num_workers, show_progress, report)
        if report.documents == 0:
            _remove_work(folder)
            if not output_existed:
                output.rmdir()
            others = " and others" if len(files) > 1 else ""
            raise BortError(f"{files[0]}{others}: no text in it; give files with one sentence a line, or see --documents")
        for stale in {*output.glob(SHARD_PATTERN), *output.glob(f".{SHARD_PATTERN}.*.partial")}:
            if stale.name not in shard_names(settings.num_outputs):
                stale.unlink()
        _remove_work(folder)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        where = error.filename or output
        raise BortError(
            f"{where}: cannot write shards: {error.strerror}; make room or give another path; the same command then goes on"
        ) from None
    return report


def _origin(files: Sequence[Path], tokenizer: Tokenizer, settings: ShardSettings) -> dict[str, str]:
    """What the shards are made of: the part of the metadata that all of them share."""
    sources: list[dict[str, Any]] = []
    digest = hashlib.sha256()
    for path in files:
        try:
            status = path.stat()
        except OSError as error:
            raise BortError(f"{path}: cannot read: {error.strerror}") from None
        source = {"path": str(path), "size": status.st_size, "mtime_ns": status.st_mtime_ns}
        digest.update(json.dumps(source).encode())
        if len(sources) < _MOST_NAMED_FILES:
            sources.append(source)
    return {
        "format": FORMAT,
        "version": str(VERSION),
        "vocab_fingerprint": tokenizer.vocab.fingerprint,
        "vocab_size": str(len(tokenizer.vocab)),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "settings": json.dumps(asdict(settings)),
        "source_files": json.dumps({"number": len(files), "digest": digest.hexdigest(), "first": sources}),
    }


def _finished_counts(path: Path, metadata: dict[str, str]) -> ReadingReport | None:
    """Counts of a shard that is there and was made just so; None otherwise."""
    if not path.is_file():
        return None
    try:
        _, found = map_safetensors(path)
        counts = ReadingReport.from_json(found.pop("counts"))
        del found["contents"]
    except (BortError, KeyError, TypeError, ValueError):
        return None
    return counts if found == metadata else None


def _take_up_work(folder: Path, plan: str) -> None:
    """Make the work folder, or keep that of a run with the same plan, without what it was writing when it ended."""
    if folder.exists():
        found = _plan_in(folder)
        if found is None and any(not entry.name.startswith(f".{_PLAN}.") for entry in folder.iterdir()):
            raise BortError(f"{folder}: not a folder of bort data; move it away, or give another --output")
        if found == plan:
            for partial in folder.glob("*.partial"):
                partial.unlink(missing_ok=True)
            return
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    write_text(folder / _PLAN, plan)


def _plan_in(folder: Path) -> str | None:
    """The plan of a work folder; None if the folder is not one of ours."""
    try:
        text = (folder / _PLAN).read_text(encoding="utf-8")
        return text if json.loads(text)["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def _remove_work(folder: Path) -> None:
    if _plan_in(folder) is not None:
        shutil.rmtree(folder, ignore_errors=True)


def _decompressed(files: Sequence[Path], folder: Path, num_workers: int, show_progress: bool) -> list[TextFile]:
    """Plain files with the contents of ``files``."""
    plain = [folder / f"plain_{number:06d}" if is_compressed(path) else path for number, path in enumerate(files)]
    waiting = deque((path, target) for path, target in zip(files, plain, strict=True) if path != target and not target.exists())
    if waiting:
        at_once = min(num_workers, len(waiting))
        with _bar("decompressing", sum(path.stat().st_size for path, _ in waiting), show_progress) as bar:
            for (_, (path, _)), _ in run_tasks(None, lambda: (_decompress, waiting.popleft()) if waiting else None, at_once):
                bar.update(path.stat().st_size)
    return [TextFile(target, path, target.stat().st_size) for path, target in zip(files, plain, strict=True)]


def _decompress(_: None, path: Path, plain: Path) -> None:
    decompress(path, plain)


def _make_shards(
    indices: Sequence[int],
    work: PieceWork,
    output: Path,
    origin: dict[str, str],
    num_workers: int,
    show_progress: bool,
    report: ShardingReport,
) -> None:
    """Make the shards ``indices`` and add them to ``report``; none is written unless one has a document."""
    # Libraries that are loaded at first use are loaded now, once, and not in each worker.
    work.tokenizer.encode_ragged([""])
    size, count = work.firsts[-1], work.settings.num_outputs
    pieces = {index: cut_into_pieces(size * index // count, size * (index + 1) // count) for index in indices}
    num_workers = max(1, min(num_workers, sum(map(len, pieces.values()))))
    made: dict[Piece, PieceReport] = {}
    shard_of: dict[Piece, int] = {}
    unmade = {index: len(pieces[index]) for index in indices}
    to_make = ((index, piece) for index in indices for piece in pieces[index])
    whole = deque(index for index in indices if not pieces[index])
    empty = []

    def assembly(index: int) -> Task:
        reports = [made.pop(piece) for piece in pieces[index]]
        return assemble, (pieces.pop(index), reports, output / shard_names(count)[index], {**origin, "shard": str(index)})

    def next_task() -> Task | None:
        while whole:
            index = whole.popleft()
            if any(made[piece].read.documents for piece in pieces[index]):
                return assembly(index)
            empty.append(index)
        for index, piece in to_make:
            shard_of[piece] = index
            return make_piece, (piece,)
        return None

    with _bar("tokenising", size, show_progress) as bar:
        bar.update(report.text_bytes)
        for (_, arguments), result in run_tasks(work, next_task, num_workers):
            if isinstance(result, ReadingReport):
                report.add(result)
                continue
            made[arguments[0]] = result
            index = shard_of.pop(arguments[0])
            unmade[index] -= 1
            if not unmade[index]:
                whole.append(index)
            bar.update(result.read.text_bytes)
            report.kept_bytes += result.read.text_bytes if result.was_there else 0
    if report.documents:
        for index in empty:
            function, arguments = assembly(index)
            report.add(function(work, *arguments))
            report.empty_shards += 1


def _bar(what: str, size: int, show_progress: bool) -> tqdm[Any]:
    # None: a bar only where there is a terminal.
    return tqdm(total=size, desc=what, unit="B", unit_scale=True, disable=None if show_progress else True)


class Corpus:
    """All sequences of a folder of shards, by number, without reading them into memory.

    Args:
        directory: folder of a whole set of shards.
        vocab_fingerprint: of the vocabulary the shards must have been made with; None accepts any.

    Attributes:
        max_seq_length: longest sequence, two special tokens included.
        vocab_size: of the vocabulary the shards were made with; all ids are smaller.
        shard_bounds: (shards + 1,) number of the first sequence of each shard, and N.
        lengths: (N,) tokens of each sequence without the two special tokens.
        fingerprint: of the vocabulary and the contents of the shards.
        description: for people: source files, settings, vocabulary, and counts of documents, sentences, sequences, tokens and odd lines.

    Raises:
        BortError: if there is no shard or no sequence, a shard is missing or damaged, or they were not made together, or with another
            vocabulary.
    """

    def __init__(self, directory: Path | str, vocab_fingerprint: str | None = None) -> None:
        directory = Path(directory)
        paths = sorted(directory.glob(SHARD_PATTERN))
        if not paths:
            raise BortError(f"{directory}: no shards ({SHARD_PATTERN}); make them with: bort data --help")
        if [path.name for path in paths] != shard_names(len(paths)):
            raise BortError(f"{directory}: its {len(paths)} shards are not one whole set; make them again: bort data --help")
        _allow_open_files(len(paths))
        shards = [_map_shard(path, vocab_fingerprint) for path in paths]
        if any(shard.origin != shards[0].origin for shard in shards):
            raise BortError(f"{directory}: its shards were made from different texts or with different settings; make them again")
        self._shards = shards
        self.shard_bounds: NDArray[np.int64] = np.cumsum([0, *(len(shard.lengths) for shard in shards)], dtype=np.int64)
        self.lengths: NDArray[np.int32] = np.concatenate([shard.lengths for shard in shards])
        if len(self) == 0:
            raise BortError(f"{directory}: its shards are empty; make them again from files with text: bort data --help")
        origin = shards[0].origin
        settings = json.loads(origin["settings"])
        self.max_seq_length: int = settings["max_seq_length"]
        self.vocab_size = int(origin["vocab_size"])
        contents = [origin["vocab_fingerprint"], *(shard.contents for shard in shards)]
        self.fingerprint = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        total = ReadingReport()
        for shard in shards:
            total.add(shard.counts)
        sources = json.loads(origin["source_files"])
        self.description: dict[str, Any] = {
            "source_files": [{"path": source["path"], "size": source["size"]} for source in sources["first"]],
            "num_source_files": sources["number"],
            "settings": settings,
            "vocab_fingerprint": origin["vocab_fingerprint"],
            "vocab_size": self.vocab_size,
            "num_shards": len(shards),
            **{name: count for name, count in asdict(total).items() if name != "first"},
        }

    def __len__(self) -> int:
        return int(self.shard_bounds[-1])

    def __getitem__(self, index: int) -> NDArray[np.int32]:
        """Token ids of sequence ``index`` without special tokens, shape (n,) with 1 ≤ n ≤ ``max_seq_length`` - 2.

        Raises:
            BortError: if a shard is damaged so that an id lies outside the vocabulary.
        """
        shard, start, stop = self._locate(index)
        tokens = shard.tokens[start:stop].astype(np.int32)
        if tokens.max() >= self.vocab_size:
            raise BortError(
                f"{shard.path}, token {start + int(tokens.argmax())}: id {tokens.max()} in a vocabulary of {self.vocab_size}; "
                "the file is damaged; make it again with bort data"
            )
        return tokens

    def sentence_starts(self, index: int) -> NDArray[np.int64]:
        """Offsets in sequence ``index``, increasing, at which a sentence begins; 0 is not one of them where a sentence was too long.

        Raises:
            BortError: if a shard is damaged.
        """
        shard, start, stop = self._locate(index)
        ends = shard.sentence_ends
        found = ends[np.searchsorted(ends, start) : np.searchsorted(ends, stop)] - start
        starts = np.concatenate([[0], found]) if start == 0 else found
        if len(starts) and (starts[0] < 0 or starts[-1] >= stop - start or (np.diff(starts) < 1).any()):
            raise BortError(f"{shard.path}: the ends of its sentences do not increase; the file is damaged; make it again with bort data")
        return starts

    def _locate(self, index: int) -> tuple[_MappedShard, int, int]:
        """Shard, first token and last token but one of a sequence."""
        if not 0 <= index < len(self):
            raise IndexError(f"sequence {index} of {len(self)}")
        number = int(np.searchsorted(self.shard_bounds, index, side="right")) - 1
        shard = self._shards[number]
        position = index - int(self.shard_bounds[number])
        stop = int(shard.sequence_ends[position])
        return shard, stop - int(shard.lengths[position]), stop


@dataclass(frozen=True)
class _MappedShard:
    """A shard whose header and sequence ends have proved sound; the arrays are views of the file, but for the lengths."""

    path: Path
    tokens: NDArray[np.unsignedinteger]
    sentence_ends: NDArray[np.int64]
    sequence_ends: NDArray[np.int64]
    lengths: NDArray[np.int32]
    origin: dict[str, str]
    counts: ReadingReport
    contents: str


def _allow_open_files(count: int) -> None:
    """Raise this process's limit for ``count`` mapped files, each of which keeps a descriptor, as far as the system lets it."""
    least, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    needed = count + _OTHER_FILES if most == resource.RLIM_INFINITY else min(count + _OTHER_FILES, most)
    if least != resource.RLIM_INFINITY and least < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, most))


def _map_shard(path: Path, vocab_fingerprint: str | None) -> _MappedShard:
    arrays, metadata = map_safetensors(path)
    if metadata.get("format") != FORMAT or metadata.get("version") != str(VERSION):
        raise BortError(f"{path}: not a shard of format {FORMAT} {VERSION}; make it again with bort data")
    try:
        counts, contents = ReadingReport.from_json(metadata["counts"]), metadata["contents"]
        max_seq_length, _ = int(json.loads(metadata["settings"])["max_seq_length"]), int(metadata["vocab_size"])
        fingerprint, sources = metadata["vocab_fingerprint"], json.loads(metadata["source_files"])
        _ = sources["number"], [(source["path"], source["size"]) for source in sources["first"]]
        tokens, sentence_ends, sequence_ends = arrays[TOKENS], arrays[SENTENCES], arrays[SEQUENCES]
    except (KeyError, TypeError, ValueError):
        raise BortError(f"{path}: the shard's header is damaged; make it again with bort data") from None
    if vocab_fingerprint is not None and fingerprint != vocab_fingerprint:
        raise BortError(f"{path}: made with another vocabulary than the model's; make the shards again, or give the right --vocab")
    if (
        tokens.ndim != 1
        or tokens.dtype.kind != "u"
        or any(ends.ndim != 1 or ends.dtype != np.int64 for ends in (sentence_ends, sequence_ends))
    ):
        raise BortError(f"{path}: its arrays are not those of a shard; make it again with bort data")
    lengths = _lengths(path, sequence_ends, len(tokens), max_seq_length)
    origin = {name: text for name, text in metadata.items() if name not in _OF_ONE_SHARD}
    return _MappedShard(path, tokens, sentence_ends, sequence_ends, lengths, origin, counts, contents)


def _lengths(path: Path, ends: NDArray[np.int64], num_tokens: int, max_seq_length: int) -> NDArray[np.int32]:
    """Differences of the ends, in memory for themselves alone, once they have proved sound."""
    lengths = np.empty(len(ends), dtype=np.int32)
    last = 0
    for first in range(0, len(ends), _LENGTHS_AT_ONCE):
        portion = np.diff(ends[first : first + _LENGTHS_AT_ONCE], prepend=last)
        if portion.min() < 1:
            raise BortError(f"{path}: the ends of its sequences do not increase; make it again with bort data")
        if portion.max() > max_seq_length - 2:
            raise BortError(f"{path}: a sequence of {portion.max()} tokens in a shard of max_seq_length {max_seq_length}; make it again")
        lengths[first : first + len(portion)] = portion
        last = int(ends[first + len(portion) - 1])
    if last != num_tokens:
        raise BortError(f"{path}: the ends of its sequences do not fit its {num_tokens} tokens; make it again with bort data")
    return lengths
