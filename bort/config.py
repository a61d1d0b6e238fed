"""Sizes of the encoders, under Hugging Face's field names.

Notable: one configuration describes Bort and its RoBERTa teachers, since both are post-LayerNorm encoders with learned positions from 0,
no token types and no pooler; they differ in sizes and in the LayerNorm epsilon of the masked-language-model head. GluonNLP calls
``hidden_size`` *units* and ``intermediate_size`` *hidden_size*; those names stay inside ``bort/gluon/``. The name of an architecture
reads depth, attention heads, intermediate size, hidden size: ``bort_4_8_768_1024``.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bort.errors import BortError

# Far beyond every encoder there is; a configuration that says more is damaged, and building it would take memory and time without end.
_LARGEST, _MOST_LAYERS = 2**20, 1000

# What a configuration may say, the first where it says nothing.
_REQUIRED: dict[str, tuple[Any, ...]] = {
    "model_type": ("bert", "roberta"),
    "hidden_act": ("gelu",),
    "position_embedding_type": ("absolute",),
    "is_decoder": (False,),
}
_ROBERTA_EPSILON = 1e-12
"""What Transformers takes where a ``RobertaConfig`` does not say."""


@dataclass(frozen=True)
class BortConfig:
    """Sizes of a post-LayerNorm encoder.

    Args:
        hidden_size: width of every layer's input and output.
        intermediate_size: width inside the feed-forward block.
        num_hidden_layers: number of encoder layers.
        num_attention_heads: heads of each layer; divides ``hidden_size``.
        max_position_embeddings: longest sequence, special tokens included.
        vocab_size: number of token ids.
        hidden_dropout_prob: dropout of embeddings, attention weights and sub-layer outputs in training, in [0, 1).
        layer_norm_eps: epsilon of the encoder's LayerNorms.
        decoder_layer_norm_eps: epsilon of the LayerNorm in the masked-language-model head; the published Bort was trained with 1e-12.

    Raises:
        BortError: if a size is not positive, the heads do not divide the hidden size, or the dropout lies outside [0, 1).
    """

    hidden_size: int = 1024
    intermediate_size: int = 768
    num_hidden_layers: int = 4
    num_attention_heads: int = 8
    max_position_embeddings: int = 512
    vocab_size: int = 50265
    hidden_dropout_prob: float = 0.1
    layer_norm_eps: float = 1e-5
    decoder_layer_norm_eps: float = 1e-12

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.type == "int" and (not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _LARGEST):
                raise BortError(f"{field.name} must be an integer from 1 to {_LARGEST}, got {value!r}")
            if field.type == "float" and (not isinstance(value, int | float) or isinstance(value, bool)):
                raise BortError(f"{field.name} must be a number, got {value!r}")
        if self.num_hidden_layers > _MOST_LAYERS:
            raise BortError(f"num_hidden_layers must be at most {_MOST_LAYERS}, got {self.num_hidden_layers}")
        # MXNet counts the elements of an array in 31 bits.
        widest = max(self.vocab_size, self.intermediate_size, self.hidden_size, self.max_position_embeddings)
        if widest * self.hidden_size >= 2**31:
            raise BortError(f"a matrix of {widest} × hidden_size {self.hidden_size} is too large for one array")
        if self.hidden_size % self.num_attention_heads:
            raise BortError(f"num_attention_heads {self.num_attention_heads} does not divide hidden_size {self.hidden_size}")
        if not (self.layer_norm_eps > 0 and self.decoder_layer_norm_eps > 0):
            raise BortError(f"layer_norm_eps must be a positive number, got {min(self.layer_norm_eps, self.decoder_layer_norm_eps)}")
        if not 0.0 <= self.hidden_dropout_prob < 1.0:
            raise BortError(f"hidden_dropout_prob must lie in [0, 1), got {self.hidden_dropout_prob!r}")

    def to_dict(self) -> dict[str, Any]:
        """Fields of a Hugging Face ``BertConfig``, ready for JSON."""
        return {
            "model_type": "bert",
            "hidden_act": "gelu",
            "type_vocab_size": 1,
            "attention_probs_dropout_prob": self.hidden_dropout_prob,
        } | (dataclasses.asdict(self))

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> BortConfig:
        """Take what describes this encoder from a Hugging Face ``BertConfig`` or ``RobertaConfig``; training options are ignored.

        A RoBERTa counts two positions that it never uses. Transformers has one epsilon for all LayerNorms: where a file gives it and no
        other for the head, it is the head's too. How many token types there are does not matter: only the first is ever used here.

        Raises:
            BortError: as the constructor, and if the fields describe an encoder of another kind.
        """
        for name, supported in _REQUIRED.items():
            if fields.get(name, supported[0]) not in supported:
                raise BortError(f"{name} {fields[name]!r} is not supported, only {' and '.join(map(repr, supported))}")
        known = {field.name: fields[field.name] for field in dataclasses.fields(cls) if field.name in fields}
        if fields.get("model_type") == "roberta":
            if fields.get("pad_token_id", 1) != 1:
                raise BortError(
                    f"pad_token_id {fields['pad_token_id']!r} is not supported for a RoBERTa, only 1: it numbers positions from 2"
                )
            known.setdefault("layer_norm_eps", _ROBERTA_EPSILON)
            if isinstance(known.get("max_position_embeddings"), int):
                known["max_position_embeddings"] -= 2
        if "model_type" in fields and "layer_norm_eps" in known:
            known.setdefault("decoder_layer_norm_eps", known["layer_norm_eps"])
        return cls(**known)

    @classmethod
    def from_json(cls, path: Path | str) -> BortConfig:
        """Read ``config.json``.

        Raises:
            BortError: if the file is missing, is not a JSON object, or holds sizes that do not fit together.
        """
        path = Path(path)
        try:
            fields = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise BortError(f"{path}: cannot read the configuration: {error.strerror}") from None
        except (ValueError, RecursionError) as error:
            raise BortError(f"{path}: not JSON: {error}") from None
        if not isinstance(fields, dict):
            raise BortError(f"{path}: a configuration is a JSON object, found {type(fields).__name__}")
        try:
            return cls.from_dict(fields)
        except BortError as error:
            raise BortError(f"{path}: {error}") from None


ARCHITECTURES: dict[str, BortConfig] = {
    "bort_4_8_768_1024": BortConfig(),
    "bort_2_16_512_1024": BortConfig(num_hidden_layers=2, num_attention_heads=16, intermediate_size=512),
    "roberta_12_768_12": BortConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12),
    "roberta_24_1024_16": BortConfig(intermediate_size=4096, num_hidden_layers=24, num_attention_heads=16),
}
"""The two published Borts and the two published RoBERTa teachers, whose Gluon form has the same epsilon in the head."""


def resolve_config(model: str | BortConfig) -> BortConfig:
    """A configuration itself, the name of an architecture, or the path of a ``config.json`` (or of a folder that holds one).

    Raises:
        BortError: if it is neither a known name nor a readable configuration.
    """
    if isinstance(model, BortConfig):
        return model
    if model in ARCHITECTURES:
        return ARCHITECTURES[model]
    path = Path(model)
    if path.is_dir():
        path = path / "config.json"
    if path.is_file():
        return BortConfig.from_json(path)
    raise BortError(f'no architecture "{model}"; known are {", ".join(ARCHITECTURES)}, or give a config.json or a model folder')
