"""Teachers in every form: what the engine builds of them against recorded outputs and against GluonNLP's own models; what it refuses."""

from __future__ import annotations

import json
import shutil

import gluonnlp
import mxnet as mx
import numpy as np
import pytest

from bort import BortConfig, BortError, get_bort_model
from bort.cli import main
from bort.config import resolve_config
from bort.encoder_files import encoder_files
from bort.gluon.pretraining import build_engine
from bort.hugging_face_names import to_hugging_face
from bort.model_directory import find_model, write_model_directory
from bort.parameters import read_parameters, write_parameters
from bort.settings import DistillationSettings, OptimizerSettings
from bort.vocabulary import Vocab

from ..test_encoder_files import INDEX, split

SIZES = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 1000}
SMALL = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 20}


@pytest.fixture
def build_teacher():
    """The teacher as ``bort pretrain`` builds it."""

    def build(name, parameters=None, vocab_size=1000):
        student = find_model(BortConfig(**SMALL, vocab_size=vocab_size))
        teacher = find_model(name, parameters)
        engine = build_engine(student, teacher, DistillationSettings(), OptimizerSettings(), 0, vocab_size, longest=16)
        assert all(parameter.grad_req == "null" for parameter in engine._teacher.collect_params().values())
        return engine._teacher

    return build


@pytest.fixture
def hugging_face(shared, tmp_path):
    """A copy of the recorded Hugging Face RoBERTa."""
    folder = tmp_path / "roberta"
    shutil.copytree(shared / "golden" / "hf_roberta_tiny", folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    return folder


def assert_golden(teacher, outputs):
    with np.load(outputs) as golden:
        sequence, decoded = teacher(*(mx.nd.array(golden[name]) for name in ("input_ids", "valid_length", "masked_positions")))
        # Behind a row's end Gluon has zeros, and Transformers whatever came out.
        valid_length = golden["valid_length"][:, None]
        inside = np.arange(sequence.shape[1]) < valid_length
        predicted = golden["masked_positions"] < valid_length
        assert predicted.sum() > 10
        assert np.abs(sequence.asnumpy() - golden["sequence"])[inside].max() < 1e-5
        assert np.abs(decoded.asnumpy() - golden["decoded"])[predicted].max() < 1e-5


def test_a_gluon_roberta_computes_what_was_recorded(shared, tmp_path, build_teacher):
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"max_position_embeddings": 128}))
    teacher = build_teacher(str(tmp_path / "config.json"), str(shared / "golden/roberta_tiny.params"))
    assert_golden(teacher, shared / "golden/roberta_tiny_outputs.npz")


@pytest.mark.parametrize("sharded", [False, True])
def test_a_hugging_face_roberta_computes_what_was_recorded(hugging_face, shared, build_teacher, sharded):
    if sharded:
        assert len(set(split(hugging_face).values())) == len(encoder_files(hugging_face / INDEX)) == 3
    assert_golden(build_teacher(str(hugging_face)), shared / "golden/hf_roberta_tiny_outputs.npz")


def test_hugging_faces_file_alone_goes_with_a_configuration(hugging_face, shared, build_teacher):
    teacher = build_teacher(str(hugging_face / "config.json"), str(hugging_face / "model.safetensors"))
    assert_golden(teacher, shared / "golden/hf_roberta_tiny_outputs.npz")


def test_a_hugging_face_folder_can_be_loaded_and_be_a_student(hugging_face, shared):
    outputs = shared / "golden/hf_roberta_tiny_outputs.npz"
    assert_golden(get_bort_model(hugging_face)[0], outputs)
    source = find_model(hugging_face)
    assert_golden(build_engine(source, None, DistillationSettings(), OptimizerSettings(), 0, 1000, longest=16)._net, outputs)


def test_half_precision_parameters_are_computed_with_in_single(hugging_face, build_teacher):
    exact = build_teacher(str(hugging_face))
    arrays = read_parameters(hugging_face / "model.safetensors")
    write_parameters(hugging_face / "model.safetensors", {name: array.astype(np.float16) for name, array in arrays.items()})
    rounded = build_teacher(str(hugging_face))
    input_ids = mx.nd.array(np.random.default_rng(9).integers(1000, size=(2, 16)))
    logits = [teacher(input_ids, masked_positions=mx.nd.array([[3], [5]]))[1].asnumpy() for teacher in (exact, rounded)]
    assert logits[1].dtype == np.float32
    assert 0 < np.abs(logits[0] - logits[1]).max() < 0.01


def test_the_command_distils_from_a_hugging_face_folder_of_the_same_vocabulary_only(hugging_face, repository, tmp_path, capsys):
    text, vocab, shards = str(repository / "test_data/corpus"), str(tmp_path / "vocab"), str(tmp_path / "shards")
    assert main(["vocab", "train", "--input", text, "--output", vocab, "--vocab_size", "1000"]) == 0
    assert main(["data", "--input", text, "--output", shards, "--vocab", vocab, "--max_seq_length", "32"]) == 0
    (tmp_path / "student.json").write_text(json.dumps(SMALL | {"max_position_embeddings": 32}))
    pretrain = ["pretrain", "--data", shards, "--vocab", vocab, "--model", str(tmp_path / "student.json"), "--num_steps", "2"]
    pretrain += ["--teacher_model", str(hugging_face), "--output_dir", str(tmp_path / "run"), "--log_interval", "1", "--ckpt_interval", "0"]
    assert main(pretrain) == 0
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["kind"] == "train"] == [1, 2]
    assert all(line["kd_loss"] > 0 and line["teacher_entropy"] > 0 for line in lines if line["kind"] == "train")

    tokens = list(Vocab.from_file(tmp_path / "vocab" / "vocab.json").tokens)
    tokens[500], tokens[501] = tokens[501], tokens[500]
    (hugging_face / "vocab.json").write_text(json.dumps({token: position for position, token in enumerate(tokens)}))
    capsys.readouterr()
    assert main([*pretrain, "--resume", "never"]) == 2
    assert f"the teacher {hugging_face} has another vocabulary: id 500 is {tokens[500]!r} in the model's" in capsys.readouterr().err


def test_a_model_folder_is_loaded_with_its_own_parameters(tmp_path, tokenizer):
    config = BortConfig(**SMALL, vocab_size=400)
    arrays = {name: value.data().asnumpy() for name, value in get_bort_model(config, seed=3)[0]._collect_params_with_prefix().items()}
    write_model_directory(tmp_path / "model", config, arrays, tokenizer)
    loaded = get_bort_model(tmp_path / "model", vocab=tmp_path / "model")[0]
    for name, parameter in loaded._collect_params_with_prefix().items():
        np.testing.assert_array_equal(parameter.data().asnumpy(), arrays[name])


def test_named_architectures_are_gluonnlps():
    """The sizes that GluonNLP itself keeps under these names, and the epsilon of its encoders."""
    for name in ("roberta_12_768_12", "roberta_24_1024_16"):
        config, theirs = resolve_config(name), gluonnlp.model.bert.bert_hparams[name]
        ours = (config.num_hidden_layers, config.hidden_size, config.intermediate_size, config.num_attention_heads)
        assert ours == tuple(theirs[key] for key in ("num_layers", "units", "hidden_size", "num_heads"))
        assert (config.max_position_embeddings, config.layer_norm_eps) == (theirs["max_length"], theirs["layer_norm_eps"])


@pytest.fixture
def gluon_bert(tmp_path):
    """GluonNLP's own BERT with random parameters, next-sentence head and all: its configuration, its file, and the block."""
    encoder = gluonnlp.model.BERTEncoder(
        num_layers=1, units=16, hidden_size=24, num_heads=2, max_length=20, dropout=0.1, layer_norm_eps=1e-12
    )
    bert = gluonnlp.model.BERTModel(encoder, vocab_size=90, token_type_vocab_size=2, units=16, embed_size=16)
    bert.initialize(mx.init.Zero())
    bert(mx.nd.zeros((1, 4)), mx.nd.zeros((1, 4)), mx.nd.array([4]), mx.nd.array([[1]]))
    random = np.random.default_rng(7)
    for parameter in bert.collect_params().values():
        parameter.set_data(mx.nd.array(random.normal(scale=0.5, size=parameter.shape)))
    bert.save_parameters(str(tmp_path / "bert.params"))
    (tmp_path / "bert.json").write_text(json.dumps(SMALL | {"vocab_size": 90, "model_type": "bert", "layer_norm_eps": 1e-12}))
    return tmp_path / "bert.json", tmp_path / "bert.params", bert


def bert_inputs():
    random = np.random.default_rng(8)
    return mx.nd.array(random.integers(90, size=(3, 12))), mx.nd.array([12, 7, 9]), mx.nd.array(random.integers(7, size=(3, 4)))


def assert_close(found, expected):
    assert np.abs(found.asnumpy() - expected.asnumpy()).max() < 1e-5


def test_a_gluon_bert_computes_what_gluonnlp_computes_of_token_type_0(gluon_bert, build_teacher):
    config, file, bert = gluon_bert
    input_ids, valid_length, positions = bert_inputs()
    teacher = build_teacher(str(config), str(file), vocab_size=90)
    expected, _, _, expected_decoded = bert(input_ids, mx.nd.zeros_like(input_ids), valid_length, positions)
    sequence, decoded = teacher(input_ids, valid_length, positions)
    assert_close(sequence, expected)
    assert_close(decoded, expected_decoded)
    # The other type would have been noticed.
    of_type_1 = bert(input_ids, mx.nd.ones_like(input_ids), valid_length, positions)[0]
    assert np.abs(of_type_1.asnumpy() - sequence.asnumpy()).max() > 0.1


def test_a_hugging_face_bert_does_too(gluon_bert, tmp_path, build_teacher):
    """The same network in Transformers' names, with two token types and TensorFlow's names of a LayerNorm, as Google's BERTs have them."""
    config, file, bert = gluon_bert
    published = read_parameters(file)
    types = published.pop("token_type_embed.0.weight")
    theirs = to_hugging_face({name: array for name, array in published.items() if not name.startswith(("pooler.", "classifier."))})
    theirs["bert.embeddings.token_type_embeddings.weight"] = types
    theirs |= {"bert.pooler.dense.weight": published["pooler.weight"], "cls.seq_relationship.bias": published["classifier.bias"]}
    folder = tmp_path / "bert"
    folder.mkdir()
    write_parameters(folder / "model.safetensors", {name.replace("LayerNorm.weight", "LayerNorm.gamma"): theirs[name] for name in theirs})
    shutil.copy(config, folder / "config.json")
    input_ids, valid_length, positions = bert_inputs()
    decoded = build_teacher(str(folder), vocab_size=90)(input_ids, valid_length, positions)[1]
    assert_close(decoded, bert(input_ids, mx.nd.zeros_like(input_ids), valid_length, positions)[3])


def test_a_teacher_of_another_size_of_vocabulary_is_refused(hugging_face, build_teacher):
    with pytest.raises(BortError, match=r"the teacher .*roberta has 1000 tokens, the vocabulary 400; they must be the same"):
        build_teacher(str(hugging_face), vocab_size=400)


def test_a_model_that_is_no_teacher_is_refused_by_name(hugging_face, build_teacher):
    arrays = read_parameters(hugging_face / "model.safetensors")
    write_parameters(hugging_face / "model.safetensors", arrays | {"classifier.out_proj.weight": np.ones((2, 64), np.float32)})
    with pytest.raises(BortError, match=r"model\.safetensors: these Hugging Face parameters .*1 unknown \(classifier\.out_proj\.weight\)"):
        build_teacher(str(hugging_face))
    write_parameters(hugging_face / "model.safetensors", {name: array for name, array in arrays.items() if "lm_head" not in name})
    with pytest.raises(BortError, match=r"model\.safetensors: no parameter 'decoder\.0\.bias'"):
        build_teacher(str(hugging_face))
