"""Exported models: the predictions are Gluon's, whatever the task, the runtime and the order of the rows; and they stream."""

from __future__ import annotations

import itertools
import json
import re
import subprocess
import sys
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import bort
from bort import BortConfig, BortError, get_bort_model
from bort.model_directory import TrainedTask, read_model_directory, write_model_directory
from bort.parameters import read_parameters
from bort.settings import OptimizerSettings
from bort.tasks import Example, get_task
from bort.training.prediction import encode_rows, predict_logits, score_segments

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from bort.export.exported_folder import IR_FILE, MODEL_FILE, write_exported_folder  # noqa: E402 (after what may skip the module)
from bort.export.exported_model import ExportedModel, ExportedPredictor, batches_by_length  # noqa: E402
from bort.export.onnx_graph import build_graph, kind_of  # noqa: E402

# One text, two, a regression, three classes, alternatives, truth values, a span, and options to choose from.
TASKS = ("SST-2", "RTE", "STS-B", "MNLI", "COPA", "WSC", "ReCoRD", "RACE")
SENTENCES = ["the soup was wonderful", "a terrible film", "x" * 3000, "", "ça va 😀", "<s> </s> <mask> <pad>", "\t\n  ", "wonderful"]


def sizes(tokenizer):
    """Sizes of a tiny encoder."""
    return BortConfig(
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=64,
        vocab_size=len(tokenizer.vocab),
    )


def spread_out(parameters):
    """Weights far from their start, so that logits differ from row to row."""
    random = np.random.default_rng(7)
    return {name: (array + random.normal(0, 0.25, array.shape)).astype(np.float32) for name, array in parameters.items()}


def write_classifier(name, tokenizer, repository, folder):
    """Model folder of a classifier, as bort finetune leaves it in best/; not all of its dev set has one label."""
    from bort.gluon.finetuning import build_engine

    task, config = get_task(name, repository / "test_data"), sizes(tokenizer)
    engine = build_engine(config, task.num_classes, task.is_regression, 0.1, OptimizerSettings(), 0, None)
    parameters, trained = spread_out(engine.parameters()), TrainedTask(task.name, task.labels, 48)
    write_model_directory(folder, config, parameters, tokenizer, trained)
    examples = [example for segment in task.segment_names("dev") for example in task.examples(segment)]
    logits = predict_logits(gluon(folder), encode_rows(examples, tokenizer, 48), 8)
    # Some scores of a regression lie beyond its range, which ends at 5.
    parameters["classifier.3.bias"] += (4.9 if task.is_regression else 0.0) - logits.mean(axis=0)
    write_model_directory(folder, config, parameters, tokenizer, trained)
    return folder


def write_export(source, folder, place=None, **changes):
    """Exported folder of a model folder; ``place`` writes another form of the graph into it."""
    model = read_model_directory(source)
    parameters = read_parameters(model.parameters)
    graph = build_graph(model.config, parameters)
    labels = get_task(model.task.name).leaderboard_labels if model.task else ()

    def place_graph(into):
        onnx.save(graph, into / MODEL_FILE)

    arguments = {"config": model.config, "kind": kind_of(parameters), "task": model.task} | changes
    write_exported_folder(
        folder, (lambda into: place(graph, into)) if place else place_graph, tokenizer=model.tokenizer(), labels=labels, **arguments
    )
    return folder


def gluon(source):
    """What Gluon makes of the model folder of a classifier."""
    from bort.gluon.finetuning import load_predictor

    model = read_model_directory(source)
    return load_predictor(model.config, get_task(model.task.name).num_classes, model.parameters)


@pytest.fixture(scope="module")
def folders(tokenizer, repository, tmp_path_factory):
    """Model folder and exported folder of each task, made when they are asked for."""
    made = {}

    def of(name):
        if name not in made:
            folder = tmp_path_factory.mktemp(name)
            source = write_classifier(name, tokenizer, repository, folder / "best")
            made[name] = source, write_export(source, folder / "exported")
        return made[name]

    return of


@pytest.fixture(scope="module")
def sentences(folders):
    """An exported classifier of single sentences."""
    return ExportedModel.from_directory(folders("SST-2")[1], threads=1)


@pytest.fixture(scope="module")
def pretrained(tokenizer, tmp_path_factory):
    """Model folder of an encoder with its head, and what was exported of it."""
    from bort.gluon.parameters import get_arrays

    folder, config = tmp_path_factory.mktemp("pretrained"), sizes(tokenizer)
    spread = spread_out(get_arrays(get_bort_model(config)[0]))
    spread["decoder.3.weight"] = spread["word_embed.0.weight"]
    # The mask itself would be the best to fill a mask with.
    spread["decoder.3.bias"][tokenizer.vocab.mask_id] += 20
    write_model_directory(folder / "model", config, spread, tokenizer)
    return folder / "model", write_export(folder / "model", folder / "exported")


@pytest.mark.parametrize("name", TASKS)
def test_a_dev_set_is_labelled_as_by_gluon(folders, repository, name):
    source, exported = folders(name)
    task = get_task(name, repository / "test_data")
    segments = task.segment_names("dev")
    examples = [example for segment in segments for example in task.examples(segment)]
    model, theirs = ExportedModel.from_directory(exported, threads=1), gluon(source)
    rows = encode_rows(examples, model.tokenizer, 48)
    expected = predict_logits(theirs, rows, 8)
    np.testing.assert_allclose(predict_logits(ExportedPredictor(model), rows, 8), expected, atol=1e-4, rtol=0)
    arguments = model.tokenizer, model.folder.task, task, segments, 8
    scores = score_segments(theirs, *arguments)
    assert score_segments(ExportedPredictor(model), *arguments) == {
        segment: pytest.approx(metrics, abs=1e-5) for segment, metrics in scores.items()
    }
    found = model.predict([example.texts if task.is_pair else example.texts[0] for example in examples])
    if task.is_regression:
        assert 0 < np.count_nonzero(expected > 5) < len(expected)
        assert [prediction.score for prediction in found] == pytest.approx(np.clip(expected[:, 0], 0, 5).tolist(), abs=1e-4)
        assert {prediction.label for prediction in found} == {None}
        return
    assert [prediction.label for prediction in found] == [task.leaderboard_labels[number] for number in expected.argmax(axis=1)]
    # Else the labels would be right whatever the inputs.
    assert len({prediction.label for prediction in found}) > 1
    for prediction, logits in zip(found, expected.astype(np.float64), strict=True):
        powers = np.exp(logits - logits.max())
        assert list(prediction.probabilities.values()) == pytest.approx((powers / powers.sum()).tolist(), abs=1e-4)
        assert tuple(prediction.probabilities) == task.leaderboard_labels
        assert prediction.score == prediction.probabilities[prediction.label] == max(prediction.probabilities.values())


@pytest.mark.parametrize("name", ["COPA", "WSC"])
def test_the_fields_of_a_tasks_own_rows_are_enough(folders, repository, name):
    model = ExportedModel.from_directory(folders(name)[1], threads=1)
    task = get_task(name, repository / "test_data")
    fields = [json.loads(line) for line in task.path("dev").read_text(encoding="utf-8").splitlines()]
    assert model.predict(fields) == model.predict([example.texts for example in task.examples("dev")])


@pytest.mark.parametrize("form", [MODEL_FILE, IR_FILE])
def test_openvino_predicts_the_same(folders, tmp_path, form):
    openvino = pytest.importorskip("openvino", reason="the extra openvino is not installed")

    def place(graph, into):
        onnx.save(graph, tmp_path / MODEL_FILE)
        openvino.save_model(openvino.Core().read_model(tmp_path / MODEL_FILE), into / IR_FILE, compress_to_fp16=False)

    source, exported = folders("SST-2")
    if form == IR_FILE:
        exported = write_export(source, tmp_path / "exported", place)
    model = ExportedModel.from_directory(exported, "openvino", "float32", threads=1)
    assert (model.session.runtime, model.session.precision) == ("openvino", "float32")
    expected = ExportedModel.from_directory(folders("SST-2")[1], threads=1).predict(SENTENCES)
    found = model.predict(SENTENCES)
    assert [prediction.label for prediction in found] == [prediction.label for prediction in expected]
    assert [prediction.score for prediction in found] == pytest.approx([prediction.score for prediction in expected], abs=1e-5)


def test_long_empty_and_special_texts_are_what_they_are_to_gluon(folders, sentences):
    rows = encode_rows([Example(number, (text,), None, 1) for number, text in enumerate(SENTENCES)], sentences.tokenizer, 48)
    logits = predict_logits(gluon(folders("SST-2")[0]), rows, 8)
    found = np.log([list(prediction.probabilities.values()) for prediction in sentences.predict(SENTENCES)])
    np.testing.assert_allclose(found[:, 1] - found[:, 0], logits[:, 1] - logits[:, 0], atol=1e-4)


def test_a_prediction_does_not_depend_on_its_neighbours(sentences):
    random = np.random.default_rng(5)
    texts = [" ".join(random.choice(SENTENCES[:2] + SENTENCES[4:], size=random.integers(1, 12))) for _ in range(200)]
    order = random.permutation(len(texts))
    found, shuffled = sentences.predict(texts), sentences.predict([texts[number] for number in order])
    alone = [sentences.predict([text])[0] for text in texts]
    for others in ([shuffled[place] for place in np.argsort(order)], alone):
        assert [prediction.label for prediction in others] == [prediction.label for prediction in found]
        assert [prediction.score for prediction in others] == pytest.approx([prediction.score for prediction in found], abs=1e-5)
    assert sentences.predict([]) == []


@given(st.lists(st.integers(3, 512), max_size=80))
def test_short_rows_are_not_padded_to_long_ones(lengths):
    batches = list(batches_by_length(lengths))
    assert sorted(row for batch in batches for row in batch) == list(range(len(lengths)))
    for batch in batches:
        widths = [-(-lengths[row] // 8) * 8 for row in batch]
        assert widths[0] == max(widths)
        assert len(batch) == 1 or len(batch) * widths[0] <= 1024
        assert len(batch) * widths[0] - sum(widths) <= 16


def test_equal_rows_fill_a_batch():
    assert [len(batch) for batch in batches_by_length([30] * 40)] == [32, 8]


def test_several_threads_get_what_one_gets(sentences):
    # Long texts, most of which is cut off: the threads meet in the tokenizer, too.
    texts = [f"{text} {number} {'word ' * (number % 9) * 1500}" for number, text in enumerate(SENTENCES * 15)]
    parts = [texts[number::4] for number in range(4)]
    expected = [sentences.predict(part) for part in parts]
    found = [[] for _ in parts]

    def work(number):
        for _ in range(10):
            found[number].append(sentences.predict(parts[number]))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(parts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[answers] * 10 for answers in expected]


def test_a_stream_is_answered_in_order_and_read_no_further_than_needed(sentences):
    taken = 0

    def endless():
        nonlocal taken
        for taken in itertools.count(1):
            yield SENTENCES[taken % len(SENTENCES)]

    answers = sentences.predict_stream(endless(), window=10)
    assert taken == 0
    first = list(itertools.islice(answers, 25))
    assert taken == 30
    expected = sentences.predict([SENTENCES[number % len(SENTENCES)] for number in range(1, 26)])
    assert [answer.label for answer in first] == [answer.label for answer in expected]
    assert [answer.score for answer in first] == pytest.approx([answer.score for answer in expected], abs=1e-5)


PIPE = """
import sys
from bort import ExportedModel
model = ExportedModel.from_directory(sys.argv[1])
frameworks = {"mxnet", "gluonnlp", "horovod", "torch"} & {name.partition(".")[0] for name in sys.modules}
print("frameworks", sorted(frameworks), flush=True)
for prediction in model.predict_stream((line.rstrip("\\n") for line in sys.stdin), window=1):
    print(prediction.label, prediction.score, flush=True)
"""


def test_a_pipe_is_answered_row_by_row_without_a_framework(folders, sentences):
    command = [sys.executable, "-c", PIPE, str(folders("SST-2")[1])]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "frameworks []\n"
        for text in SENTENCES[:2]:
            process.stdin.write(f"{text}\n")
            process.stdin.flush()
            # Were it not answered before the next row is written, this would wait for ever.
            label, score = process.stdout.readline().split()
            (expected,) = sentences.predict([text])
            assert (label, float(score)) == (expected.label, pytest.approx(expected.score, abs=1e-5))
        process.stdin.close()
        assert process.wait() == 0, process.stderr.read()


def test_hidden_states_are_those_of_gluon(pretrained, tokenizer, tmp_path):
    import mxnet as mx

    source, exported = pretrained
    parameters = {name: array for name, array in read_parameters(source / "bort.params").items() if not name.startswith("decoder.")}
    write_model_directory(tmp_path / "bare", sizes(tokenizer), parameters, tokenizer)
    net, _ = get_bort_model(source)
    texts = [*SENTENCES, ("It rains.", "It is wet.")]
    rows = encode_rows([Example(0, (text,) if isinstance(text, str) else text, None, 1) for text in texts], tokenizer, 64).input_ids
    for folder in (exported, write_export(tmp_path / "bare", tmp_path / "encoder")):
        model = ExportedModel.from_directory(folder, threads=1)
        states = model.encode_tokens(texts)
        for row, found in zip(rows, states, strict=True):
            expected = net(mx.nd.array(row[None]), mx.nd.array([len(row)]))[0].asnumpy()
            np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_array_equal(model.encode(texts), [row[0] for row in states])
        assert model.encode([]).shape == (0, 32)


def test_a_mask_is_filled_as_by_gluon(pretrained, tokenizer):
    import mxnet as mx
    import tokenizers

    source, exported = pretrained
    text, vocab = "The <mask> was brown. 😀", tokenizer.vocab
    ids = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json")).encode(text).ids
    position = ids.index(vocab.mask_id)
    _, logits = get_bort_model(source)[0](mx.nd.array([ids]), mx.nd.array([len(ids)]), mx.nd.array([[position]]))
    powers = np.exp(logits.asnumpy()[0, 0].astype(np.float64) - logits.asnumpy().max())
    assert powers.argmax() == vocab.mask_id
    best = [number for number in np.argsort(-powers) if number not in vocab.special_ids][:7]
    found = ExportedModel.from_directory(exported, threads=1).fill_mask(text, top_k=7)
    assert [filling.token for filling in found] == [tokenizer.decode([number]) for number in best]
    assert [filling.score for filling in found] == pytest.approx((powers[best] / powers.sum()).tolist(), rel=1e-3, abs=1e-12)
    assert all(re.fullmatch(rf"The{re.escape(filling.token)} was brown. 😀", filling.text) for filling in found)


@pytest.mark.parametrize(
    ("name", "call", "message"),
    [
        ("SST-2", lambda model: model.predict("one text"), "one row where a list of rows is needed; put it into brackets"),
        ("SST-2", lambda model: model.predict({"sentence": "one"}), "one row where a list of rows is needed"),
        ("SST-2", lambda model: model.predict(["a", ("b", "c")]), "row 1: 2 texts where 1 should be"),
        ("SST-2", lambda model: model.predict(["a", None]), 'row 1: no text in the field "text"'),
        ("SST-2", lambda model: model.predict([{"title": "a"}]), "row 0: no texts; give SST-2 rows with text"),
        ("SST-2", lambda model: list(model.predict_stream(["a"] * 5 + [7], window=2)), 'row 5: no text in the field "text"'),
        ("SST-2", lambda model: list(model.predict_stream([], window=0)), "window must be at least 1, got 0"),
        ("SST-2", lambda model: model.encode(["a"]), 'of the kind "classifier"; encode needs a pre-trained model'),
        ("SST-2", lambda model: model.fill_mask("a <mask>"), 'of the kind "classifier"; fill_mask needs a pre-trained model with its head'),
        ("RTE", lambda model: model.predict(["a"]), "row 0: 1 texts where 2 should be"),
        ("RTE", lambda model: model.predict([("a", "\ud800")]), 'row 0: half of a surrogate pair in the field "text2", character 0'),
        (
            "COPA",
            lambda model: model.predict([{"premise": "a", "choice1": "b", "choice2": "c", "question": "why"}]),
            'row 0: question "why"',
        ),
        (None, lambda model: model.predict(["a"]), 'of the kind "mlm"; predict needs a classifier'),
        (None, lambda model: model.encode([("a", "b", "c")]), "row 0: 3 texts where 1 or 2 should be"),
        (None, lambda model: model.encode([{"text": "a"}]), "row 0: fields, which only a classifier's task has names for"),
        (None, lambda model: model.fill_mask("a"), "0 times <mask> in the text"),
        (None, lambda model: model.fill_mask("<mask> <mask>"), "2 times <mask> in the text"),
        (None, lambda model: model.fill_mask("a <mask>" + " b" * 300), "special ones included, the model reads 64; cut it"),
    ],
)
def test_what_cannot_be_answered_is_one_line(folders, pretrained, name, call, message):
    model = ExportedModel.from_directory(folders(name)[1] if name else pretrained[1], threads=1)
    with pytest.raises(BortError, match=re.escape(message)) as caught:
        call(model)
    assert "\n" not in str(caught.value)


def test_a_file_that_does_not_belong_to_its_folder_is_refused(folders, pretrained, tokenizer, tmp_path):
    source, _ = folders("MNLI")
    others = {
        "classes": (folders("RTE")[0], "has the outputs {'logits': 2}, the folder says {'logits': 3}"),
        "kind": (pretrained[0], "fails on two tokens"),
    }
    for name, (other, message) in others.items():
        graph = build_graph(sizes(tokenizer), read_parameters(other / "bort.params"))
        exported = write_export(source, tmp_path / name, lambda _, into, graph=graph: onnx.save(graph, into / MODEL_FILE))
        with pytest.raises(BortError, match=re.escape(message)) as caught:
            ExportedModel.from_directory(exported)
        assert "export the model again" in str(caught.value)
        assert "\n" not in str(caught.value)


def test_labels_that_the_task_has_no_more_are_refused(folders, tmp_path):
    source, _ = folders("RTE")
    exported = write_export(source, tmp_path / "exported", task=TrainedTask("RTE", ("entailment", "not_entailment"), 48))
    with pytest.raises(BortError, match="are not those of RTE"):
        ExportedModel.from_directory(exported)


def test_outputs_that_are_no_numbers_are_refused(folders, tokenizer, tmp_path):
    parameters = read_parameters(folders("RTE")[0] / "bort.params")
    parameters["classifier.3.bias"] = np.full(2, np.nan, dtype=np.float32)
    write_model_directory(tmp_path / "best", sizes(tokenizer), parameters, tokenizer, read_model_directory(folders("RTE")[0]).task)
    model = ExportedModel.from_directory(write_export(tmp_path / "best", tmp_path / "exported"), threads=1)
    with pytest.raises(BortError, match="outputs are not finite"):
        model.predict([("a", "b")])


def test_an_int8_model_that_this_cpu_would_get_wrong_is_refused(folders, tmp_path, monkeypatch):
    import bort.export.exported_folder

    exported = write_export(folders("RTE")[0], tmp_path / "exported", precision="int8")
    monkeypatch.setattr(bort.export.exported_folder, "cpu_flags", lambda: frozenset({"avx2"}))
    with pytest.raises(BortError, match="need a CPU with VNNI"):
        ExportedModel.from_directory(exported)


def test_the_public_name_is_the_class():
    assert bort.ExportedModel is ExportedModel
