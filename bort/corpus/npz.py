"""Sequences that were masked before, from .npz files with the arrays of the published data script: ours, or its own.

Row *i* of each array belongs to sequence *i*: ``input_ids`` holds the masked ids with special tokens, ``valid_lengths`` how many they are,
``masked_lm_positions``, ``masked_lm_ids`` and ``masked_lm_weights`` where predictions are made, of what, and that they count;
``segment_ids`` and ``next_sentence_labels`` are zero in our files, whose sequences are whole sentences of one document; nothing here reads
them.

Notable: the masks are static, that is, drawn once when the files were made. Our own files are rectangular and free of Python objects, so
they are mapped; the published ones are ragged and therefore pickled, and read only where the caller says so. However many arrays it has, a
file keeps at most two descriptors open.
"""

from __future__ import annotations

import bisect
import hashlib
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bort.corpus.npz_archive import NpzFile, Placement, open_npz
from bort.corpus.sequences import MaskedSequence
from bort.errors import BortError

FORMAT = "bort-npz"
VERSION = 1
NPZ_PATTERN = "*.npz"
_ROWS = ("input_ids", "masked_lm_positions", "masked_lm_ids", "masked_lm_weights")
_LENGTHS = "valid_lengths"
_ROWS_AT_ONCE = 256
_KINDS = {"masked_lm_weights": "f"}


def npz_names(count: int) -> list[str]:
    """File names of a set of ``count`` files."""
    return [f"shard_{index:04d}_of_{count:04d}.npz" for index in range(count)]


class StaticSequences:
    """The sequences of a folder of .npz files, masked when the files were made: ours, or those of the published script.

    Our files are read once for their checksums and then mapped. Compressed arrays are unpacked, and pickled ones flattened, into nameless
    temporary files (``TMPDIR`` says where), one file of the folder in memory at a time.

    Args:
        directory: every ``*.npz`` in it belongs to the set.
        vocab_size: ids must lie below it.
        allow_pickle: read rows of numbers from arrays of Python objects too. These are pickles, which other programs run; here they are not
            run but taken apart, slowly and in memory.
        vocab_fingerprint: of the vocabulary the files must have been made with, as far as they say; None accepts any.

    Attributes:
        max_seq_length: longest sequence, special tokens included.
        lengths: (N,) tokens of each sequence, special ones included.
        fingerprint: of the checksums that the files have of their arrays. Those of arrays that are read, and of all that are not deflated,
            have proved right.
        description: what the files say of themselves, for a data card.

    Raises:
        BortError: if there is no file, one is missing or damaged, holds Python objects without ``allow_pickle``, or does not fit.
    """

    def __init__(self, directory: Path | str, vocab_size: int, allow_pickle: bool = False, vocab_fingerprint: str | None = None) -> None:
        directory = Path(directory)
        paths = sorted(directory.glob(NPZ_PATTERN))
        if not paths:
            raise BortError(f"{directory}: no {NPZ_PATTERN} files; make them with: bort data --format npz")
        self._vocab_size = vocab_size
        self._files = [_read_file(path, allow_pickle) for path in paths]
        self._firsts = list(itertools.accumulate((len(file.lengths) for file in self._files), initial=0))
        if not self._firsts[-1]:
            raise BortError(f"{directory}: its files hold no sequence; make them again: bort data --format npz")
        self.lengths: NDArray[np.int32] = np.concatenate([file.lengths for file in self._files])
        self.max_seq_length = max(file.arrays["input_ids"].shape[1] for file in self._files)
        self.fingerprint = hashlib.sha256("".join(file.fingerprint for file in self._files).encode()).hexdigest()
        self.description = _check_set(directory, self._files, vocab_fingerprint)

    def __len__(self) -> int:
        return self._firsts[-1]

    def masked(self, epoch: int, index: int) -> MaskedSequence:
        """Sequence ``index``, in every epoch the same.

        Raises:
            BortError: if its row is damaged: an id outside the vocabulary, a position outside the sequence.
        """
        number = bisect.bisect_right(self._firsts, index) - 1
        file, row = self._files[number], index - self._firsts[number]
        length = int(file.lengths[row])
        token_ids = file.arrays["input_ids"][row, :length]
        weights = file.arrays["masked_lm_weights"][row]
        counted = weights == 1.0
        positions, labels = file.arrays["masked_lm_positions"][row][counted], file.arrays["masked_lm_ids"][row][counted]
        where = f"{file.path}, sequence {row}"
        for ids in (token_ids, labels):
            wrong = ids[(ids < 0) | (ids >= self._vocab_size)]
            if wrong.size:
                raise BortError(
                    f"{where}: token id {wrong[0]} in a vocabulary of {self._vocab_size}; give its own vocabulary, or make the files again "
                    "from the text (the published script gave special tokens ids beyond the vocabulary): bort data --help"
                )
        if positions.size and (positions[0] < 0 or positions[-1] >= length or (positions[1:] <= positions[:-1]).any()):
            raise BortError(f"{where}: its masked positions do not increase from 0 to below {length}; make the files again")
        if (~counted & (weights != 0.0)).any():
            raise BortError(f"{where}: weights of predictions other than 0 and 1; make the files again")
        return MaskedSequence(token_ids.astype(np.int32), positions.astype(np.int64), labels.astype(np.int32))


@dataclass(frozen=True)
class _File:
    path: Path
    lengths: NDArray[np.int32]
    arrays: dict[str, np.ndarray]
    fingerprint: str
    metadata: dict[str, Any]


def _read_file(path: Path, allow_pickle: bool) -> _File:
    """A file whose headers are sound; what stands in its rows is checked when a row is looked at."""
    with open_npz(path) as file:
        absent = [name for name in (*_ROWS, _LENGTHS) if name not in file.members]
        if absent:
            raise BortError(f"{path}: no array {absent[0]!r}; not a file of pre-training data: bort data --format npz makes them")
        arrays = file.views({name: _place_rows(file, name, allow_pickle) for name in (*_ROWS, _LENGTHS)})
        metadata = read_metadata(file)
    lengths = arrays.pop(_LENGTHS)
    for name, array in arrays.items():
        if array.shape[0] != len(lengths):
            raise BortError(f"{path}: {len(array)} rows of {name!r} and {len(lengths)} of {_LENGTHS!r}; make the file again")
        if name != "input_ids" and array.shape != arrays["masked_lm_positions"].shape:
            raise BortError(f"{path}: {name!r} has the shape {array.shape}, {'masked_lm_positions'!r} another; make the file again")
    wrong = np.flatnonzero((lengths < 1) | (lengths > arrays["input_ids"].shape[1]))
    if wrong.size:
        raise BortError(f"{path}, sequence {wrong[0]}: its length is given as {lengths[wrong[0]]}; make the file again")
    return _File(path, lengths.astype(np.int32), arrays, file.fingerprint, metadata)


def _place_rows(file: NpzFile, name: str, allow_pickle: bool) -> Placement:
    """One array, ready to be mapped: (N,) for the lengths, (N, width) for the others; whole numbers, or weights."""
    member = file.members[name]
    if member.is_pickled:
        if not allow_pickle:
            raise BortError(
                f"{file.path}: the array {name!r} holds Python objects, which are stored as a pickle; "
                "to have the rows of numbers in it read, slowly and in memory but without running it, give --allow_pickle"
            )
        return _flatten(file, name)
    dimensions = 1 if name == _LENGTHS else 2
    if member.dtype.kind not in _KINDS.get(name, "iu") or len(member.shape) != dimensions or 0 in member.shape[1:]:
        raise BortError(f"{file.path}: {name!r} is a {member.dtype} array of shape {member.shape}; make the file again")
    return file.place(name)


def _flatten(file: NpzFile, name: str) -> Placement:
    """Ragged rows as a rectangle (N, longest); behind their ends ids and positions are -1, which is refused when it is looked at."""
    kind, dtype, padding = ("f", np.float32, 0) if name in _KINDS else ("iu", np.int32, -1)
    rows = file.unpickle(name)
    width = max(map(len, rows), default=0)
    most = np.iinfo(np.int32).max
    is_wrong = (row.size and (row.dtype.kind not in kind or row.min() < 0 or row.max() > most) for row in rows)
    if name == _LENGTHS or not width or any(is_wrong):
        raise BortError(f"{file.path}: a row of {name!r} is not a list of numbers of its kind; make the file again")

    def blocks() -> Iterator[np.ndarray]:
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            portion = rows[first : first + _ROWS_AT_ONCE]
            rectangle = np.full((len(portion), width), padding, dtype)
            for number, row in enumerate(portion):
                rectangle[number, : len(row)] = row
            yield rectangle

    return file.spool(blocks())


def read_metadata(file: NpzFile) -> dict[str, Any]:
    """What our own files say of themselves; nothing for others."""
    member = file.members.get("metadata")
    if member is None or member.dtype.kind != "U" or member.shape != ():
        return {}
    try:
        metadata = json.loads(str(file.map("metadata")))
    except (ValueError, RecursionError):
        metadata = None
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT or metadata.get("version") != VERSION:
        raise BortError(f"{file.path}: its metadata are not those of format {FORMAT} {VERSION}; make it again: bort data --format npz")
    return metadata


def _check_set(directory: Path, files: list[_File], vocab_fingerprint: str | None) -> dict[str, Any]:
    """What all files say of themselves, once they agree and none of ours is missing."""
    metadata = files[0].metadata
    if any(file.metadata != metadata for file in files):
        raise BortError(f"{directory}: its files were made from different texts or with different settings; make them again")
    if metadata:
        if vocab_fingerprint is not None and metadata.get("vocab_fingerprint") != vocab_fingerprint:
            raise BortError(f"{files[0].path}: made with another vocabulary than the model's; make it again, or give the right --vocab")
        if [file.path.name for file in files] != npz_names(len(files)):
            raise BortError(f"{directory}: its {len(files)} files are not one whole set; make them again: bort data --format npz")
    source_files = [{"path": str(file.path), "size": file.path.stat().st_size} for file in files]
    return {"source_files": source_files, "sequences": sum(len(file.lengths) for file in files)} | metadata
