"""Corpora as .npz files with the arrays of the published data script, for whatever reads those.

Notable: the masks are those of the first epochs of a run with the same seed. The arrays are rectangular, padded behind each row's end, so
``np.load`` reads them as they are, without pickle. The two constant ones are compressed, which costs next to nothing, and the others are
not, so that they can be mapped; compressed, all would take a third of the room and more than half as much time again.
"""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bort.corpus.masking import Masker
from bort.corpus.npz import FORMAT, VERSION, npz_names
from bort.corpus.npz_archive import write_npz_file
from bort.corpus.sequences import DynamicSequences
from bort.corpus.shards import Corpus, ShardingReport, create_shards
from bort.errors import BortError
from bort.settings import NpzSettings, ShardSettings
from bort.tokenizer import Tokenizer
from bort.vocabulary import Vocab

_CONSTANT = ("segment_ids", "next_sentence_labels")
_SEQUENCES_AT_ONCE = 512
_SHARDS_FOLDER = ".shards"


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

    A killed run is taken up where its shards are. Args, returns and raises as ``create_shards`` and ``write_npz``.
    """
    shards = output / _SHARDS_FOLDER
    existed = output.exists()
    try:
        report = create_shards(files, tokenizer, shards, shard_settings, num_workers, show_progress)
    except BortError:
        if not existed and output.is_dir() and not any(output.iterdir()):
            output.rmdir()
        raise
    write_npz(Corpus(shards), tokenizer.vocab, output, settings, shard_settings.seed, show_progress)
    shutil.rmtree(shards)
    return report


def write_npz(corpus: Corpus, vocab: Vocab, output: Path, settings: NpzSettings, seed: int, show_progress: bool = False) -> list[Path]:
    """Mask every sequence of a corpus ``settings.dupe_factor`` times and write as many files as it has shards, of about equal size.

    Copy *c* of a sequence has the masks of epoch *c* of a run with ``seed``. Files of an earlier set are removed. Memory does not grow with
    the corpus; the disk needs room for one file twice.

    Returns:
        The files, in order. All arrays are int32, but for the weights, which are float32, and ``metadata``, a text.

    Raises:
        OSError: if a file cannot be written.
    """
    masker = Masker(vocab, settings.masked_lm_prob, settings.max_predictions_per_seq, seed, settings.whole_word_mask)
    sequences = DynamicSequences(corpus, vocab, masker)
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
    paths = [output / name for name in npz_names(min(corpus.description["num_shards"], len(corpus)))]
    bounds = [len(corpus) * number // len(paths) for number in range(len(paths) + 1)]
    extra = {"metadata": np.array(json.dumps(metadata))}
    total = len(corpus) * settings.dupe_factor
    with tqdm(total=total, unit="sequences", unit_scale=True, disable=None if show_progress else True) as progress:
        for path, (first, last) in zip(paths, itertools.pairwise(bounds), strict=True):
            numbers = ((copy, index) for copy in range(settings.dupe_factor) for index in range(first, last))
            blocks = _blocks(sequences, numbers, vocab.pad_id, min(settings.max_predictions_per_seq, corpus.max_seq_length - 2), progress)
            write_npz_file(path, blocks, extra, compressed=_CONSTANT)
    for stale in set(output.glob("shard_*_of_*.npz")) - {*paths}:
        stale.unlink()
    return paths


def _blocks(
    sequences: DynamicSequences, numbers: Iterator[tuple[int, int]], pad_id: int, predictions: int, progress: tqdm
) -> Iterator[dict[str, np.ndarray]]:
    while block := list(itertools.islice(numbers, _SEQUENCES_AT_ONCE)):
        rows = [sequences.masked(copy, index) for copy, index in block]
        input_ids = np.full((len(rows), sequences.max_seq_length), pad_id, dtype=np.int32)
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
        progress.update(len(rows))
