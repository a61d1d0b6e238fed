"""Encoded rows kept on the disk, so that the next run with the same texts, vocabulary and length need not tokenise again.

A file is safetensors: ``ids`` (int32), those of all rows behind one another, and ``offsets`` (int64), where each row begins. Its name says
the task, the segment and a key, SHA-256 over the segment's files, the texts read from them, the vocabulary and all else that decides the
ids. Labels are not kept: they are read with the texts.

Notable: nothing but time depends on the cache. A file is used only if its checksum is right and its rows can be batched; any other is made
again, with a warning. Several processes may fill one folder at the same time: each writes a whole file, and all write the same. Where the
folder cannot be written, a warning says so and every run encodes for itself.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from bort.errors import BortError
from bort.files import file_digest
from bort.parameters import map_safetensors, write_safetensors
from bort.tasks.batches import EncodedRows
from bort.tasks.encoding import INPUT_FORMAT, encode_examples
from bort.tasks.task import Example, Task
from bort.tokenizer import Tokenizer

_FORMAT = "bort-encoded-rows"
_ROWS_AT_ONCE = 4096


def default_cache() -> Path:
    """``$XDG_CACHE_HOME/bort/tasks``, else ``~/.cache/bort/tasks``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "bort" / "tasks"


def encode_segment(
    task: Task,
    segment_name: str,
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    max_len: int,
    keep_question: bool,
    cache: Path | None,
) -> EncodedRows:
    """Rows of a segment as input ids and labels; an absent label is 0. Draws a bar where standard error is a terminal.

    Args:
        examples: what ``task.examples(segment_name)`` gave.
        max_len: most ids of a row, special tokens included.
        keep_question: as for ``encode_examples``.
        cache: folder of the files, made if it is missing; None keeps nothing.

    Raises:
        BortError: if ``max_len`` leaves no room for a token of each text, or a text is not Unicode.
    """
    if cache is None:
        ids, offsets = _encode(examples, tokenizer, max_len, keep_question, f"encode {task.name} {segment_name}")
    else:
        key = _key(task, segment_name, examples, tokenizer, max_len, keep_question)
        path = cache / f"{task.name}-{segment_name}-{key[:16]}.safetensors"
        origin = {"format": _FORMAT, "key": key, "rows": str(len(examples))}
        kept = _read(path, origin, len(tokenizer.vocab), max_len)
        if kept is None:
            kept = _encode(examples, tokenizer, max_len, keep_question, f"encode {task.name} {segment_name}")
            _write(path, *kept, origin)
        ids, offsets = kept
    bounds = offsets.tolist()
    rows = [ids[first:end] for first, end in itertools.pairwise(bounds)]
    labels = np.array([example.label or 0 for example in examples], dtype=np.float32)
    return EncodedRows(rows, labels, tokenizer.vocab.pad_id, max_len)


def _encode(
    examples: Sequence[Example], tokenizer: Tokenizer, max_len: int, keep_question: bool, title: str
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Ids of all rows behind one another, (sum of lengths,), and where each begins, (N + 1,), the last entry being their number."""
    encoded: list[NDArray[np.int32]] = []
    with tqdm(total=len(examples), desc=title, unit="row", leave=False, disable=None) as bar:
        for first in range(0, len(examples), _ROWS_AT_ONCE):
            part = examples[first : first + _ROWS_AT_ONCE]
            encoded += encode_examples(part, tokenizer, max_len, keep_question)
            bar.update(len(part))
    offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in encoded], out=offsets[1:])
    return np.concatenate([np.empty(0, dtype=np.int32), *encoded]), offsets


def _key(task: Task, segment_name: str, examples: Sequence[Example], tokenizer: Tokenizer, max_len: int, keep_question: bool) -> str:
    """SHA-256 over all that decides the ids of a segment: over the texts too, since another reader may read a file in another way."""
    try:
        files = [file_digest(file) for file in task.files(segment_name)]
    except OSError as error:
        raise BortError(f"{error.filename}: cannot read: {error.strerror}") from error
    parts = [INPUT_FORMAT, task.name, segment_name, files, tokenizer.fingerprint, max_len, keep_question]
    digest = hashlib.sha256(json.dumps(parts).encode())
    for first in range(0, len(examples), _ROWS_AT_ONCE):
        texts = [(example.texts, example.question_start) for example in examples[first : first + _ROWS_AT_ONCE]]
        digest.update(json.dumps(texts).encode())
    return digest.hexdigest()


def _digest_of_rows(ids: np.ndarray, offsets: np.ndarray) -> str:
    """SHA-256 over arrays of one dimension, without a copy of them."""
    digest = hashlib.sha256(offsets.data)
    digest.update(ids.data)
    return digest.hexdigest()


def _read(path: Path, origin: dict[str, str], vocab_size: int, max_len: int) -> tuple[NDArray[np.int32], NDArray[np.int64]] | None:
    """Ids and offsets of a cache file; None if there is none or, with a warning, if it is not what ``origin`` says."""
    if not os.path.exists(path):
        return None
    try:
        arrays, metadata = map_safetensors(path)
    except BortError:
        arrays, metadata = {}, {}
    # Copied before they are checked: a mapped file may change under its reader.
    ids, offsets = (np.array(arrays.get(name, ())) for name in ("ids", "offsets"))
    if (
        {name: metadata.get(name) for name in origin} == origin
        and _are_rows(ids, offsets, int(origin["rows"]), vocab_size, max_len)
        and metadata.get("sha256") == _digest_of_rows(ids, offsets)
    ):
        return ids, offsets
    warnings.warn(f"{path}: damaged, or made of other rows; the rows are encoded again", stacklevel=1)
    return None


def _are_rows(ids: np.ndarray, offsets: np.ndarray, num_rows: int, vocab_size: int, max_len: int) -> bool:
    """Whether arrays of unknown origin can be batched: a checksum says that nothing was damaged, not that nothing was forged."""
    if ids.dtype != np.int32 or offsets.dtype != np.int64 or ids.ndim != 1 or offsets.shape != (num_rows + 1,):
        return False
    lengths = np.diff(offsets)
    bounded = offsets[0] == 0 and offsets[-1] == len(ids) and (lengths >= 1).all() and (lengths <= max_len).all()
    return bool(bounded and (ids >= 0).all() and (ids < vocab_size).all())


def _write(path: Path, ids: NDArray[np.int32], offsets: NDArray[np.int64], origin: dict[str, str]) -> None:
    try:
        write_safetensors(path, {"ids": ids, "offsets": offsets}, origin | {"sha256": _digest_of_rows(ids, offsets)})
    except OSError as error:
        # The folder and not the file: Python shows the same warning once.
        warnings.warn(f"{path.parent}: encoded rows cannot be kept there: {error.strerror}; give another --cache_dir", stacklevel=1)
