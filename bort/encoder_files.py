"""Encoders that others made, read under published names: GluonNLP's RoBERTa and BERT files, and Hugging Face's folders.

Notable: names are converted on the way in, and only the position embeddings are computed anew, so that reading holds one copy of the
parameters. A sharded file is read shard by shard, and its index is believed in nothing but the names of files beside it. PyTorch's
pickles are never opened: opening one can run any code.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from bort.errors import BortError
from bort.hugging_face_names import from_gluonnlp, from_hugging_face, is_hugging_face
from bort.parameters import read_parameters
from bort.tokenizer import Tokenizer, locate_files
from bort.vocabulary import Vocab, read_text

WHOLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
"""What Transformers calls the parameters of a model: all in one file, or the index of several."""

_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json")
# A zip archive, as PyTorch writes them today, and the pickle with PyTorch's number that it wrote before.
_PICKLE_BEGINNINGS = (b"PK\x03\x04", b"\x80\x02\x8a\n")
_CONVERSION = "import sys; from transformers import AutoModelForMaskedLM as M; M.from_pretrained(sys.argv[1]).save_pretrained(sys.argv[2])"


def find_hugging_face(folder: Path) -> Path | None:
    """The parameters in a folder that Transformers wrote: ``model.safetensors`` or its index; None if there are none.

    Raises:
        BortError: if the folder holds them as a pickle only.
    """
    for name in (WHOLE_FILE, INDEX_FILE):
        if (folder / name).is_file():
            return folder / name
    for name in _PICKLES:
        if (folder / name).is_file():
            raise _pickle(folder / name, folder)
    return None


def encoder_files(path: Path) -> list[Path]:
    """The files that hold the parameters at ``path``: itself, or the shards if it is an index.

    Raises:
        BortError: if an index is damaged, or a shard is not there.
    """
    return [path] if path.name != INDEX_FILE else sorted({path.with_name(file) for file in _read_index(path).values()})


def read_encoder(path: Path) -> dict[str, np.ndarray]:
    """Read an encoder, with its head if it has one, under published names.

    Args:
        path: a ``.params`` or safetensors file with published names, those of GluonNLP's BERT or Transformers' names, or
            ``model.safetensors.index.json`` beside the files it names.

    Returns:
        Name → array in the file's type; bfloat16 comes as float32. The tied output projection may be one array under two names.

    Raises:
        BortError: if a file is missing, damaged or a pickle, or its names are those of another kind of model.
    """
    if path.name == INDEX_FILE:
        arrays = _read_shards(path)
    else:
        _refuse_pickle(path)
        arrays = read_parameters(path)
    try:
        published = from_hugging_face(arrays) if is_hugging_face(arrays) else from_gluonnlp(arrays)
    except BortError as error:
        raise BortError(f"{path}: {error}") from None
    for name, array in published.items():
        if array.dtype.kind != "f":
            raise BortError(f"{path}: {name} is of type {array.dtype}, so the model is quantised; give it as it was before that")
    return published


def fingerprint(path: Path) -> str:
    """SHA-256 of the parameter file at ``path``, of several files one after the other; the files' names do not matter.

    Raises:
        BortError: if a file cannot be read.
    """
    digest = hashlib.sha256()
    for file in encoder_files(path):
        try:
            with file.open("rb") as stream:
                while block := stream.read(1 << 20):
                    digest.update(block)
        except OSError as error:
            raise BortError(f"{file}: cannot read: {error.strerror}") from None
    return digest.hexdigest()


def read_tokens(folder: Path) -> dict[int, str] | None:
    """Tokens by id of the vocabulary in a model's folder, ours or Hugging Face's, of whatever kind it is; None if there is none.

    Raises:
        BortError: if it is damaged.
    """
    for name, read in (("tokenizer.json", _library_tokens), ("vocab.json", _table_tokens), ("vocab.txt", _listed_tokens)):
        if (folder / name).is_file():
            return read(folder / name)
    return dict(enumerate(Tokenizer.from_directory(folder).vocab.tokens)) if locate_files(folder) else None


def first_difference(theirs: Mapping[int, str], vocab: Vocab) -> str | None:
    """Where a model's vocabulary and the data's part ways, in words; None if they are the same."""
    ours = dict(enumerate(vocab.tokens))
    for position in sorted(theirs.keys() | ours.keys()):
        one, other = (repr(table[position]) if position in table else "nothing" for table in (theirs, ours))
        if one != other:
            return f"id {position} is {one} in the model's vocabulary of {len(theirs)} and {other} in the data's of {len(ours)}"
    return None


def _read_index(path: Path) -> dict[str, str]:
    """Parameter name → name of the file beside ``path`` that holds it."""
    fields = _read_json(path)
    places = fields.get("weight_map") if isinstance(fields, dict) else None
    if not isinstance(places, dict) or not places:
        raise BortError(f"{path}: no weight_map of parameters and files; the file is damaged, download it again")
    for file in places.values():
        if not isinstance(file, str) or Path(file).name != file or not file.endswith(".safetensors"):
            raise BortError(f"{path}: {file!r} is not the name of a safetensors file beside it; the index is damaged, download it again")
        if not path.with_name(file).is_file():
            raise BortError(f"{path}: {file} is missing, one of the {len(set(places.values()))} files that it names; download it too")
    return places


def _read_shards(index: Path) -> dict[str, np.ndarray]:
    places = _read_index(index)
    arrays: dict[str, np.ndarray] = {}
    for path in encoder_files(index):
        shard = read_parameters(path)
        promised = [name for name, file in places.items() if file == path.name]
        absent = [name for name in promised if name not in shard]
        if absent:
            raise BortError(f"{path}: {absent[0]} is not in it, though {index.name} says so; download both again")
        arrays |= {name: shard[name] for name in promised}
    return arrays


def _refuse_pickle(path: Path) -> None:
    # What is no file, or cannot be read, is refused by the reader of parameters.
    if path.is_file():
        with suppress(OSError), path.open("rb") as stream:
            if stream.read(4) in _PICKLE_BEGINNINGS:
                raise _pickle(path, path.parent)


def _pickle(path: Path, folder: Path) -> BortError:
    return BortError(
        f"{path}: a PyTorch pickle, which could run any code if it were opened; if you trust it, convert it where Transformers is "
        f"installed: python -c '{_CONVERSION}' {folder} NEW_FOLDER"
    )


def _read_json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise BortError(f"{path}: not JSON: {error}; the file is damaged, get it again") from None


def _library_tokens(path: Path) -> dict[int, str]:
    """Tokens of a ``tokenizer.json``: of the model, as a table or as a list of tokens and scores, and those added to it."""
    fields = _read_json(path)
    try:
        table, added = fields["model"]["vocab"], fields.get("added_tokens") or []
        pairs = [(token, i) for token, i in table.items()] if isinstance(table, dict) else [(piece[0], i) for i, piece in enumerate(table)]
        pairs += [(entry["content"], entry["id"]) for entry in added]
    except (AttributeError, IndexError, KeyError, TypeError):
        raise _no_table(path) from None
    return _by_id(path, pairs)


def _table_tokens(path: Path) -> dict[int, str]:
    """Tokens of a ``vocab.json`` and of the ``added_tokens.json`` beside it."""
    tables = [_read_json(file) for file in (path, path.with_name("added_tokens.json")) if file.is_file()]
    if not all(isinstance(table, dict) for table in tables):
        raise _no_table(path)
    return _by_id(path, [pair for table in tables for pair in table.items()])


def _listed_tokens(path: Path) -> dict[int, str]:
    """Tokens of BERT's ``vocab.txt``: one per line."""
    return dict(enumerate(read_text(path).removesuffix("\n").split("\n")))


def _by_id(path: Path, pairs: list[tuple[Any, Any]]) -> dict[int, str]:
    if not pairs or not all(isinstance(token, str) and type(position) is int for token, position in pairs):
        raise _no_table(path)
    return {position: token for token, position in pairs}


def _no_table(path: Path) -> BortError:
    return BortError(f"{path}: not a vocabulary's table of tokens and ids; the file is damaged, get it again")
