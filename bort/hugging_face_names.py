"""Published (Gluon) parameter names <-> Hugging Face's, for Bort and for RoBERTa teachers.

Notable: the head for masked language modelling goes along, both ways. Transformers' encoders know two things that ours lacks, and neither
changes what is computed. RoBERTa numbers positions from 2, so its first two position embeddings, which only padding would use, are
dropped. Our inputs are of token type 0 throughout, so that type's embedding is added to every position embedding: it cannot go into the
word embeddings, since those are also the output projection, and all logits would shift. What masked language modelling does not use
(pooler, next-sentence head, buffers of indices) is left out; any other unknown name is an error, so nothing else is lost unseen.
GluonNLP's BERT has the published names but for its token types, pooler and next-sentence head, and is treated likewise.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping

import numpy as np

from bort.errors import BortError

_WORDS, _POSITIONS, _OUTPUT = "word_embed.0.weight", "encoder.position_weight", "decoder.3.weight"
# Each stands behind "bert." or "roberta.".
_THEIR_WORDS = "embeddings.word_embeddings.weight"
_THEIR_POSITIONS = "embeddings.position_embeddings.weight"
_THEIR_TYPES = "embeddings.token_type_embeddings.weight"

_DENSE = {"weight": "weight", "bias": "bias"}
_NORM = {"gamma": "weight", "beta": "bias"}
_LAYER = {
    "attention_cell.proj_query": ("attention.self.query", _DENSE),
    "attention_cell.proj_key": ("attention.self.key", _DENSE),
    "attention_cell.proj_value": ("attention.self.value", _DENSE),
    "proj": ("attention.output.dense", _DENSE),
    "layer_norm": ("attention.output.LayerNorm", _NORM),
    "ffn.ffn_1": ("intermediate.dense", _DENSE),
    "ffn.ffn_2": ("output.dense", _DENSE),
    "ffn.layer_norm": ("output.LayerNorm", _NORM),
}
# Per prefix of the encoder: dense layer, LayerNorm, bias of the output, and the output projection, which repeats other parameters.
_HEADS = {
    "bert": ("cls.predictions.transform.dense", "cls.predictions.transform.LayerNorm", "cls.predictions.bias", "cls.predictions.decoder"),
    "roberta": ("lm_head.dense", "lm_head.layer_norm", "lm_head.bias", "lm_head.decoder"),
}
_UNUSED = re.compile(
    r"(bert|roberta)\.(pooler\.dense\.(weight|bias)|embeddings\.(position_ids|token_type_ids))|cls\.seq_relationship\.(weight|bias)"
)
# Files that came from TensorFlow, Google's own BERTs among them, have that framework's names for the two parts of a LayerNorm.
_OLD_NORM = {"LayerNorm.gamma": "LayerNorm.weight", "LayerNorm.beta": "LayerNorm.bias"}
_GLUON_TYPES = "token_type_embed.0.weight"
_GLUON_UNUSED = re.compile(r"(pooler|classifier)\.(weight|bias)")


def is_hugging_face(names: Iterable[str]) -> bool:
    """Whether these are names of a Transformers BERT or RoBERTa."""
    return any(name.startswith(("bert.", "roberta.")) for name in names)


def from_hugging_face(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of a Transformers ``BertForMaskedLM`` or ``RobertaForMaskedLM``, or of its encoder alone, under published names.

    They compute the same where every token is of type 0.

    Args:
        arrays: names beginning with ``bert.`` or ``roberta.``, and those of the head, if there is one.

    Returns:
        Published names. Arrays are shared with ``arrays`` but for the position embeddings, (max_position_embeddings, hidden_size)
        float32, which hold the first token type's embedding too, and are two rows shorter than RoBERTa's. With a head,
        ``decoder.3.weight`` is ``word_embed.0.weight``.

    Raises:
        BortError: if names are missing or unknown, or the output projection is not tied to the words.
    """
    arrays = {_modern(name): array for name, array in arrays.items()}
    prefix = "roberta" if any(name.startswith("roberta.") for name in arrays) else "bert"
    dense, norm, bias, projection = _HEADS[prefix]
    layers = _layer_count(arrays, rf"{prefix}\.encoder\.layer\.(\d+)\.")
    has_head = any(name.startswith((dense, norm, bias, projection)) for name in arrays)
    names = _names(prefix, layers, has_head)
    types, positions = f"{prefix}.{_THEIR_TYPES}", f"{prefix}.{_THEIR_POSITIONS}"
    tied = {f"{projection}.weight": f"{prefix}.{_THEIR_WORDS}", f"{projection}.bias": bias} if has_head else {}
    required = {*names.values(), types}
    unknown = {name for name in arrays.keys() - required - tied.keys() if not _UNUSED.fullmatch(name)}
    _refuse("Hugging Face parameters", required - arrays.keys(), unknown)
    for name, original in tied.items():
        if name in arrays and not np.array_equal(arrays[name], arrays[original]):
            raise BortError(f"{name} differs from {original}; Bort's output projection is tied to its word embeddings")
    published = {name: arrays[theirs] for name, theirs in names.items()}
    first = 2 if prefix == "roberta" else 0
    published[_POSITIONS] = _with_first_type(positions, arrays[positions], first, types, arrays[types])
    if has_head:
        published[_OUTPUT] = published[_WORDS]
    return published


def to_hugging_face(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of a Transformers ``BertForMaskedLM`` with one token type; of its encoder alone, if ``arrays`` has no ``decoder.*``.

    Transformers has one epsilon for all LayerNorms where the published head has its own, 1e-12.

    Returns:
        Names beginning with ``bert.`` and ``cls.``; arrays are shared with ``arrays``. The token type's embedding, (1, hidden_size), is
        zero. The output projection is left out: Transformers ties it to the word embeddings.

    Raises:
        BortError: if names are missing or unknown, or the output projection is not tied to the words.
    """
    layers = _layer_count(arrays, r"encoder\.transformer_cells\.(\d+)\.")
    has_head = any(name.startswith("decoder.") for name in arrays)
    names = _names("bert", layers, has_head)
    required = {*names, _OUTPUT} if has_head else set(names)
    _refuse("published parameters", required - arrays.keys(), arrays.keys() - required)
    if has_head and not np.array_equal(arrays[_OUTPUT], arrays[_WORDS]):
        raise BortError(f"{_OUTPUT} differs from {_WORDS}; in Transformers the output projection is tied to the word embeddings")
    theirs = {hugging_face: arrays[name] for name, hugging_face in names.items()}
    theirs[f"bert.{_THEIR_TYPES}"] = np.zeros((1, *arrays[_WORDS].shape[1:]), arrays[_WORDS].dtype)
    return theirs


def from_gluonnlp(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Parameters of GluonNLP's BERT for masked language modelling on inputs of token type 0; any others as they are.

    Args:
        arrays: published names, possibly with ``token_type_embed.0.weight`` (number of types, hidden_size), ``pooler.*`` and
            ``classifier.*``, the next-sentence head.

    Returns:
        Published names. Arrays are shared with ``arrays`` but for the position embeddings, which hold the token type's embedding too.

    Raises:
        BortError: if the shapes of token types and positions do not belong together.
    """
    types = arrays.get(_GLUON_TYPES)
    published = {name: array for name, array in arrays.items() if name != _GLUON_TYPES and not _GLUON_UNUSED.fullmatch(name)}
    if types is not None and _POSITIONS in published:
        published[_POSITIONS] = _with_first_type(_POSITIONS, published[_POSITIONS], 0, _GLUON_TYPES, types)
    return published


def _names(prefix: str, layers: int, has_head: bool) -> dict[str, str]:
    """Published name -> Hugging Face name, in the order of the published file, without the tied output projection."""
    names = {_POSITIONS: f"{prefix}.{_THEIR_POSITIONS}"}
    names |= _expanded("encoder.layer_norm", f"{prefix}.embeddings.LayerNorm", _NORM)
    for layer in range(layers):
        for ours, (theirs, kinds) in _LAYER.items():
            names |= _expanded(f"encoder.transformer_cells.{layer}.{ours}", f"{prefix}.encoder.layer.{layer}.{theirs}", kinds)
    names[_WORDS] = f"{prefix}.{_THEIR_WORDS}"
    if has_head:
        dense, norm, bias, _ = _HEADS[prefix]
        names |= _expanded("decoder.0", dense, _DENSE) | _expanded("decoder.2", norm, _NORM) | {"decoder.3.bias": bias}
    return names


def _with_first_type(name: str, positions: np.ndarray, first: int, types_name: str, types: np.ndarray) -> np.ndarray:
    """Position embeddings from row ``first`` on, each with the embedding of token type 0 added: (rows, hidden_size) float32."""
    if types.ndim != 2 or len(types) < 1:
        raise BortError(f"{types_name} has shape {types.shape}, expected (number of types, hidden_size)")
    if positions.ndim != 2 or len(positions) <= first or positions.shape[1] != types.shape[1]:
        raise BortError(f"{name} has shape {positions.shape}, expected more than {first} rows of {types.shape[1]}")
    return np.add(positions[first:], types[0], dtype=np.float32)


def _modern(name: str) -> str:
    *path, block, kind = name.rsplit(".", 2)
    return ".".join([*path, _OLD_NORM.get(f"{block}.{kind}", f"{block}.{kind}")]) if path else name


def _expanded(ours: str, theirs: str, kinds: Mapping[str, str]) -> dict[str, str]:
    return {f"{ours}.{kind}": f"{theirs}.{their_kind}" for kind, their_kind in kinds.items()}


def _layer_count(names: Iterable[str], pattern: str) -> int:
    """Number of distinct layers, so a gap in the numbering shows as missing and unknown names."""
    return len({match[1] for name in names if (match := re.match(pattern, name))})


def _refuse(what: str, missing: Collection[str], unknown: Collection[str]) -> None:
    problems = [f"{len(names)} {kind} ({_some(names)})" for kind, names in (("missing", missing), ("unknown", unknown)) if names]
    if problems:
        raise BortError(f"these {what} do not make an encoder that Bort can be or learn from: {', '.join(problems)}")


def _some(names: Collection[str]) -> str:
    return ", ".join(sorted(names)[:4]) + (", …" if len(names) > 4 else "")
