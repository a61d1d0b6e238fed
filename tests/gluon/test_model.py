"""The Gluon model against the outputs and gradients of the published implementation, and the promises of its call signature."""

from __future__ import annotations

import subprocess
import sys

import mxnet as mx
import numpy as np
import pytest

from bort import BortClassifier, BortConfig, BortError, BortModel, get_bort_model
from bort.gluon import kernels
from bort.gluon.distributed import Workers
from bort.gluon.losses import MaskedLoss
from bort.gluon.model import initialize
from bort.gluon.parameters import get_arrays, load_parameters, named_parameters
from bort.hugging_face_names import from_hugging_face
from bort.parameters import read_parameters, write_parameters

TINY = BortConfig(
    hidden_size=64, intermediate_size=48, num_hidden_layers=4, num_attention_heads=8, max_position_embeddings=128, vocab_size=1000
)
TINY_ROBERTA = BortConfig(
    hidden_size=64, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4, max_position_embeddings=128, vocab_size=1000
)


def largest_difference(found, expected):
    return float(np.abs(found.asnumpy() - expected).max())


def golden_inputs(outputs):
    return [mx.nd.array(outputs[name]) for name in ("input_ids", "valid_length", "masked_positions")]


def random_inputs(config=TINY, batch_size=3, length=20, predictions=4, seed=0):
    random = np.random.default_rng(seed)
    return (
        mx.nd.array(random.integers(config.vocab_size, size=(batch_size, length))),
        mx.nd.array(random.integers(predictions + 2, length, size=batch_size)),
        mx.nd.array(random.integers(predictions, size=(batch_size, predictions))),
    )


@pytest.mark.parametrize("hybridized", [True, False])
@pytest.mark.parametrize(("name", "config"), [("bort_tiny", TINY), ("roberta_tiny", TINY_ROBERTA)])
def test_published_outputs(shared, name, config, hybridized):
    outputs = np.load(shared / "golden" / f"{name}_outputs.npz")
    net, _ = get_bort_model(config, params=shared / "golden" / f"{name}.params")
    if not hybridized:
        net.hybridize(False)
    sequence, decoded = net(*golden_inputs(outputs))
    assert largest_difference(sequence, outputs["sequence"]) < 1e-5
    assert largest_difference(decoded, outputs["decoded"]) < 1e-5


def test_published_gradients(shared):
    golden = np.load(shared / "golden" / "bort_tiny_mlm_grads.npz")
    outputs = np.load(shared / "golden" / "bort_tiny_outputs.npz")
    net, _ = get_bort_model(BortConfig(**{**TINY.__dict__, "hidden_dropout_prob": 0.0}), params=shared / "golden" / "bort_tiny.params")
    with mx.autograd.record():
        _, logits = net(*golden_inputs(outputs))
    use_kernels = kernels.are_available(mx.cpu())
    sums, gradient = MaskedLoss(use_kernels=use_kernels)(logits, mx.nd.array(golden["labels"]), mx.nd.array(golden["weights"]))
    logits.backward(gradient)
    count = golden["weights"].sum()
    assert abs(sums[1].asscalar() / count - golden["loss"][0]) < 1e-5
    for name, parameter in named_parameters(net).items():
        assert largest_difference(parameter.grad() / count, golden[name]) < 1e-5, name


def test_published_classifier(shared):
    outputs = np.load(shared / "golden" / "bort_tiny_classifier_outputs.npz")
    classifier = BortClassifier(BortModel(TINY, use_decoder=False), 3)
    load_parameters(classifier, shared / "golden" / "bort_tiny_classifier.params", mx.cpu())
    classifier.hybridize(static_alloc=True)
    logits = classifier(mx.nd.array(outputs["input_ids"]), mx.nd.array(outputs["valid_length"]))
    assert largest_difference(logits, outputs["logits"]) < 1e-5


def test_hugging_face_teacher(shared, tmp_path):
    outputs = np.load(shared / "golden" / "hf_roberta_tiny_outputs.npz")
    folder = shared / "golden" / "hf_roberta_tiny"
    write_parameters(tmp_path / "teacher.params", from_hugging_face(read_parameters(folder / "model.safetensors")))
    config = BortConfig.from_json(folder / "config.json")
    net, _ = get_bort_model(config, params=tmp_path / "teacher.params")
    sequence, decoded = net(*golden_inputs(outputs))
    # Behind a row's end Gluon has zeros, and Transformers whatever came out.
    valid_length = outputs["valid_length"][:, None]
    inside = np.arange(outputs["input_ids"].shape[1]) < valid_length
    assert np.abs(sequence.asnumpy() - outputs["sequence"])[inside].max() < 1e-5
    predicted = outputs["masked_positions"] < valid_length
    assert predicted.sum() > 10
    assert np.abs(decoded.asnumpy() - outputs["decoded"])[predicted].max() < 1e-5


@pytest.mark.parametrize("hybridized", [True, False])
def test_arguments_may_be_left_out_in_any_order_of_calls(hybridized):
    net, vocab = get_bort_model(TINY, seed=1)
    assert vocab is None
    if not hybridized:
        net.hybridize(False)
    input_ids, valid_length, positions = random_inputs()
    full = mx.nd.full((3,), 20)
    sequence, decoded = net(input_ids, valid_length, positions)
    assert sequence.shape == (3, 20, 64)
    assert decoded.shape == (3, 4, 1000)
    assert largest_difference(net(input_ids, valid_length), sequence.asnumpy()) == 0
    assert largest_difference(net(input_ids), net(input_ids, full).asnumpy()) < 1e-6
    without_length, decoded_without = net(input_ids, masked_positions=positions)
    assert largest_difference(without_length, net(input_ids).asnumpy()) == 0
    assert decoded_without.shape == decoded.shape
    again, _ = net(input_ids, valid_length, positions)
    assert largest_difference(again, sequence.asnumpy()) == 0


def test_padding_changes_nothing_before_it():
    net, _ = get_bort_model(TINY, seed=2)
    input_ids, valid_length, _ = random_inputs()
    padded = mx.nd.concat(input_ids, mx.nd.ones((3, 12)), dim=1)
    short, long = net(input_ids, valid_length).asnumpy(), net(padded, valid_length).asnumpy()
    assert np.abs(long[:, :20] - short).max() < 1e-6
    assert not long[:, 20:].any()


def test_the_output_projection_is_the_embedding():
    net, _ = get_bort_model(TINY, seed=3)
    assert net.decoder[3].weight is net.word_embed[0].weight
    arrays = get_arrays(net)
    np.testing.assert_array_equal(arrays["decoder.3.weight"], arrays["word_embed.0.weight"])


def test_initial_weights_have_the_published_distribution_and_are_fixed_by_the_seed():
    first, second, other = (get_arrays(get_bort_model(TINY, seed=seed)[0]) for seed in (7, 7, 8))
    weights = np.concatenate([array.ravel() for name, array in first.items() if name.endswith("weight")])
    assert abs(weights.std() - 0.02) < 2e-4
    assert abs(weights.mean()) < 2e-4
    assert all(not array.any() for name, array in first.items() if name.endswith(("bias", "beta")))
    assert all((array == 1).all() for name, array in first.items() if name.endswith("gamma"))
    assert all(np.array_equal(first[name], second[name]) for name in first)
    assert not np.array_equal(first["word_embed.0.weight"], other["word_embed.0.weight"])


def test_gluon_saves_the_published_names(shared, tmp_path):
    net, _ = get_bort_model(TINY)
    net.save_parameters(str(tmp_path / "saved.params"))
    published = read_parameters(shared / "golden" / "bort_tiny.params")
    saved = read_parameters(tmp_path / "saved.params")
    assert {name: array.shape for name, array in saved.items()} == {name: array.shape for name, array in published.items()}


def test_saved_parameters_give_the_same_model(tmp_path):
    net, _ = get_bort_model(TINY, seed=4)
    net.save_parameters(str(tmp_path / "bort.params"))
    write_parameters(tmp_path / "bort.safetensors", get_arrays(net))
    inputs = random_inputs()
    expected = net(*inputs)[1].asnumpy()
    for file in ("bort.params", "bort.safetensors"):
        again, _ = get_bort_model(TINY, params=tmp_path / file)
        assert largest_difference(again(*inputs)[1], expected) == 0


@pytest.mark.parametrize(("name", "millions"), [("bort_4_8_768_1024", 76.2), ("bort_2_16_512_1024", None)])
def test_named_architectures_run(name, millions):
    net, _ = get_bort_model(name)
    sequence, decoded = net(mx.nd.array([[0, 31414, 232, 2]]), masked_positions=mx.nd.array([[1]]))
    assert sequence.shape == (1, 4, 1024)
    assert decoded.shape == (1, 1, 50265)
    if millions:
        distinct = {id(parameter): parameter for parameter in named_parameters(net).values()}
        assert sum(np.prod(parameter.shape) for parameter in distinct.values()) / 1e6 == pytest.approx(millions, abs=0.05)


def test_a_file_of_the_full_size_loads(tmp_path):
    net, _ = get_bort_model("bort_4_8_768_1024", seed=1)
    net.save_parameters(str(tmp_path / "bort.params"))
    again = get_arrays(get_bort_model("bort_4_8_768_1024", params=tmp_path / "bort.params")[0])
    assert all(np.array_equal(array, again[name]) for name, array in get_arrays(net).items())


def test_a_file_of_another_architecture_is_refused_by_name(tmp_path):
    get_bort_model(TINY)[0].save_parameters(str(tmp_path / "bort.params"))
    wider = BortConfig(**{**TINY.__dict__, "hidden_size": 128})
    deeper = BortConfig(**{**TINY.__dict__, "num_hidden_layers": 5})
    shallower = BortConfig(**{**TINY.__dict__, "num_hidden_layers": 3})
    with pytest.raises(BortError, match=r"bort\.params: .* has shape .*64.*needs .*128"):
        get_bort_model(wider, params=tmp_path / "bort.params")
    with pytest.raises(BortError, match=r"bort\.params: no parameter .*transformer_cells\.4"):
        get_bort_model(deeper, params=tmp_path / "bort.params")
    with pytest.raises(BortError, match=r"bort\.params: unknown parameter .*transformer_cells\.3"):
        get_bort_model(shallower, params=tmp_path / "bort.params")


def test_an_encoder_may_ignore_the_head_of_a_file(tmp_path):
    net, _ = get_bort_model(TINY, seed=5)
    net.save_parameters(str(tmp_path / "bort.params"))
    encoder, _ = get_bort_model(TINY, params=tmp_path / "bort.params", use_decoder=False)
    input_ids, valid_length, positions = random_inputs()
    assert largest_difference(encoder(input_ids, valid_length), net(input_ids, valid_length).asnumpy()) == 0
    with pytest.raises(BortError, match="use_decoder"):
        encoder(input_ids, valid_length, positions)


def test_a_sequence_longer_than_the_positions_is_refused():
    net, _ = get_bort_model(TINY)
    with pytest.raises(BortError, match=r"129 tokens .* 128"):
        net(mx.nd.zeros((1, 129)))


@pytest.mark.parametrize("hybridized", [True, False])
def test_a_classifier_takes_what_its_encoder_takes(hybridized, recwarn):
    classifier = BortClassifier(BortModel(TINY), 3)
    initialize(classifier, mx.cpu())
    if hybridized:
        classifier.hybridize(static_alloc=True)
    input_ids, valid_length, _ = random_inputs()
    with_length = classifier(input_ids, valid_length).asnumpy()
    without = classifier(input_ids).asnumpy()
    np.testing.assert_array_equal(classifier(input_ids, valid_length).asnumpy(), with_length)
    np.testing.assert_allclose(classifier(input_ids, mx.nd.full((3,), 20)).asnumpy(), without, atol=1e-6)
    for dtype in ("int32", "int64"):
        np.testing.assert_array_equal(classifier(input_ids, valid_length.astype(dtype)).asnumpy(), with_length)
    with pytest.raises(BortError, match=r"129 tokens .* 128"):
        classifier(mx.nd.zeros((1, 129)))
    assert not [warning for warning in recwarn if "not used" in str(warning.message)]


def test_mxnet_imports_after_bort_without_help_from_the_environment():
    """The NumPy names that MXNet needs come from bort.gluon alone, not only from the environment's sitecustomize."""
    program = (
        "import numpy\n"
        "for name in ('bool', 'object', 'float', 'int', 'str', 'complex'): numpy.__dict__.pop(name, None)\n"
        "import sys; sys.modules.pop('sitecustomize', None)\n"
        "from bort import get_bort_model\n"
        "import mxnet; print(mxnet.nd.ones((2,)).sum().asscalar())\n"
    )
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert result.stdout == "2.0\n", result.stderr


def test_a_vocabulary_may_be_given_in_several_ways(tokenizer, tmp_path, monkeypatch):
    config = BortConfig(**{**TINY.__dict__, "vocab_size": len(tokenizer.vocab)})
    tokenizer.save(tmp_path / "vocab")
    for vocab in (tokenizer, tokenizer.vocab, tmp_path / "vocab", str(tmp_path / "vocab")):
        assert get_bort_model(config, vocab=vocab)[1] == tokenizer.vocab
    with pytest.raises(BortError, match=r"the vocabulary has 400 tokens, the model 1000"):
        get_bort_model(TINY, vocab=tokenizer)
    monkeypatch.chdir(tmp_path)
    for variable in ("MXNET_HOME", "HF_HOME"):
        monkeypatch.setenv(variable, str(tmp_path / "nowhere"))
    with pytest.raises(BortError, match=r"no vocabulary \"openwebtext_ccnews_stories_books_cased\" in model/"):
        get_bort_model(dataset_name="openwebtext_ccnews_stories_books_cased")


def test_a_gpu_that_is_not_there_is_an_error_of_one_line():
    if mx.context.num_gpus():
        pytest.skip("this machine has a GPU that MXNet can use")
    with pytest.raises(BortError, match=r"needs GPU 0, MXNet finds 0; leave out --gpu"):
        Workers().device(use_gpu=True)
