"""The engine of fine-tuning: splits of a batch, closed forms of its losses, where its weights come from, and its shortened last layer."""

from __future__ import annotations

import mxnet as mx
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

from bort import BortClassifier, BortConfig, BortError, BortModel
from bort.engine import ClassificationBatch
from bort.gluon import kernels
from bort.gluon.finetuning import load_predictor
from bort.gluon.losses import ClassificationLoss
from bort.gluon.model import initialize
from bort.gluon.parameters import named_parameters

from .conftest import config
from .labelled_rows import build_classifier, labelled_rows, part, without_weight

KINDS = pytest.mark.parametrize("is_regression", [False, True], ids=["classes", "scores"])


@pytest.fixture(params=["kernels", "MXNet"], autouse=True)
def operators(request, monkeypatch):
    """With the CPU kernels, and with MXNet's operators alone, as on a GPU."""
    if request.param == "MXNet":
        monkeypatch.setattr(kernels, "are_available", lambda ctx: False)
    return request.param


def halves(batch):
    return [part(batch, slice(0, 8)), part(batch, slice(8, 16))]


def half_without_weight(batch):
    """The same rows, and besides them micro-batches of which no row counts: first, in between and last."""
    first, second = halves(batch)
    return [without_weight(second), first, without_weight(batch), second, without_weight(first)]


def one_row_apart(batch):
    return [part(batch, slice(0, 15)), part(batch, slice(15, 16))]


@KINDS
@pytest.mark.parametrize("split", [halves, half_without_weight, one_row_apart])
def test_micro_batches_are_one_batch(split, is_regression):
    whole, apart = (build_classifier(is_regression=is_regression) for _ in range(2))
    for step in range(4):
        batch = labelled_rows(step, 16, is_regression=is_regression)
        if step == 2:
            batch.weights[8:] = 0
        whole.accumulate(batch)
        for micro in split(batch):
            apart.accumulate(micro)
        for engine in (whole, apart):
            engine.update(1e-3)
    one, two = whole.state(), apart.state()
    assert max(np.abs(one[name] - two[name]).max() for name in one) < 1e-5
    one, two = whole.drain(), apart.drain()
    for name in ("rows", "loss", "correct", "updates", "gradient_norm", "parameter_norm"):
        assert two[name] == pytest.approx(one[name], rel=1e-5), name


def test_an_update_without_a_row_that_counts_only_decays():
    engine = build_classifier()
    before = engine.parameters()
    engine.accumulate(without_weight(labelled_rows(0)))
    engine.update(1e-3)
    after = engine.parameters()
    for name, value in before.items():
        decay = 0.0 if name.endswith((".bias", ".gamma", ".beta")) else 1e-3 * 0.01
        np.testing.assert_allclose(after[name], value * (1 - decay), rtol=1e-6, err_msg=name)
    assert engine.drain()["gradient_norm"] == 0


@KINDS
def test_loss_and_gradient_are_means_over_the_rows_that_count(is_regression):
    """The first mean of BERTAdam is a tenth of the gradient, whose part for the output layer has a closed form."""
    engine = build_classifier(is_regression=is_regression)
    engine.load_state({name: value * 5 for name, value in engine.parameters().items()})
    batch = labelled_rows(1, 16, is_regression=is_regression)
    logits, labels, counts = engine.predict(batch), batch.labels, batch.weights.astype(bool)
    if is_regression:
        losses, slopes, correct = (logits[:, 0] - labels) ** 2, 2 * (logits - labels[:, None]), np.zeros(16)
    else:
        classes = labels.astype(int)
        losses, correct = -log_softmax(logits, axis=1)[np.arange(16), classes], logits.argmax(1) == classes
        slopes = softmax(logits, axis=1) - np.eye(3)[classes]
    engine.accumulate(batch)
    engine.update(0.0)
    sums = engine.drain()
    assert (sums["rows"], sums["correct"]) == (counts.sum(), correct[counts].sum())
    assert sums["loss"] / sums["rows"] == pytest.approx(losses[counts].mean(), rel=1e-5)
    clipping = min(1.0, 1.0 / sums["gradient_norm"])
    found = engine.state()["mean/classifier.3.bias"] / 0.1
    np.testing.assert_allclose(found, clipping * slopes[counts].mean(axis=0), rtol=1e-4, atol=1e-6)


def test_one_worker_alone_sums_nothing_up():
    engine = build_classifier()
    for values in (np.array([[1e-45, -0.0], [np.nan, np.inf]], np.float32), np.float32(3.5), np.zeros((0, 2), np.float32)):
        total = engine.sum_over_workers(values)
        assert (total.shape, total.dtype, total.tobytes()) == (np.shape(values), np.float32, values.tobytes())
        assert total is not values


@pytest.mark.parametrize("kind", ["gaussian", "uniform", "orthogonal", "xavier"])
def test_the_classifier_is_drawn_as_asked(kind):
    scale = 0.3
    drawn = build_classifier(seed=4, head_init=kind, head_scale=scale).parameters()
    dense, output = drawn["classifier.1.weight"], drawn["classifier.3.weight"]
    assert not drawn["classifier.1.bias"].any()
    assert not drawn["classifier.3.bias"].any()
    for weight in (dense, output):
        rows, columns = weight.shape
        if kind == "orthogonal":
            np.testing.assert_allclose(weight @ weight.T, scale**2 * np.eye(rows), atol=1e-5)
        elif kind == "gaussian":
            assert np.abs(weight).max() > 1.5 * scale
        else:
            bound = scale if kind == "uniform" else np.sqrt(6 / (rows + columns))
            assert 0.9 * bound < np.abs(weight).max() <= bound
    deviation = {"gaussian": scale, "uniform": scale / np.sqrt(3), "orthogonal": scale / np.sqrt(32), "xavier": np.sqrt(2 / 64)}[kind]
    assert dense.std() == pytest.approx(deviation, rel=0.05)
    # From the seed alone, whatever was drawn before, and whether the encoder is drawn too.
    encoder = {name.removeprefix("bort."): value for name, value in drawn.items() if name.startswith("bort.")}
    mx.nd.random.uniform(shape=(77,)).wait_to_read()
    for again in (
        build_classifier(4, head_init=kind, head_scale=scale),
        build_classifier(4, False, 0.1, encoder, head_init=kind, head_scale=scale),
    ):
        assert all(np.array_equal(value, drawn[name]) for name, value in again.parameters().items())
    other = build_classifier(5, False, 0.0, encoder, head_init=kind, head_scale=scale).parameters()
    assert {name for name in drawn if not np.array_equal(other[name], drawn[name])} == {"classifier.1.weight", "classifier.3.weight"}


def test_an_unknown_way_of_drawing_is_refused():
    with pytest.raises(BortError, match="one of gaussian, uniform, orthogonal, xavier, got kaiming"):
        build_classifier(head_init="kaiming")


def encoder_and_head(seed):
    """What a file of a classifier's gives, in two parts; the encoder with a masked-language-model head besides."""
    parameters = build_classifier(seed).parameters()
    encoder = {name.removeprefix("bort."): value for name, value in parameters.items() if name.startswith("bort.")}
    return encoder | {"decoder.0.weight": np.zeros((9, 9), np.float32)}, {
        n: v for n, v in parameters.items() if n.startswith("classifier.")
    }


def test_parameters_are_taken_and_the_old_head_is_ignored():
    encoder, head = encoder_and_head(7)
    found = build_classifier(0, False, 0.1, encoder, head_parameters=head).parameters()
    assert found.keys() == {f"bort.{name}" for name in encoder if "decoder" not in name} | head.keys()
    assert all(np.array_equal(found[f"bort.{name}"], value) for name, value in encoder.items() if "decoder" not in name)
    assert all(np.array_equal(found[name], value) for name, value in head.items())


def test_parameters_that_do_not_fit_are_named():
    encoder, head = encoder_and_head(7)
    without = {name: value for name, value in encoder.items() if name != "encoder.layer_norm.beta"}
    with pytest.raises(BortError, match=r"encoder's parameters: no parameter 'encoder\.layer_norm\.beta'"):
        build_classifier(encoder_parameters=without)
    with pytest.raises(BortError, match=r"encoder\.position_weight has shape \(16, 32\), the model needs \(32, 32\)"):
        build_classifier(encoder_parameters=encoder | {"encoder.position_weight": np.zeros((16, 32), np.float32)})
    with pytest.raises(BortError, match=r"own parameters: classifier\.3\.weight has shape \(3, 32\), the model needs \(1, 32\)"):
        build_classifier(is_regression=True, encoder_parameters=encoder, head_parameters=head)
    with pytest.raises(BortError, match=r"own parameters: no parameter 'classifier\.1\.bias' and 1 more"):
        build_classifier(head_parameters={name: value for name, value in head.items() if "bias" not in name})
    with pytest.raises(BortError, match=r"own parameters: unknown parameter 'classifier\.5\.weight'"):
        build_classifier(head_parameters=head | {"classifier.5.weight": np.zeros((3, 3), np.float32)})


def test_published_outputs(shared):
    tiny = BortConfig(
        hidden_size=64, intermediate_size=48, num_hidden_layers=4, num_attention_heads=8, max_position_embeddings=128, vocab_size=1000
    )
    golden = np.load(shared / "golden/bort_tiny_classifier_outputs.npz")
    predictor = load_predictor(tiny, 3, shared / "golden/bort_tiny_classifier.params")
    nothing = np.zeros(len(golden["valid_length"]), np.float32)
    logits = predictor.predict(ClassificationBatch(golden["input_ids"], golden["valid_length"], nothing, nothing))
    assert np.abs(logits - golden["logits"]).max() < 1e-5


def classifiers(operators, layers, dropout=0.0, value_bias=0.2):
    """A classifier on a whole encoder and one on an encoder of the first token, with the same weights, large enough to matter."""
    pair = []
    for only_first in (False, True):
        sizes = config(dropout, num_hidden_layers=layers)
        encoder = BortModel(sizes, use_decoder=False, use_kernels=operators == "kernels", only_first=only_first, prefix="")
        classifier = BortClassifier(encoder, 3, 0.0)
        initialize(classifier, mx.cpu(), seed=3)
        random = np.random.default_rng(3)
        for name, parameter in named_parameters(classifier).items():
            scale = value_bias if name.endswith("value.bias") else 0.2
            parameter.set_data(mx.nd.array(random.normal(size=parameter.shape, scale=scale)) + name.endswith("gamma"))
        pair.append(classifier)
    return pair


@pytest.mark.parametrize("hybridized", [True, False])
@pytest.mark.parametrize("layers", [1, 3])
def test_the_first_token_alone_is_the_first_of_all(operators, layers, hybridized):
    batch = labelled_rows(2, 9)
    batch.valid_length[:2] = 1, 24
    arrays = [mx.nd.array(array) for array in (batch.input_ids, batch.valid_length, batch.labels, batch.weights)]
    logits, gradients = [], []
    for classifier in classifiers(operators, layers):
        loss = ClassificationLoss(classifier, is_regression=False)
        loss.hybridize(hybridized)
        with mx.autograd.record():
            value, _ = loss(*arrays)
        value.backward()
        logits.append(classifier(*arrays[:2]).asnumpy())
        gradients.append({name: parameter.grad().asnumpy() for name, parameter in named_parameters(classifier).items()})
    assert np.abs(logits[0]).mean() > 0.3
    assert np.abs(logits[0] - logits[1]).max() < 1e-6 * np.abs(logits[0]).max()
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        # Softmax does not see the keys' bias: its gradient is nothing but rounding.
        largest = max(1.0, np.abs(expected).max())
        assert np.abs(expected - gradients[1][name]).max() < 1e-5 * largest, name
        assert name.endswith("key.bias") or np.abs(expected).max() > 1e-3, name


def test_the_first_token_alone_is_dropped_like_the_first_of_all(operators):
    """Logits of many draws: their means agree within four standard errors, and their deviations within a tenth."""
    batch = labelled_rows(5, 2)
    arrays = [mx.nd.array(array) for array in (batch.input_ids, batch.valid_length)]
    means, deviations, draws = [], [], 3000
    # A large bias of the values shows that it is multiplied by what dropout leaves of a row's weights.
    for classifier in classifiers(operators, layers=1, dropout=0.3, value_bias=3.0):
        classifier.hybridize(static_alloc=True)
        mx.random.seed(1)
        with mx.autograd.train_mode():
            drawn = [classifier(mx.nd.repeat(arrays[0], 100, axis=0), mx.nd.repeat(arrays[1], 100, axis=0)) for _ in range(draws // 100)]
        drawn = mx.nd.stack(*drawn).asnumpy().reshape((-1, 2, 100, 3)).transpose((1, 3, 0, 2)).reshape((2, 3, -1))
        means.append(drawn.mean(axis=-1))
        deviations.append(drawn.std(axis=-1))
    error = np.hypot(*deviations) / np.sqrt(draws)
    assert (np.abs(means[0] - means[1]) < 4 * error).all()
    np.testing.assert_allclose(deviations[1], deviations[0], rtol=0.1)
    assert deviations[0].min() > 0.1


def test_a_head_needs_all_tokens():
    with pytest.raises(BortError, match="use_decoder=False"):
        BortModel(config(), only_first=True)
