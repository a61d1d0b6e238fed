"""Configurations: named shapes, Hugging Face's files, and what does not fit together."""

from __future__ import annotations

import json

import pytest

from bort import BortConfig, BortError
from bort.config import ARCHITECTURES, resolve_config


def test_names_read_depth_heads_intermediate_hidden():
    for name in ("bort_4_8_768_1024", "bort_2_16_512_1024"):
        config = ARCHITECTURES[name]
        sizes = (config.num_hidden_layers, config.num_attention_heads, config.intermediate_size, config.hidden_size)
        assert name == "bort_" + "_".join(map(str, sizes))
        assert (config.vocab_size, config.max_position_embeddings, config.decoder_layer_norm_eps) == (50265, 512, 1e-12)


def test_a_configuration_goes_round_through_hugging_faces_form(tmp_path):
    config = BortConfig(hidden_size=64, num_attention_heads=4, vocab_size=99, hidden_dropout_prob=0.0)
    fields = config.to_dict()
    assert fields["model_type"] == "bert"
    assert fields["type_vocab_size"] == 1
    (tmp_path / "config.json").write_text(json.dumps(fields | {"architectures": ["BertForMaskedLM"]}))
    for place in (tmp_path, tmp_path / "config.json"):
        assert resolve_config(str(place)) == config
    assert resolve_config(config) is config


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not JSON"),
        ("[]", "a JSON object, found list"),
        ('{"hidden_size": "1024"}', "hidden_size must be an integer from 1 to 1048576, got '1024'"),
        ('{"hidden_size": 0}', "hidden_size must be an integer from 1 to 1048576, got 0"),
        ('{"num_hidden_layers": true}', "num_hidden_layers must be an integer from 1 to 1048576, got True"),
        ('{"hidden_size": 30, "num_attention_heads": 4}', "num_attention_heads 4 does not divide hidden_size 30"),
        ('{"hidden_dropout_prob": 1.0}', r"hidden_dropout_prob must lie in \[0, 1\), got 1.0"),
        ('{"hidden_dropout_prob": "0.1"}', "hidden_dropout_prob must be a number"),
        ("[" * 100_000, "not JSON"),
        ('{"num_hidden_layers": 10000}', "num_hidden_layers must be at most 1000"),
        ('{"hidden_size": 65536, "intermediate_size": 65536}', "too large for one array"),
        ('{"hidden_act": "relu"}', "hidden_act 'relu' is not supported, only 'gelu'"),
        ('{"model_type": "distilbert"}', "model_type 'distilbert' is not supported, only 'bert' and 'roberta'"),
        ('{"is_decoder": true}', "is_decoder True is not supported, only False"),
        ('{"model_type": "roberta", "pad_token_id": 0}', "pad_token_id 0 is not supported for a RoBERTa, only 1"),
        ('{"model_type": "roberta", "max_position_embeddings": 2}', "max_position_embeddings must be an integer from 1"),
        ('{"model_type": "roberta", "layer_norm_eps": "small"}', "layer_norm_eps must be a number"),
        ('{"layer_norm_eps": -1}', "layer_norm_eps must be a positive number"),
    ],
)
def test_what_does_not_fit_is_named_with_its_file(tmp_path, content, message):
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(BortError, match=rf"config\.json: .*{message}"):
        BortConfig.from_json(tmp_path / "config.json")


def test_an_unknown_architecture_lists_the_known():
    with pytest.raises(BortError, match=r'no architecture "bort_large"; known are bort_4_8_768_1024, .*config\.json'):
        resolve_config("bort_large")


def test_a_roberta_has_two_positions_less_and_one_epsilon():
    fields = {"model_type": "roberta", "max_position_embeddings": 514, "layer_norm_eps": 1e-5}
    assert BortConfig.from_dict(fields) == BortConfig(max_position_embeddings=512, decoder_layer_norm_eps=1e-5)


def test_what_transformers_says_once_holds_for_all_layer_norms():
    bert = {"model_type": "bert", "layer_norm_eps": 1e-7, "type_vocab_size": 2}
    assert BortConfig.from_dict(bert) == BortConfig(layer_norm_eps=1e-7, decoder_layer_norm_eps=1e-7)
    assert BortConfig.from_dict(bert | {"decoder_layer_norm_eps": 1e-9}).decoder_layer_norm_eps == 1e-9
    assert BortConfig.from_dict({"model_type": "roberta"}) == BortConfig(layer_norm_eps=1e-12, decoder_layer_norm_eps=1e-12)
    # Nothing said is the published Bort.
    assert BortConfig.from_dict({"model_type": "bert"}) == BortConfig()
