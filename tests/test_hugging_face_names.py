"""Conversion between published and Hugging Face names: the table in full, what is computed, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import erf

from bort.errors import BortError
from bort.hugging_face_names import from_gluonnlp, from_hugging_face, to_hugging_face
from bort.parameters import read_parameters

# One layer of a Bort with its head. Sizes: vocabulary 7, positions 5, hidden 4, intermediate 3.
TABLE = {
    "encoder.position_weight": ("bert.embeddings.position_embeddings.weight", (5, 4)),
    "encoder.layer_norm.gamma": ("bert.embeddings.LayerNorm.weight", (4,)),
    "encoder.layer_norm.beta": ("bert.embeddings.LayerNorm.bias", (4,)),
    "encoder.transformer_cells.0.attention_cell.proj_query.weight": ("bert.encoder.layer.0.attention.self.query.weight", (4, 4)),
    "encoder.transformer_cells.0.attention_cell.proj_query.bias": ("bert.encoder.layer.0.attention.self.query.bias", (4,)),
    "encoder.transformer_cells.0.attention_cell.proj_key.weight": ("bert.encoder.layer.0.attention.self.key.weight", (4, 4)),
    "encoder.transformer_cells.0.attention_cell.proj_key.bias": ("bert.encoder.layer.0.attention.self.key.bias", (4,)),
    "encoder.transformer_cells.0.attention_cell.proj_value.weight": ("bert.encoder.layer.0.attention.self.value.weight", (4, 4)),
    "encoder.transformer_cells.0.attention_cell.proj_value.bias": ("bert.encoder.layer.0.attention.self.value.bias", (4,)),
    "encoder.transformer_cells.0.proj.weight": ("bert.encoder.layer.0.attention.output.dense.weight", (4, 4)),
    "encoder.transformer_cells.0.proj.bias": ("bert.encoder.layer.0.attention.output.dense.bias", (4,)),
    "encoder.transformer_cells.0.layer_norm.gamma": ("bert.encoder.layer.0.attention.output.LayerNorm.weight", (4,)),
    "encoder.transformer_cells.0.layer_norm.beta": ("bert.encoder.layer.0.attention.output.LayerNorm.bias", (4,)),
    "encoder.transformer_cells.0.ffn.ffn_1.weight": ("bert.encoder.layer.0.intermediate.dense.weight", (3, 4)),
    "encoder.transformer_cells.0.ffn.ffn_1.bias": ("bert.encoder.layer.0.intermediate.dense.bias", (3,)),
    "encoder.transformer_cells.0.ffn.ffn_2.weight": ("bert.encoder.layer.0.output.dense.weight", (4, 3)),
    "encoder.transformer_cells.0.ffn.ffn_2.bias": ("bert.encoder.layer.0.output.dense.bias", (4,)),
    "encoder.transformer_cells.0.ffn.layer_norm.gamma": ("bert.encoder.layer.0.output.LayerNorm.weight", (4,)),
    "encoder.transformer_cells.0.ffn.layer_norm.beta": ("bert.encoder.layer.0.output.LayerNorm.bias", (4,)),
    "word_embed.0.weight": ("bert.embeddings.word_embeddings.weight", (7, 4)),
    "decoder.0.weight": ("cls.predictions.transform.dense.weight", (4, 4)),
    "decoder.0.bias": ("cls.predictions.transform.dense.bias", (4,)),
    "decoder.2.gamma": ("cls.predictions.transform.LayerNorm.weight", (4,)),
    "decoder.2.beta": ("cls.predictions.transform.LayerNorm.bias", (4,)),
    "decoder.3.bias": ("cls.predictions.bias", (7,)),
}
TYPES = "bert.embeddings.token_type_embeddings.weight"
WORDS = "bert.embeddings.word_embeddings.weight"


def published() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, (_, shape) in TABLE.items()}
    return arrays | {"decoder.3.weight": arrays["word_embed.0.weight"]}


def roberta() -> dict[str, np.ndarray]:
    """The same network as Transformers' RoBERTa holds it, its token type apart from its positions."""
    arrays = {
        name.replace("bert.", "roberta.")
        .replace("cls.predictions.transform.dense", "lm_head.dense")
        .replace("cls.predictions.transform.LayerNorm", "lm_head.layer_norm")
        .replace("cls.predictions.bias", "lm_head.bias"): array
        for name, array in to_hugging_face(published()).items()
    }
    random = np.random.default_rng(1)
    types = random.normal(size=(1, 4)).astype(np.float32)
    positions = arrays["roberta.embeddings.position_embeddings.weight"]
    arrays["roberta.embeddings.token_type_embeddings.weight"] = types
    arrays["roberta.embeddings.position_embeddings.weight"] = np.concatenate([random.normal(size=(2, 4)), positions - types]).astype(
        np.float32
    )
    return arrays


def assert_equal(actual: dict[str, np.ndarray], expected: dict[str, np.ndarray], tolerance: float = 0.0) -> None:
    assert actual.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_allclose(actual[name], array, rtol=0, atol=tolerance, err_msg=name)


def test_every_parameter_goes_to_its_place_in_a_bert_and_comes_back():
    arrays = published()
    theirs = to_hugging_face(arrays)
    assert_equal(theirs, {name: arrays[ours] for ours, (name, _) in TABLE.items()} | {TYPES: np.zeros((1, 4), np.float32)})
    assert_equal(from_hugging_face(theirs), arrays)


def test_an_encoder_without_its_head_converts_both_ways():
    arrays = {name: array for name, array in published().items() if not name.startswith("decoder.")}
    theirs = to_hugging_face(arrays)
    assert not any(name.startswith("cls.") for name in theirs)
    assert_equal(from_hugging_face(theirs), arrays)


def test_roberta_loses_two_positions_and_its_token_type_moves_into_the_others():
    assert_equal(from_hugging_face(roberta()), published(), tolerance=1e-6)


def test_of_several_token_types_the_first_moves_into_the_positions():
    arrays = published()
    types = np.random.default_rng(2).normal(size=(2, 4)).astype(np.float32)
    moved = arrays | {"encoder.position_weight": arrays["encoder.position_weight"] + types[0]}
    assert_equal(from_hugging_face(to_hugging_face(arrays) | {TYPES: types}), moved)
    gluon = arrays | {"token_type_embed.0.weight": types, "pooler.weight": types, "classifier.bias": types}
    assert_equal(from_gluonnlp(gluon), moved)


def test_half_precision_is_added_up_in_single():
    arrays = {name: array.astype(np.float16) for name, array in roberta().items()}
    positions, types = (arrays[f"roberta.embeddings.{kind}_embeddings.weight"] for kind in ("position", "token_type"))
    exact = positions[2:].astype(np.float64) + types[0]
    np.testing.assert_allclose(from_hugging_face(arrays)["encoder.position_weight"], exact, rtol=1e-7)


def test_tensorflows_names_of_a_layer_norm_are_understood():
    arrays = to_hugging_face(published())
    old = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): array
        for name, array in arrays.items()
    }
    assert old.keys() != arrays.keys()
    assert_equal(from_hugging_face(old), published())


def test_other_published_arrays_pass_as_they_are():
    arrays = published() | {"bort.encoder.x": np.ones(1), "classifier.1.weight": np.ones((4, 4))}
    passed = from_gluonnlp(arrays)
    assert passed.keys() == arrays.keys()
    assert all(passed[name] is array for name, array in arrays.items())


@pytest.mark.parametrize("types", [np.zeros((2, 3)), np.zeros(4), np.zeros((0, 4))])
def test_token_types_of_another_width_are_refused(types):
    with pytest.raises(BortError, match=r"has shape"):
        from_gluonnlp(published() | {"token_type_embed.0.weight": types})


def test_repeated_and_unused_parameters_are_left_out():
    arrays = to_hugging_face(published())
    more = {
        "cls.predictions.decoder.weight": arrays[WORDS].copy(),
        "cls.predictions.decoder.bias": arrays["cls.predictions.bias"].copy(),
        "cls.seq_relationship.weight": np.ones((2, 4)),
        "bert.pooler.dense.weight": np.ones((4, 4)),
        "bert.embeddings.position_ids": np.arange(5)[None],
    }
    assert_equal(from_hugging_face(arrays | more), published())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({TYPES: np.zeros((0, 4))}, "expected (number of types, hidden_size)"),
        ({TYPES: np.zeros(1)}, "expected (number of types, hidden_size)"),
        ({"bert.embeddings.position_embeddings.weight": np.zeros((0, 4))}, "expected more than 0 rows of 4"),
        ({"bert.embeddings.position_embeddings.weight": np.zeros((5, 3))}, "expected more than 0 rows of 4"),
        ({"bert.embeddings.position_embeddings.weight": np.float32(1)}, "expected more than 0 rows of 4"),
        ({"cls.predictions.decoder.weight": np.zeros((7, 4))}, "cls.predictions.decoder.weight differs from bert.embeddings.word"),
        ({"cls.predictions.decoder.bias": np.zeros(7)}, "cls.predictions.decoder.bias differs from cls.predictions.bias"),
        ({"classifier.weight": np.zeros((2, 4))}, "1 unknown (classifier.weight)"),
        ({"bert.pooler.dense.weight_scale": np.ones(1)}, "1 unknown (bert.pooler.dense.weight_scale)"),
        ({"bert.encoder.layer.2.output.dense.bias": np.zeros(4)}, "16 missing (bert.encoder.layer.1.attention.output.LayerNorm.bias, "),
        ({"cls.predictions.bias": None}, "1 missing (cls.predictions.bias)"),
        ({TYPES: None}, f"1 missing ({TYPES})"),
    ],
)
def test_what_is_no_such_bert_is_refused(change, message):
    arrays = {name: array for name, array in (to_hugging_face(published()) | change).items() if array is not None}
    with pytest.raises(BortError) as caught:
        from_hugging_face(arrays)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"decoder.3.weight": np.zeros((7, 4))}, "decoder.3.weight differs from word_embed.0.weight"),
        ({"decoder.2.beta": None}, "1 missing (decoder.2.beta)"),
        ({"classifier.1.weight": np.zeros((4, 4))}, "1 unknown (classifier.1.weight)"),
    ],
)
def test_what_is_no_published_bort_is_refused(change, message):
    arrays = {name: array for name, array in (published() | change).items() if array is not None}
    with pytest.raises(BortError) as caught:
        to_hugging_face(arrays)
    assert message in str(caught.value)


def test_a_transformers_roberta_gets_the_names_and_shapes_of_a_gluon_one(shared):
    converted = from_hugging_face(read_parameters(shared / "golden/hf_roberta_tiny/model.safetensors"))
    gluon = read_parameters(shared / "golden/roberta_tiny.params")
    assert {name: array.shape for name, array in converted.items()} == {name: array.shape for name, array in gluon.items()}


# The published network written out in NumPy, so that conversion is judged by what is computed.


def gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + erf(x / np.sqrt(2)))


def layer_norm(x: np.ndarray, arrays: dict[str, np.ndarray], name: str, epsilon: float) -> np.ndarray:
    centred = x - x.mean(-1, keepdims=True)
    return centred / np.sqrt(x.var(-1, keepdims=True) + epsilon) * arrays[f"{name}.gamma"] + arrays[f"{name}.beta"]


def dense(x: np.ndarray, arrays: dict[str, np.ndarray], name: str) -> np.ndarray:
    return x @ arrays[f"{name}.weight"].T + arrays[f"{name}.bias"]


def encode(arrays: dict[str, np.ndarray], input_ids: np.ndarray, valid_length: np.ndarray, heads: int, epsilon: float) -> np.ndarray:
    """(B, T) ids -> (B, T, hidden_size)."""
    batch, length = input_ids.shape
    x = arrays["word_embed.0.weight"][input_ids] + arrays["encoder.position_weight"][:length]
    x = layer_norm(x, arrays, "encoder.layer_norm", epsilon)
    seen = np.arange(length) < valid_length[:, None]
    for layer in range(sum(name.endswith("proj_query.bias") for name in arrays)):
        cell = f"encoder.transformer_cells.{layer}"
        query, key, value = (
            dense(x, arrays, f"{cell}.attention_cell.proj_{kind}").reshape(batch, length, heads, -1).transpose(0, 2, 1, 3)
            for kind in ("query", "key", "value")
        )
        scores = query @ key.transpose(0, 1, 3, 2) / np.sqrt(query.shape[-1])
        scores = np.where(seen[:, None, None, :], scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        attended = (weights / weights.sum(-1, keepdims=True) @ value).transpose(0, 2, 1, 3).reshape(x.shape)
        x = layer_norm(x + dense(attended, arrays, f"{cell}.proj"), arrays, f"{cell}.layer_norm", epsilon)
        inner = dense(gelu(dense(x, arrays, f"{cell}.ffn.ffn_1")), arrays, f"{cell}.ffn.ffn_2")
        x = layer_norm(x + inner, arrays, f"{cell}.ffn.layer_norm", epsilon)
    return x


def decode(arrays: dict[str, np.ndarray], sequence: np.ndarray, positions: np.ndarray, epsilon: float) -> np.ndarray:
    """(B, T, hidden_size) and (B, M) -> logits (B, M, vocab_size)."""
    x = np.take_along_axis(sequence, positions[:, :, None], axis=1)
    return dense(layer_norm(gelu(dense(x, arrays, "decoder.0")), arrays, "decoder.2", epsilon), arrays, "decoder.3")


def test_a_converted_roberta_computes_what_transformers_computes(shared):
    folder = shared / "golden/hf_roberta_tiny"
    config = json.loads((folder / "config.json").read_text())
    arrays = {name: array.astype(np.float64) for name, array in from_hugging_face(read_parameters(folder / "model.safetensors")).items()}
    with np.load(shared / "golden/hf_roberta_tiny_outputs.npz") as golden:
        epsilon = config["layer_norm_eps"]
        sequence = encode(arrays, golden["input_ids"], golden["valid_length"], config["num_attention_heads"], epsilon)
        # Transformers leaves what it computed behind valid_length standing, at the position it gives to padding.
        valid = np.arange(sequence.shape[1]) < golden["valid_length"][:, None]
        np.testing.assert_allclose(sequence[valid], golden["sequence"][valid], rtol=0, atol=1e-5)
        decoded = decode(arrays, sequence, golden["masked_positions"], epsilon)
        predicted = golden["masked_positions"] < golden["valid_length"][:, None]
        np.testing.assert_allclose(decoded[predicted], golden["decoded"][predicted], rtol=0, atol=1e-5)


def test_the_network_written_out_here_is_the_published_one(shared):
    arrays = {name: array.astype(np.float64) for name, array in read_parameters(shared / "golden/bort_tiny.params").items()}
    with np.load(shared / "golden/bort_tiny_outputs.npz") as golden:
        sequence = encode(arrays, golden["input_ids"], golden["valid_length"], 8, 1e-5)
        sequence[np.arange(sequence.shape[1]) >= golden["valid_length"][:, None]] = 0  # as Gluon leaves it
        np.testing.assert_allclose(sequence, golden["sequence"], rtol=0, atol=1e-5)
        decoded = decode(arrays, sequence, golden["masked_positions"], 1e-12)
        np.testing.assert_allclose(decoded, golden["decoded"], rtol=0, atol=1e-5)
