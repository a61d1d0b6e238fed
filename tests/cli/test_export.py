"""bort export --format onnx: what is written answers as the model does, and INT8 is measured: what loses too much is not written."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from bort.cli import main
from bort.export.int8_static import can_quantize
from bort.model_directory import TrainedTask, read_model_directory, write_model_directory
from bort.parameters import read_parameters
from bort.tasks import get_task
from bort.training.prediction import encode_rows, predict_logits

onnx = pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from ..export.test_exported_model import gluon, sizes  # noqa: E402 (after what may skip the module)
from ..export.test_int8_dynamic import random_parameters  # noqa: E402

needs_nncf = pytest.mark.skipif(not can_quantize(), reason="OpenVINO and NNCF are not installed")
MAX_LEN, DEV_ROWS, TRAINING_ROWS = 48, 60, 32
# What one channel of the values is multiplied by in the model with outliers.
OUTLIER = 300.0


@pytest.fixture(scope="module")
def model(tokenizer, repository, tmp_path_factory):
    """Model folder of a classifier of SST-2, and a data root in whose dev set every label is what the model says, with some margin."""
    folder = tmp_path_factory.mktemp("export")
    task, config = get_task("SST-2", repository / "test_data"), sizes(tokenizer)
    parameters = random_parameters("classifier", config)
    parameters |= {name: parameters[name][:2] for name in ("classifier.3.weight", "classifier.3.bias")}
    trained = TrainedTask(task.name, task.labels, MAX_LEN)
    write_model_directory(folder / "best", config, parameters, tokenizer, trained)
    examples = [*task.examples("train"), *task.examples("dev")]
    margins = np.diff(predict_logits(gluon(folder / "best"), encode_rows(examples, tokenizer, MAX_LEN), 16))[:, 0]
    middle = float(np.median(margins))
    parameters["classifier.3.bias"] -= np.array([-middle / 2, middle / 2], dtype=np.float32)
    write_model_directory(folder / "best", config, parameters, tokenizer, trained)
    surest = np.argsort(-np.abs(margins - middle))[:DEV_ROWS]
    rows = folder / "data/glue/SST-2"
    rows.mkdir(parents=True)
    for name, chosen in (("dev", surest), ("train", np.setdiff1d(np.arange(len(examples)), surest)[:TRAINING_ROWS])):
        lines = (f"{examples[row].texts[0]}\t{int(margins[row] > middle)}\n" for row in chosen)
        (rows / f"{name}.tsv").write_text("sentence\tlabel\n" + "".join(lines), encoding="utf-8")
    return folder / "best", folder / "data"


@pytest.fixture(scope="module")
def outlying(model, tmp_path_factory):
    """The same function, computed with a channel of outliers in each layer: what a value is multiplied by, its weights are divided by."""
    source = read_model_directory(model[0])
    parameters = read_parameters(source.parameters)
    for layer in range(source.config.num_hidden_layers):
        name = f"bort.encoder.transformer_cells.{layer}"
        for part in ("weight", "bias"):
            parameters[f"{name}.attention_cell.proj_value.{part}"][3] *= OUTLIER
        parameters[f"{name}.proj.weight"][:, 3] /= OUTLIER
    folder = tmp_path_factory.mktemp("outlying") / "best"
    write_model_directory(folder, source.config, parameters, source.tokenizer(), source.task)
    return folder


def export(model, output, *words):
    return main(["export", "--format", "onnx", "--model", str(model), "--output", str(output), *map(str, words)])


def dev_score(capsys, output, data):
    """What bort predict says of an exported folder."""
    capsys.readouterr()
    assert main(["predict", "--exported", str(output), "--task", "SST-2", "--segment", "dev", "--data_root", str(data)]) == 0
    return float(capsys.readouterr().out.split()[-1])


def test_a_classifier_is_written_in_float32(model, tmp_path, capsys):
    folder, data = model
    assert export(folder, tmp_path / "out") == 0
    assert capsys.readouterr().out == f"{tmp_path}/out: classifier in float32\n"
    graph = onnx.load(tmp_path / "out/model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert {prop.key: json.loads(prop.value) for prop in graph.metadata_props} == {"id2label": {"0": "0", "1": "1"}}
    assert json.loads((tmp_path / "out/export.json").read_text()) == {
        "kind": "classifier",
        "precision": "float32",
        "reduced_range": False,
        "report": {},
    }
    assert dev_score(capsys, tmp_path / "out", data) == 1.0


@pytest.mark.parametrize("kind", ["encoder", "mlm"])
def test_a_pretrained_model_is_written_in_float32(kind, tokenizer, tmp_path, capsys):
    from bort import ExportedModel

    write_model_directory(tmp_path / "model", sizes(tokenizer), random_parameters(kind, sizes(tokenizer)), tokenizer)
    assert export(tmp_path / "model", tmp_path / "out") == 0
    assert capsys.readouterr().out == f"{tmp_path}/out: {kind} in float32\n"
    assert ExportedModel.from_directory(tmp_path / "out").encode(["It rains.", "no"]).shape == (2, 32)


@needs_nncf
def test_the_fastest_int8_model_that_loses_little_is_written(model, tmp_path, capsys):
    folder, data = model
    assert export(folder, tmp_path / "out", "--int8", "--check", "SST-2", "--data_root", data) == 0
    said = capsys.readouterr()
    assert said.err == ""
    report = json.loads((tmp_path / "out/export.json").read_text())["report"]
    models = {each["name"]: each for each in report["models"]}
    assert (len(models), report["check"], report["max_loss"]) == (6, "SST-2", 0.5)
    assert report["origins"] == {"calibration": "32 training rows of SST-2", "timed": "40 dev rows of SST-2"}
    assert all(name in said.out and f"{each['points']:.2f}" in said.out for name, each in models.items())
    assert f"written: {report['written']}; the fastest that loses no more than 0.5 points" in said.out
    float32, written = models["float32"], models[report["written"]]
    assert (float32["points"], float32["loss"], float32["agreement"]) == (100.0, 0.0, 1.0)
    for each in models.values():
        assert each["loss"] == pytest.approx(100.0 - each["points"])
        # The labels are what float32 decides, so the share of right answers is the share of equal decisions.
        assert each["agreement"] == pytest.approx(each["points"] / 100)
        assert each["milliseconds"] > 0
    fits = [each for each in models.values() if each["loss"] <= 0.5 and each is not float32]
    assert written["milliseconds"] <= 1.05 * min(each["milliseconds"] for each in fits)
    assert dev_score(capsys, tmp_path / "out", data) == pytest.approx(written["points"] / 100)


@needs_nncf
def test_a_model_with_outliers_is_written_as_the_careful_one(outlying, model, tmp_path, capsys):
    _, data = model
    words = ["--int8", "--check", "SST-2", "--data_root", data, "--runtime", "openvino"]
    assert export(outlying, tmp_path / "out", *words) == 0
    report = json.loads((tmp_path / "out/export.json").read_text())["report"]
    losses = {each["name"]: each["loss"] for each in report["models"]}
    careful = "OpenVINO, smoothed, float embeddings"
    assert report["written"] == careful
    assert losses["float32"] == 0.0
    assert losses[careful] <= 0.5
    assert min(loss for name, loss in losses.items() if name not in ("float32", careful)) > 5
    assert dev_score(capsys, tmp_path / "out", data) == pytest.approx(1 - losses[careful] / 100)


def test_nothing_is_written_where_every_int8_model_loses_too_much(outlying, model, tmp_path, capsys):
    _, data = model
    assert export(outlying, tmp_path / "float32") == 0
    assert dev_score(capsys, tmp_path / "float32", data) == 1.0
    words = ["--int8", "--check", "SST-2", "--data_root", data, "--runtime", "onnxruntime"]
    assert export(outlying, tmp_path / "out", *words) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.count("\n") == 1
    assert "every INT8 model loses more than 0.5 points on SST-2: ONNX Runtime " in said.err
    assert "nothing is written" in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["float32"]


def test_without_a_check_it_says_so(tokenizer, tmp_path, capsys):
    write_model_directory(tmp_path / "model", sizes(tokenizer), random_parameters("encoder", sizes(tokenizer)), tokenizer)
    assert export(tmp_path / "model", tmp_path / "out", "--int8", "--runtime", "onnxruntime", "--reduced_range", "yes") == 0
    said = capsys.readouterr().out
    assert "nothing was checked: --check TASK tells what a classifier loses" in said
    assert "calibrated with nothing; timed on random tokens" in said
    description = json.loads((tmp_path / "out/export.json").read_text())
    assert (description["precision"], description["reduced_range"], description["report"]["check"]) == ("int8", True, None)


def test_rows_of_a_file_are_calibrated_and_timed_with(model, tmp_path, capsys):
    texts = tmp_path / "texts"
    texts.write_text("".join(f"the soup was number {number}\n" for number in range(400)))
    assert export(model[0], tmp_path / "out", "--int8", "--runtime", "onnxruntime", "--calibrate", texts) == 0
    assert f"calibrated with 300 rows of {texts}; timed on rows of the calibration" in capsys.readouterr().out
    float32, *int8 = json.loads((tmp_path / "out/export.json").read_text())["report"]["models"]
    assert float32["agreement"] == 1.0
    # Forty rows, on which two models of two classes agree by more than chance.
    assert all(each["agreement"] * 40 == pytest.approx(round(each["agreement"] * 40)) and each["agreement"] > 0.7 for each in int8)


def test_a_pretrained_model_without_rows_is_told_of_what_it_misses(tokenizer, tmp_path, capsys):
    write_model_directory(tmp_path / "model", sizes(tokenizer), random_parameters("mlm", sizes(tokenizer)), tokenizer)
    assert export(tmp_path / "model", tmp_path / "out", "--int8") == 0
    said = capsys.readouterr().out
    assert ("calibrated with nothing (with --calibrate FILE there would be models for OpenVINO too)" in said) == can_quantize()
    assert f"{tmp_path}/out: mlm in INT8, ONNX Runtime" in said


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--int8", "--check", "RTE"], "was fine-tuned on SST-2; it cannot label RTE"),
        (["--int8", "--check", "SST-2", "--data_root", "nowhere"], "SST-2: no dev.tsv in nowhere/glue/SST-2"),
        (["--int8", "--data_root", "nowhere"], "SST-2: no train.tsv in nowhere/glue/SST-2"),
        (["--int8", "--max_loss", "-1"], "--max_loss must be a number of points from 0 on, got -1.0"),
        (["--int8", "--max_loss", "nan"], "--max_loss must be a number of points from 0 on"),
        (["--int8", "--calibrate", "nowhere.txt"], "nowhere.txt: cannot read"),
        (["--check", "SST-2"], "--check says nothing without --int8"),
        (["--runtime", "auto"], "--runtime says nothing without --int8"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(model, tmp_path, capsys, words, wrong):
    assert export(model[0], tmp_path / "out", *words) == 2
    said = capsys.readouterr().err
    assert wrong in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_int8_is_for_onnx_and_a_check_for_classifiers(model, tokenizer, tmp_path, capsys):
    assert main(["export", "--format", "huggingface", "--int8", "--model", str(model[0]), "--output", str(tmp_path / "out")]) == 2
    assert "--int8 goes with --format onnx" in capsys.readouterr().err
    write_model_directory(tmp_path / "model", sizes(tokenizer), random_parameters("encoder", sizes(tokenizer)), tokenizer)
    for words, wrong in [
        (["--check", "SST-2"], "a pre-trained model without a classifier, so --check has nothing to score"),
        (["--runtime", "openvino"], "a model for OpenVINO needs rows to calibrate with"),
    ]:
        assert export(tmp_path / "model", tmp_path / "out", "--int8", *words) == 2
        assert wrong in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_parameters_of_a_classifier_need_their_folder(model, tmp_path, capsys):
    folder, _ = model
    words = ["--params", folder / "bort.params", "--vocab", folder]
    assert export(folder / "config.json", tmp_path / "out", *words) == 2
    assert "bort.params: a fine-tuned classifier, whose folder alone says for what" in capsys.readouterr().err


def test_a_full_range_is_refused_where_it_would_overflow(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("bort.cli.int8_trial.cpu_flags", lambda: frozenset({"avx2"}))
    assert export(model[0], tmp_path / "out", "--int8", "--runtime", "onnxruntime", "--reduced_range", "no") == 2
    assert "--reduced_range no: this CPU has no VNNI" in capsys.readouterr().err
    assert export(model[0], tmp_path / "out", "--int8", "--runtime", "onnxruntime") == 0
    assert json.loads((tmp_path / "out/export.json").read_text())["reduced_range"] is True


MISSING = """
import sys
sys.modules |= dict.fromkeys(sys.argv[1].split(","))
from bort.cli import main
sys.exit(main(["export", "--format", "onnx", *sys.argv[2:]]))
"""


@pytest.mark.parametrize(
    ("missing", "words", "wrong"),
    [
        ("onnx", [], "pip install onnx=="),
        ("onnxruntime,nncf", ["--int8"], "INT8 needs a runtime: pip install onnxruntime=="),
        ("onnxruntime", ["--int8", "--runtime", "onnxruntime"], "pip install onnxruntime=="),
        ("nncf", ["--int8", "--runtime", "openvino"], "pip install openvino=="),
    ],
)
def test_a_missing_library_is_named(model, tmp_path, missing, words, wrong):
    folder, data = model
    data_root = ["--data_root", str(data)] if words else []
    command = [sys.executable, "-c", MISSING, missing, "--model", str(folder), "--output", str(tmp_path / "out"), *words, *data_root]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (process.returncode, process.stderr.count("\n")) == (2, 1), process.stderr
    assert wrong in process.stderr
    assert not (tmp_path / "out").exists()
