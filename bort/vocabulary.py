"""The table of tokens and ids, and the files it is kept in.

Notable: one reader takes Hugging Face's ``vocab.json`` and GluonNLP's ``.vocab``, and refuses a table in which two tokens share an id, an
id is skipped or a special token is absent, since each of those would shift embeddings without a sound. The GluonNLP file written for
RoBERTa's vocabulary is the published one byte for byte, so GluonNLP accepts it as its own.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, overload

import numpy as np
from numpy.typing import NDArray

from bort.errors import BortError


@dataclass(frozen=True, repr=False)
class Vocab:
    """Tokens in id order, with RoBERTa's five special tokens among them. Immutable; equal where the tokens are.

    ``vocab["Ġthe"]`` gives an id and ``vocab[["Ġthe", "."]]`` a list of ids, both with the id of ``<unk>`` for a token that is not there.

    Args:
        tokens: the token of id 0, of id 1, and so on.

    Raises:
        BortError: if a token stands twice, a special token is absent, or a token is not valid Unicode.
    """

    tokens: tuple[str, ...]

    bos_token: ClassVar[str] = "<s>"
    """Opens every sequence; other models call it *cls*."""
    pad_token: ClassVar[str] = "<pad>"
    eos_token: ClassVar[str] = "</s>"
    """Ends every text; other models call it *sep*."""
    unk_token: ClassVar[str] = "<unk>"
    mask_token: ClassVar[str] = "<mask>"
    special_tokens: ClassVar[tuple[str, ...]] = (bos_token, pad_token, eos_token, unk_token, mask_token)

    def __post_init__(self) -> None:
        if len(self._ids) != len(self.tokens):
            second = next(position for position, token in enumerate(self.tokens) if self._ids[token] != position)
            token = self.tokens[second]
            raise BortError(f"the token {token!r} has two ids, {second} and {self._ids[token]}; every token needs exactly one")
        absent = [token for token in self.special_tokens if token not in self]
        if absent:
            raise BortError(f"special token {', '.join(absent)} is absent; a vocabulary needs {', '.join(self.special_tokens)}")
        try:
            "".join(self.tokens).encode("utf-8")
        except UnicodeEncodeError:
            bad = next(token for token in self.tokens if any("\ud800" <= character <= "\udfff" for character in token))
            raise BortError(f"the token {bad!r} of id {self[bad]} holds a lone surrogate, which is not a character") from None

    def __repr__(self) -> str:
        return f"Vocab({len(self)} tokens, {self.fingerprint[:8]})"

    def __len__(self) -> int:
        return len(self.tokens)

    def __contains__(self, token: object) -> bool:
        return token in self._ids

    @overload
    def __getitem__(self, tokens: str) -> int: ...

    @overload
    def __getitem__(self, tokens: list[str] | tuple[str, ...]) -> list[int]: ...

    def __getitem__(self, tokens: str | list[str] | tuple[str, ...]) -> int | list[int]:
        unknown = self._ids[self.unk_token]
        if isinstance(tokens, str):
            return self._ids.get(tokens, unknown)
        return [self._ids.get(token, unknown) for token in tokens]

    to_indices = __getitem__

    @overload
    def to_tokens(self, indices: int) -> str: ...

    @overload
    def to_tokens(self, indices: Sequence[int] | NDArray[np.integer]) -> list[str]: ...

    def to_tokens(self, indices: int | Sequence[int] | NDArray[np.integer]) -> str | list[str]:
        """The token of an id, or the tokens of several.

        Raises:
            IndexError: if an id lies outside the table; negative ids do not count from its end.
        """
        if isinstance(indices, Sequence | np.ndarray):
            return [self.to_tokens(int(index)) for index in indices]
        if not 0 <= indices < len(self):
            raise IndexError(f"id {indices} lies outside the vocabulary's 0 to {len(self) - 1}")
        return self.tokens[indices]

    @property
    def bos_id(self) -> int:
        return self._ids[self.bos_token]

    @property
    def pad_id(self) -> int:
        return self._ids[self.pad_token]

    @property
    def eos_id(self) -> int:
        return self._ids[self.eos_token]

    @property
    def unk_id(self) -> int:
        return self._ids[self.unk_token]

    @property
    def mask_id(self) -> int:
        return self._ids[self.mask_token]

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids of the five special tokens, ascending: never masked, and never drawn as a random replacement."""
        return tuple(sorted(self._ids[token] for token in self.special_tokens))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the tokens in id order, in hexadecimal: equal exactly where the tables are equal."""
        return hashlib.sha256(json.dumps(self.tokens).encode("ascii")).hexdigest()

    @cached_property
    def _ids(self) -> dict[str, int]:
        return {token: position for position, token in enumerate(self.tokens)}

    @classmethod
    def from_file(cls, path: Path | str) -> Vocab:
        """Read Hugging Face's ``vocab.json`` (token → id) or GluonNLP's ``.vocab``; which of the two it is shows in the contents.

        Raises:
            BortError: if the file is missing, is not one of the two, or its ids are not 0 to n − 1, each for one token.
        """
        try:
            fields = json.loads(read_text(path), object_pairs_hook=_refuse_repeated_names)
        except (ValueError, RecursionError) as error:
            raise BortError(f"{path}: not the JSON of a vocabulary: {error}") from None
        try:
            return cls(_gluonnlp_tokens(fields) if _is_gluonnlp(fields) else _hugging_face_tokens(fields))
        except BortError as error:
            raise BortError(f"{path}: {error}") from None

    def to_hugging_face_json(self) -> str:
        """Contents of a ``vocab.json``."""
        return json.dumps(self._ids, ensure_ascii=False)

    def to_gluonnlp_json(self) -> str:
        """Contents of a GluonNLP ``.vocab``, key for key in the order in which GluonNLP wrote the published file.

        That order is a fossil: GluonNLP sorts a table by falling token count, and its converter passed ids for counts. So the
        special tokens come first and all others follow from the highest id down.
        """
        reserved = {
            "mask_token": self.mask_token,
            "padding_token": self.pad_token,
            "bos_token": self.bos_token,
            "eos_token": self.eos_token,
        }
        leading = dict.fromkeys([self.unk_token, *reserved.values()])
        order = [*leading, *(token for token in reversed(self.tokens) if token not in leading)]
        return json.dumps(
            {
                "idx_to_token": self.tokens,
                "token_to_idx": {token: self._ids[token] for token in order},
                "reserved_tokens": list(reserved.values()),
                "unknown_token": self.unk_token,
                "identifiers_to_tokens": reserved,
            }
        )


def check_vocab_size(vocab_size: int) -> None:
    """Refuse a size that no vocabulary can be trained to.

    Raises:
        BortError: if there is no room for the 256 bytes and the special tokens, or so much that a library would only run out of memory.
    """
    smallest, largest = 256 + len(Vocab.special_tokens), 1 << 20
    if not smallest <= vocab_size <= largest:
        raise BortError(f"vocab_size must lie between {smallest} (256 bytes and the special tokens) and {largest}, got {vocab_size}")


def read_bytes(path: Path | str) -> bytes:
    """The whole of a file.

    Raises:
        BortError: if it cannot be read.
    """
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BortError(f"{path}: cannot read it: {error.strerror}") from None


def read_text(path: Path | str) -> str:
    """The whole of a UTF-8 file, with the line ends it has.

    Raises:
        BortError: if it cannot be read or is not UTF-8.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise BortError(f"{path}: not UTF-8 at byte {error.start}; convert the file to UTF-8") from None


def _refuse_repeated_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        repeated = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise ValueError(f"{repeated!r} stands in it twice")
    return fields


def _is_gluonnlp(fields: Any) -> bool:
    return isinstance(fields, dict) and isinstance(fields.get("idx_to_token"), list)


def _gluonnlp_tokens(fields: dict[str, Any]) -> tuple[str, ...]:
    tokens = fields["idx_to_token"]
    wrong = next((position for position, token in enumerate(tokens) if not isinstance(token, str)), None)
    if wrong is not None:
        raise BortError(f"idx_to_token[{wrong}] is {tokens[wrong]!r}; a token is a string")
    if fields.get("token_to_idx") != {token: position for position, token in enumerate(tokens)}:
        raise BortError("token_to_idx and idx_to_token disagree; the file is damaged, get it again")
    return tuple(tokens)


def _hugging_face_tokens(fields: Any) -> tuple[str, ...]:
    if not isinstance(fields, dict):
        raise BortError(f"a vocabulary is a JSON object of tokens and ids, found {type(fields).__name__}")
    wrong = next((token for token, position in fields.items() if type(position) is not int), None)
    if wrong is not None:
        raise BortError(f"the id of {wrong!r} is {fields[wrong]!r}; an id is an integer")
    tokens = sorted(fields, key=fields.__getitem__)
    for expected, token in enumerate(tokens):
        if fields[token] != expected:
            raise BortError(
                f"ids must run from 0 to {len(tokens) - 1}, one for each token, but {token!r} has {fields[token]}, not {expected}"
            )
    return tuple(tokens)
