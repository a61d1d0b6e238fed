"""The inference benchmark at toy size, with real processes: what it verifies, that a wrong model stops it, and what it reports."""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from bort import BortConfig, BortError, get_bort_model
from bort.bench.inference import rounds
from bort.bench.inference.benchmark import bench_inference
from bort.bench.inference.cases import make_batches, write_batches
from bort.bench.inference.models import EXPECTED_FILE, GLUON_FILE, GRAPH_FILE, INT8_GRAPH_FILE
from bort.bench.inference.preparation import models_of, prepare
from bort.bench.inference.processes import RowProcess, size_on_disk
from bort.bench.inference.rounds import measure_rows
from bort.bench.inference.rows import Row
from bort.bench.pretrain import Shape
from bort.bench.processes import choose_cores
from bort.model_directory import write_model_directory
from bort.parameters import read_parameters, write_parameters


def missing(*names):
    return [name for name in names if importlib.util.find_spec(name) is None]


pytestmark = pytest.mark.skipif(
    bool(missing("onnx", "onnxruntime")), reason="needs ONNX and ONNX Runtime, which are an extra: pip install .[onnx]"
)
SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "vocab_size": 400,
}
GLUON, FP32, INT8 = Row("bort", "gluon", "fp32"), Row("bort", "onnxruntime", "fp32"), Row("bort", "onnxruntime", "int8")


@pytest.fixture(scope="module")
def model(tokenizer, tmp_path_factory):
    """Folder of a tiny Bort whose weights matter: as they are drawn, layers of this width would add next to nothing."""
    from bort.gluon.parameters import get_arrays

    random, folder = np.random.default_rng(7), tmp_path_factory.mktemp("model") / "bort"
    net, _ = get_bort_model(BortConfig(**SIZES), use_decoder=False)
    arrays = {name: (array + random.normal(0, 0.15, array.shape)).astype(np.float32) for name, array in get_arrays(net).items()}
    write_model_directory(folder, BortConfig(**SIZES), arrays, tokenizer)
    return str(folder)


@pytest.fixture(scope="module")
def prepared(model, tmp_path_factory):
    """Bort's files for the rows that need no more than ONNX Runtime."""
    shapes = [Shape(1, 16), Shape(2, 20)]
    places, _ = prepare(tmp_path_factory.mktemp("made"), models_of([GLUON, FP32, INT8], model, {}), shapes, choose_cores(1), False)
    return places["bort"]


@pytest.fixture
def place(prepared, tmp_path):
    """The same, to be changed."""
    shutil.copytree(prepared.folder, tmp_path / "bort")
    shutil.copy(prepared.cases, tmp_path / "cases.npz")
    return replace(prepared, folder=tmp_path / "bort", cases=tmp_path / "cases.npz")


def measure(rows, place, repeats=1):
    return measure_rows(rows, {"bort": place}, ["1x16", "2x20"], repeats, choose_cores(1), False)


def test_rows_are_verified_timed_in_rounds_and_weighed(prepared):
    found, packs = measure([GLUON, FP32, INT8], prepared, repeats=5)
    assert packs == 1
    assert [each.row for each in found] == [GLUON, FP32, INT8]
    for each in found:
        assert each.differences.keys() == {"1x16", "2x20", "padded"}
        for samples in each.samples.values():
            assert len(samples.from_ids) == 5
            # Every fourth round.
            assert len(samples.from_text) == 2
            assert all(seconds > 0 for group in (*samples.from_ids, *samples.from_text) for seconds in group)
        assert 20 < each.memory["resident_mb"] <= each.memory["peak_mb"]
    gluon, fp32, int8 = (each.differences["padded"] for each in found)
    # Gluon against itself; another runtime rounds otherwise; INT8 is not float32.
    assert gluon.relative_rms == 0.0
    assert 0 < fp32.largest < 1e-4 < int8.largest
    assert size_on_disk(INT8, prepared.folder) < size_on_disk(FP32, prepared.folder)


def test_where_memory_is_short_rows_come_in_packs_and_every_round_sees_all(prepared, monkeypatch):
    monkeypatch.setattr(rounds, "available_memory", lambda: 0)
    found, packs = measure([FP32, INT8], prepared, repeats=2)
    assert packs == 2
    assert all(len(samples.from_ids) == 2 for each in found for samples in each.samples.values())


def wrong_graph(folder, row):
    """The graph of other weights: one matrix of one layer is another."""
    import onnx

    from bort.export.int8_dynamic import quantize_dynamic
    from bort.export.onnx_graph import build_graph

    arrays = read_parameters(folder / GLUON_FILE)
    name = "encoder.transformer_cells.1.ffn.ffn_2.weight"
    arrays[name] = np.roll(arrays[name], 1, axis=0)
    onnx.save(build_graph(BortConfig(**SIZES), arrays), folder / GRAPH_FILE)
    if row is INT8:
        quantize_dynamic(folder / GRAPH_FILE, folder / INT8_GRAPH_FILE)


@pytest.mark.parametrize("row", [FP32, INT8], ids=str)
def test_a_wrongly_built_model_stops_the_benchmark_before_anything_is_timed(place, row, monkeypatch):
    wrong_graph(place.folder, row)
    monkeypatch.setattr(RowProcess, "time", lambda *arguments: pytest.fail("a row was timed"))
    with pytest.raises(BortError, match=rf"verification failed: {row}, 1x16: .* more than .*; nothing was timed"):
        measure([GLUON, row], place)


def test_a_wrong_bias_is_seen(place):
    arrays = read_parameters(place.folder / GLUON_FILE)
    arrays["encoder.transformer_cells.0.attention_cell.proj_value.bias"][3] += 0.05
    write_parameters(place.folder / GLUON_FILE, arrays)
    with pytest.raises(BortError, match="verification failed: bort/gluon/fp32"):
        measure([GLUON], place)


def test_other_ids_than_the_others_are_refused(place):
    process = RowProcess(FP32, place, choose_cores(1))
    try:
        write_batches(place.cases, make_batches([(1, 17), (2, 20)], 400, 64))
        with pytest.raises(BortError, match="was given other ids than the others; nothing was timed"):
            process.verify()
    finally:
        process.close()


def test_a_tokenizer_that_makes_other_ids_is_refused(place, tmp_path):
    shutil.copytree(place.texts, tmp_path / "texts")
    table = json.loads((tmp_path / "texts" / "vocab.json").read_text())
    table["."], table["q"] = table["q"], table["."]
    (tmp_path / "texts" / "vocab.json").write_text(json.dumps(table))
    process = RowProcess(FP32, replace(place, texts=tmp_path / "texts"), choose_cores(1))
    try:
        with pytest.raises(BortError, match="its tokenizer makes other ids of the texts; nothing was timed"):
            process.verify()
    finally:
        process.close()


def test_a_process_that_ends_is_named_with_what_it_said(place):
    (place.folder / "config.json").unlink()
    (place.folder / GRAPH_FILE).write_bytes(b"not a graph")
    with pytest.raises(BortError, match=r"bort/onnxruntime/fp32: .*model\.onnx: ONNX Runtime cannot load it"):
        measure([FP32], place)
    with pytest.raises(BortError, match=r"bort/gluon/fp32: .*config\.json: cannot read the configuration"):
        measure([GLUON], place)
    place.cases.unlink()
    with pytest.raises(BortError, match=r"bort/onnxruntime/int8: its process ended with exit status 1: FileNotFoundError.*cases\.npz"):
        measure([INT8], place)


def test_a_classifier_gives_logits(model, tmp_path):
    rows = [Row("bort-classifier", "gluon", "fp32"), Row("bort-classifier", "onnxruntime", "fp32")]
    places, _ = prepare(tmp_path, models_of(rows, model, {}), [Shape(2, 20)], choose_cores(1), False)
    with np.load(places["bort-classifier"].folder / EXPECTED_FILE) as expected:
        assert expected["2x20"].shape == (2, 2)
    found, _ = measure_rows(rows, places, ["2x20"], 1, choose_cores(1), False)
    assert found[0].differences["padded"].largest == 0.0
    assert 0 < found[1].differences["padded"].largest < 1e-4


@pytest.mark.skipif(bool(missing("torch", "transformers", "openvino", "nncf")), reason="needs pip install .[openvino,peers]")
def test_peers_are_measured_beside_bort_and_the_record_says_how_many_times_faster(model):
    """With the peer whose graph PyTorch exports; that of the others is Bort's."""
    tiny = {"bert-base": SIZES, "mobilebert": {"num_hidden_layers": 1, "vocab_size": 400, "max_position_embeddings": 64}}
    rows = [Row("bort", "openvino", "int8"), Row("bert-base", "torch", "fp32"), Row("bert-base", "onnxruntime", "fp32")]
    rows += [Row("mobilebert", "onnxruntime", "fp32")]
    record = bench_inference(model, rows, [Shape(1, 16), Shape(1, 16)], 2, 1, fields=tiny)
    assert [row["name"] for row in record["rows"]] == [str(row) for row in rows]
    assert record["shapes"] == ["1x16"]
    bort, torch = record["rows"][0], record["rows"][1]
    (bar,) = record["ratios"]["bars"]
    assert (bar["ours"], bar["theirs"], bar["holds"]) == ("bort/openvino/int8", "bert-base/torch/fp32", None)
    speeds = [row["shapes"]["1x16"]["from_ids"]["p50_ms"] for row in (bort, torch)]
    assert bar["mean"]["ratio"] == pytest.approx(speeds[1] / speeds[0])
    for row in record["rows"]:
        assert row["differences"]["padded"]["cosine"] > 0.99
        assert row["disk_mb"] > 0
        assert row["shapes"]["1x16"]["from_text"]["p50_ms"] > 0
    assert {"torch", "transformers", "openvino", "nncf", "mxnet", "onnxruntime"} <= record["machine"]["versions"].keys()
    assert json.loads(json.dumps(record, allow_nan=False)) == record


@pytest.mark.parametrize(
    ("shapes", "repeats", "threads", "says"),
    [
        ([Shape(1, 16)], 0, 1, "must be at least 1"),
        ([Shape(1, 16)], 1, 0, "must be at least 1"),
        ([Shape(1, 16)], 1, 10_000, "--threads 10000: this process may use"),
        ([Shape(1, 16), Shape(1, 65)], 1, 1, "--shapes 1x65: 64 tokens are the most"),
    ],
)
def test_what_cannot_be_measured_is_refused(model, shapes, repeats, threads, says):
    with pytest.raises(BortError, match=says):
        bench_inference(model, [FP32], shapes, repeats, threads)


def test_what_is_not_installed_is_named(model, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name in ("openvino", "nncf") else find(name))
    with pytest.raises(
        BortError, match=r"these rows need openvino, nncf; pip install \.\[onnx,openvino,peers\], or leave them out by --rows"
    ):
        bench_inference(model, [Row("bort", "openvino", "fp32")], [Shape(1, 16)], 1, 1)
