"""Corpora as .npz files with the arrays of the published data script, for whatever reads those.

Notable: the masks are those of the first epochs of a run with the same seed. The arrays are rectangular, padded behind each row's end, so
``np.load`` reads them as they are, without pickle. The two constant ones are compressed, which costs next to nothing, and the others are
not, so that they can be mapped; compressed, all would take a third of the room and more than half as much time again. Each file is a task
of its own, and one that is there and made just so is kept: a killed run goes on where it stopped.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from bort.corpus.masking import Masker
from bort.corpus.npz import FORMAT, VERSION, npz_names, read_metadata
from bort.corpus.npz_archive import open_npz, write_npz_file
from bort.corpus.sequences import DynamicSequences
from bort.corpus.shards import SHARD_PATTERN, Corpus, ShardingReport, create_shards
from bort.corpus.workers import Task, run_tasks
from bort.errors import BortError
from bort.files import write_text
from bort.settings import NpzSettings, ShardSettings
from bort.tokenizer import Tokenizer
from bort.vocabulary import Vocab

_CONSTANT = ("segment_ids", "next_sentence_labels")
_NPZ_PATTERN = "shard_*_of_*.npz"
_SEQUENCES_AT_ONCE = 512
# Pages of mapped shards count as memory of the process until they are unmapped: after this many sequences, 32 MiB of 512 tokens each.
_SEQUENCES_A_MAPPING = 1 << 15
_SHARDS_FOLDER = ".shards"
_OURS = "made_by_bort_data"


def create_npz(
    files: Sequence[Path],
    tokenizer: Tokenizer,
    output: Path,
    shard_settings: ShardSettings,
    settings: NpzSettings,
    num_workers: int = 1,
    show_progress: bool = False,
) -> ShardingReport:
    """Turn text files into .npz files, by way of shards in a folder of ``output`` that is removed in the end.

    A killed run is taken up where its shards and files are. Args, returns and raises as ``create_shards`` and ``write_npz``.

    Raises:
        BortError: also if ``output`` holds shards, or a folder of the name of ours that is not ours.
    """
    if any(output.glob(SHARD_PATTERN)):
        raise BortError(f"{output}: holds shards ({SHARD_PATTERN}), beside which .npz files could not be told apart; give another --output")
    shards = output / _SHARDS_FOLDER
    output_existed = output.exists()
    try:
        if not (shards / _OURS).is_file():
            if shards.exists() and (not shards.is_dir() or any(not entry.name.endswith(".partial") for entry in shards.iterdir())):
                raise BortError(f"{shards}: not a folder of bort data; move it away, or give another --output")
            write_text(shards / _OURS, "Shards on their way to .npz files; bort data removes this folder.\n")
        try:
            report = create_shards(files, tokenizer, shards, shard_settings, num_workers, show_progress)
        except BortError:
            if [entry.name for entry in shards.iterdir()] == [_OURS]:
                _remove_shards(shards)
            if not output_existed and not any(output.iterdir()):
                output.rmdir()
            raise
        write_npz(shards, tokenizer.vocab, output, settings, shard_settings.seed, num_workers, show_progress)
        _remove_shards(shards)
    except OSError as error:
        where, why = error.filename or output, error.strerror or error
        raise BortError(f"{where}: cannot write .npz files: {why}; make room or give another path; the same command then goes on") from None
    return report


def _remove_shards(folder: Path) -> None:
    """Remove what ``create_npz`` has put there, and the folder if that was all."""
    for path in {*folder.glob(SHARD_PATTERN), *folder.glob(f".{_OURS}.*.partial")}:
        path.unlink()
    (folder / _OURS).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


@dataclass(frozen=True)
class _Work:
    """What every file is made from."""

    shards: Path
    vocab: Vocab
    masker: Masker
    settings: NpzSettings
    metadata: Mapping[str, Any]


def write_npz(
    shards: Path, vocab: Vocab, output: Path, settings: NpzSettings, seed: int, num_workers: int = 1, show_progress: bool = False
) -> list[Path]:
    """Mask every sequence of a corpus ``settings.dupe_factor`` times and write as many files as it has shards, of about equal size.

    Copy *c* of a sequence has the masks of epoch *c* of a run with ``seed``. Files of an earlier set are removed, but for those that are
    made just so, which are kept. Of the corpus, memory holds some 20 bytes for each sequence and the pages of one stretch at a time, in
    each process; the disk needs room for one file twice, for each process.

    Args:
        shards: folder of a corpus.
        vocab: that of the corpus.
        output: folder for the files.
        settings: of the masks.
        seed: of the masks.
        num_workers: processes; the files do not depend on it.
        show_progress: draw a bar if standard error is a terminal.

    Returns:
        The files, in order. All arrays are int32, but for the weights, which are float32, and ``metadata``, a text.

    Raises:
        BortError: as ``Corpus``.
        OSError: if a file cannot be written.
    """
    corpus = Corpus(shards, vocab.fingerprint)
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "vocab_fingerprint": vocab.fingerprint,
        "vocab_size": len(vocab),
        "max_seq_length": corpus.max_seq_length,
        "corpus": corpus.fingerprint,
        "settings": asdict(settings),
        "seed": seed,
    }
    masker = Masker(vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, seed, settings.whole_word_mask)
    work = _Work(shards, vocab, masker, settings, metadata)
    sequences = len(corpus)
    paths = [output / name for name in npz_names(min(corpus.description["num_shards"], sequences))]
    # What is mapped here would be shared with the workers, and stay.
    del corpus
    bounds = [sequences * number // len(paths) for number in range(len(paths) + 1)]
    for stale in {*output.glob(_NPZ_PATTERN), *output.glob(f".{_NPZ_PATTERN}.*.partial")} - {*paths}:
        stale.unlink()
    tasks: Iterator[Task] = ((_write_file, (path, *span)) for path, span in zip(paths, itertools.pairwise(bounds), strict=True))
    total = sequences * settings.dupe_factor
    with tqdm(total=total, desc="masking", unit="sequences", unit_scale=True, disable=None if show_progress else True) as progress:
        for _, rows in run_tasks(work, lambda: next(tasks, None), num_workers):
            progress.update(rows)
    return paths


def _write_file(work: _Work, path: Path, first: int, last: int) -> int:
    """Write one file, unless it is there, and return its number of rows."""
    rows = (last - first) * work.settings.dupe_factor
    if not _is_finished(path, work.metadata, rows):
        write_npz_file(path, _blocks(work, first, last), {"metadata": np.array(json.dumps(work.metadata))}, compressed=_CONSTANT)
    return rows


def _is_finished(path: Path, metadata: Mapping[str, Any], rows: int) -> bool:
    if not path.is_file():
        return False
    try:
        with open_npz(path) as file:
            return read_metadata(file) == metadata and all(
                member.shape[:1] == (rows,) for name, member in file.members.items() if name != "metadata"
            )
    except BortError:
        return False


def _blocks(work: _Work, first: int, last: int) -> Iterator[dict[str, np.ndarray]]:
    for copy in range(work.settings.dupe_factor):
        for begin in range(first, last, _SEQUENCES_A_MAPPING):
            yield from _blocks_of_one_mapping(work, copy, range(begin, min(begin + _SEQUENCES_A_MAPPING, last)))


def _blocks_of_one_mapping(work: _Work, copy: int, numbers: range) -> Iterator[dict[str, np.ndarray]]:
    sequences = DynamicSequences(Corpus(work.shards), work.vocab, work.masker)
    width = sequences.max_seq_length
    predictions = min(work.settings.max_predictions_per_seq, width - 2)
    for begin in range(0, len(numbers), _SEQUENCES_AT_ONCE):
        rows = [sequences.masked(copy, index) for index in numbers[begin : begin + _SEQUENCES_AT_ONCE]]
        input_ids = np.full((len(rows), width), work.vocab.pad_id, dtype=np.int32)
        positions, labels = np.zeros((2, len(rows), predictions), dtype=np.int32)
        weights = np.zeros((len(rows), predictions), dtype=np.float32)
        for row, masked in enumerate(rows):
            input_ids[row, : len(masked.token_ids)] = masked.token_ids
            positions[row, : len(masked.positions)] = masked.positions
            labels[row, : len(masked.labels)] = masked.labels
            weights[row, : len(masked.positions)] = 1.0
        yield {
            "input_ids": input_ids,
            "masked_lm_ids": labels,
            "masked_lm_positions": positions,
            "masked_lm_weights": weights,
            "next_sentence_labels": np.zeros(len(rows), np.int32),
            "segment_ids": np.zeros_like(input_ids),
            "valid_lengths": np.array([len(masked.token_ids) for masked in rows], np.int32),
        }
