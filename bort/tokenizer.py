"""Text to token ids and back: RoBERTa's byte-level BPE, one trained here, or a SentencePiece model, behind one class.

Notable: user text never becomes a special token. "</s>" in a text is four ordinary characters, as it was to the published tokenizer, so
nothing that a user writes can end a sequence or mask a word.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
from numpy.typing import DTypeLike, NDArray

from bort.byte_pair import MERGES_FILE, VOCAB_FILE, BytePairModel, Gigatoken, Merges, Reference, merges_text, read_merges
from bort.errors import BortError
from bort.files import whole_file
from bort.sentencepiece_model import SentencePiece
from bort.vocabulary import Vocab, read_bytes

PUBLISHED_NAME = "openwebtext_ccnews_stories_books_cased"
PUBLISHED_FILES = {
    f"{PUBLISHED_NAME}-2b804f8f.vocab": "2b804f8f90f9f93c07994b703ce508725061cf43",
    "openai_webtext_bpe_ranks-396d4d8e.json": "396d4d8ec90cb02f4d56e049e0e4add868bcd943",
}
"""GluonNLP's two files of RoBERTa's vocabulary, table and merges, and their SHA-1."""


class TextModel(Protocol):
    """What cuts text into tokens; ids come without special tokens."""

    vocab: Vocab

    def encode(self, text: str) -> list[int]: ...
    def encode_batch(self, texts: list[str], dtype: DTypeLike) -> list[NDArray[np.unsignedinteger]]: ...
    def encode_ragged(self, texts: list[str], dtype: DTypeLike) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]: ...
    def decode(self, ids: list[int]) -> str: ...
    def files(self) -> dict[str, bytes]: ...


class Tokenizer:
    """A vocabulary and the model that cuts text into its tokens. Can be pickled, and used in forked processes.

    Args:
        model: byte-level BPE run by ``Gigatoken`` or by ``Reference``, or a ``SentencePiece`` model.
    """

    def __init__(self, model: TextModel) -> None:
        self._model = model
        self._dtype = np.uint16 if len(model.vocab) <= 1 << 16 else np.uint32

    @property
    def vocab(self) -> Vocab:
        """Tokens and ids."""
        return self._model.vocab

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the vocabulary and the merges or model, in hexadecimal: equal only where all texts get the same ids."""
        rules = merges_text(self.merges).encode() if self.merges is not None else b"".join(self._model.files().values())
        return hashlib.sha256(self.vocab.fingerprint.encode() + rules).hexdigest()

    @property
    def merges(self) -> Merges | None:
        """Pairs of tokens, first to merge first; None for a SentencePiece model."""
        return self._model.merges if isinstance(self._model, BytePairModel) else None

    @classmethod
    def from_directory(cls, path: Path | str, backend: Literal["fast", "reference"] = "fast") -> Tokenizer:
        """Read a vocabulary.

        Args:
            path: a directory that holds ``vocab.json`` and ``merges.txt`` (as a Hugging Face snapshot does), GluonNLP's two files, or one
                SentencePiece ``.model`` file; or the path of such a ``.model`` file.
            backend: which library applies byte-level BPE: gigatoken, or Hugging Face tokenizers, which defines what is right. Both give the
                same ids. SentencePiece models are run by the sentencepiece library either way.

        Raises:
            BortError: if there is no vocabulary, half of one, or more than one; if a file is damaged; if a GluonNLP file does not have the
                SHA-1 that its name promises.
        """
        files = locate_files(path)
        if not files:
            raise BortError(
                f"{path}: no vocabulary there; give a directory with vocab.json and merges.txt, one with GluonNLP's two files, "
                "or a SentencePiece .model file, or train one: bort vocab train --help"
            )
        if len(files) == 1:
            return cls(_read_sentencepiece(files[0]))
        for file in files:
            if file.name not in (VOCAB_FILE, MERGES_FILE):
                check_sha1(file)
        vocab = Vocab.from_file(files[0])
        models: dict[str, type[Gigatoken] | type[Reference]] = {"fast": Gigatoken, "reference": Reference}
        return cls(models[backend](vocab, read_merges(files[1], vocab)))

    def encode(self, text: str) -> list[int]:
        """Ids of one text, without special tokens.

        Raises:
            BortError: if the text holds a lone surrogate, which is half a character and has no UTF-8 form.
        """
        try:
            return self._model.encode(text)
        except (TypeError, RuntimeError):
            _blame_lone_surrogate([text])
            raise

    def encode_batch(self, texts: Sequence[str]) -> list[NDArray[np.unsignedinteger]]:
        """Ids of many texts, without special tokens, on all cores; on one core in a worker process.

        Returns:
            One array for each text, of shape (number of tokens,) and dtype uint16, or uint32 where the vocabulary has more than 65,536
            tokens. The arrays of one call may be views of one buffer.

        Raises:
            BortError: if a text holds a lone surrogate; the message counts texts from 0.
        """
        texts = list(texts)
        try:
            return self._model.encode_batch(texts, self._dtype)
        except (TypeError, RuntimeError):
            _blame_lone_surrogate(texts)
            raise

    def encode_ragged(self, texts: list[str]) -> tuple[NDArray[np.unsignedinteger], NDArray[np.int64]]:
        """Ids of many texts in one array, without special tokens, on the calling thread: for programs that run a process on each core.

        Returns:
            The ids of all texts behind one another, (N,), dtype as in ``encode_batch``; and where each text begins among them,
            (number of texts + 1,), the last entry being N.

        Raises:
            BortError: as ``encode_batch``.
        """
        try:
            return self._model.encode_ragged(texts, self._dtype)
        except (TypeError, RuntimeError, UnicodeEncodeError):
            _blame_lone_surrogate(texts)
            raise

    def decode(self, ids: Sequence[int] | NDArray[np.integer]) -> str:
        """Text of ids: special tokens are left out, and bytes that form no character become U+FFFD.

        Raises:
            IndexError: if an id lies outside the vocabulary.
        """
        special = self.vocab.special_ids
        ordinary = [index for index in np.asarray(ids, dtype=np.int64).tolist() if index not in special]
        if ordinary and not 0 <= min(ordinary) <= max(ordinary) < len(self.vocab):
            raise IndexError(f"ids {min(ordinary)} to {max(ordinary)} go beyond the vocabulary's 0 to {len(self.vocab) - 1}")
        return self._model.decode(ordinary)

    def save(self, directory: Path | str) -> list[Path]:
        """Write ``vocab.json`` and ``merges.txt``, or ``sentencepiece.model``, so that ``from_directory`` can read it back.

        Args:
            directory: made if it is missing; other files in it stay.

        Returns:
            The files written.

        Raises:
            BortError: if they cannot be written.
        """
        return _write_together(Path(directory), self._model.files())

    def save_gluonnlp(self, directory: Path | str) -> list[Path]:
        """Write a byte-level BPE as GluonNLP's two files; RoBERTa's vocabulary gives the published names and bytes.

        Args and returns as ``save``.

        Raises:
            BortError: if they cannot be written.
            ValueError: if this is a SentencePiece model, which has no merges.
        """
        if self.merges is None:
            raise ValueError("a SentencePiece model has no merges, so GluonNLP's two files cannot hold it")
        return _write_together(Path(directory), _gluonnlp_files(self.vocab, self.merges))

    @property
    def is_published(self) -> bool:
        """Whether this is RoBERTa's vocabulary, both tokens and merges."""
        return self.merges is not None and _gluonnlp_files(self.vocab, self.merges).keys() == PUBLISHED_FILES.keys()


def locate_files(path: Path | str) -> tuple[Path, ...]:
    """The files of the vocabulary at ``path``: table and merges, or a SentencePiece model; empty if there is none.

    Raises:
        BortError: if the directory holds half a vocabulary, or more than one, or cannot be listed.
    """
    path = Path(path)
    if path.suffix == ".model" and path.is_file():
        return (path,)
    try:
        names = sorted(entry.name for entry in path.iterdir()) if path.is_dir() else []
    except OSError as error:
        raise BortError(f"{path}: cannot list it: {error.strerror}") from None
    tables = [name for name in names if re.fullmatch(r".+-[0-9a-f]{8}\.vocab", name)]
    ranks = [name for name in names if re.fullmatch(r".*bpe_ranks-[0-9a-f]{8}\.json", name)]
    pairs = [(VOCAB_FILE, MERGES_FILE), tuple(PUBLISHED_FILES)]
    # GluonNLP keeps the tables of many models in one folder; where RoBERTa's is among them, it is the one that the merges belong to.
    if not {*PUBLISHED_FILES} <= {*names} and len(tables) == len(ranks) == 1:
        pairs.append((tables[0], ranks[0]))
    found = [pair for pair in pairs if {*pair} <= {*names}] + [(name,) for name in names if name.endswith(".model")]
    if len(found) > 1:
        raise BortError(f"{path}: holds {len(found)} vocabularies ({', '.join(files[0] for files in found)}); give a directory with one")
    if not found:
        for one, other in pairs:
            if one in names or other in names:
                present, absent = (one, other) if one in names else (other, one)
                raise BortError(f"{path}: holds {present} but not {absent}; a vocabulary needs both")
    return tuple(path / name for files in found for name in files)


def check_sha1(path: Path) -> None:
    """Compare a file of GluonNLP's with the SHA-1 that its name begins to spell, or with all of it where we know it.

    Raises:
        BortError: if they differ; the message names the file and both sums.
    """
    promised = PUBLISHED_FILES.get(path.name) or path.stem.rpartition("-")[2]
    found = hashlib.sha1(read_bytes(path)).hexdigest()
    if not found.startswith(promised):
        raise BortError(f"{path}: damaged: its SHA-1 is {found}, not {promised}; remove it, or get it again")


def _gluonnlp_files(vocab: Vocab, merges: Merges) -> dict[str, bytes]:
    """Names and contents of GluonNLP's two files, each name with the beginning of its content's SHA-1, as GluonNLP names them."""
    table, ranks = vocab.to_gluonnlp_json().encode(), merges_text(merges).encode()
    sums = hashlib.sha1(table).hexdigest(), hashlib.sha1(ranks).hexdigest()
    if sums == tuple(PUBLISHED_FILES.values()):
        return dict(zip(PUBLISHED_FILES, (table, ranks), strict=True))
    return {f"vocabulary-{sums[0][:8]}.vocab": table, f"bpe_ranks-{sums[1][:8]}.json": ranks}


def _read_sentencepiece(path: Path) -> SentencePiece:
    try:
        return SentencePiece(read_bytes(path))
    except BortError as error:
        raise BortError(f"{path}: {error}") from None


def _write_together(directory: Path, contents: dict[str, bytes]) -> list[Path]:
    """Write files that make sense only together: none gets its name before all are on the disk."""
    try:
        with ExitStack() as stack:
            for name, content in contents.items():
                stack.enter_context(whole_file(directory / name)).write_bytes(content)
    except OSError as error:
        raise BortError(f"{directory}: cannot write the vocabulary: {error.strerror}; give another directory, or make room") from None
    return [directory / name for name in contents]


def _blame_lone_surrogate(texts: list[str]) -> None:
    for number, text in enumerate(texts):
        found = re.search("[\ud800-\udfff]", text)
        if found:
            raise BortError(
                f"text {number}, character {found.start()}: U+{ord(found[0]):04X} is half a surrogate pair, not a character; "
                "mend the text, or decode its file as UTF-8"
            )
