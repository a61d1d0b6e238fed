"""A tiny exported model under load: every answer is looked at, and what is wrong ends the soak."""

from __future__ import annotations

import importlib.util
import threading

import numpy as np
import pytest

from bort import BortConfig, BortError, get_bort_model
from bort.bench.inference import soak as soak_module
from bort.bench.inference.soak import answer, make_rows, soak

pytestmark = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("onnx", "onnxruntime")), reason="needs pip install .[onnx]"
)
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 64}


@pytest.fixture(scope="module", params=["encoder", "RTE"])
def exported(request, tokenizer, tmp_path_factory):
    """Folders of an encoder, and of a classifier of pairs."""
    import onnx

    from bort.export.exported_folder import MODEL_FILE, write_exported_folder
    from bort.export.onnx_graph import build_graph
    from bort.gluon.parameters import get_arrays
    from bort.model_directory import TrainedTask
    from bort.tasks import get_task

    config, folder = BortConfig(vocab_size=len(tokenizer.vocab), **SIZES), tmp_path_factory.mktemp("exported") / request.param
    net, _ = get_bort_model(config, use_decoder=False)
    random = np.random.default_rng(3)
    arrays, task = {name: array + random.normal(0, 0.15, array.shape).astype(np.float32) for name, array in get_arrays(net).items()}, None
    if request.param == "RTE":
        shapes = {"1.weight": (32, 32), "1.bias": (32,), "3.weight": (2, 32), "3.bias": (2,)}
        arrays = {f"bort.{name}": array for name, array in arrays.items()}
        arrays |= {f"classifier.{name}": random.normal(0, 0.3, shape).astype(np.float32) for name, shape in shapes.items()}
        task = TrainedTask("RTE", get_task("RTE").labels, 64)
    graph = build_graph(config, arrays)
    kind = "encoder" if task is None else "classifier"
    write_exported_folder(folder, lambda place: onnx.save(graph, place / MODEL_FILE), config, kind, tokenizer, task)
    return folder


def test_answers_are_right_and_counted_window_by_window(exported):
    record = soak(exported, minutes=0.03, threads=1, clients=3)
    assert len(record["windows"]) == 5
    assert record["answers"] == sum(window["answers"] for window in record["windows"]) > 20
    for window in record["windows"]:
        assert 0 < window["p50_ms"] <= window["p99_ms"]
        assert window["resident_mb"] > 20
    assert record["windows"][-1]["seconds"] == pytest.approx(1.8, abs=1.0)
    assert record["growth_mb"] == pytest.approx(record["windows"][-1]["resident_mb"] - record["windows"][0]["resident_mb"])


def test_rows_have_mixed_lengths_and_answers_that_differ(exported):
    from bort.export.exported_model import ExportedModel

    model = ExportedModel.from_directory(exported, threads=1)
    rows = make_rows(model)
    lengths = [len(model.tokenizer.encode(" ".join(row))) for row in rows]
    assert min(lengths) < 10
    assert max(lengths) > 60
    assert {len(row) for row in rows} == {1 if model.task is None else 2}
    answers = np.array([answer(model, row) for row in rows[:20]])
    assert answers.shape[1] == (32 if model.task is None else 3)
    assert answers.std(axis=0).min() > 0


def test_an_answer_that_changes_under_load_ends_the_soak(exported, monkeypatch):
    def unsteady(model, row):
        return answer(model, row) + (0.01 if threading.current_thread() is not threading.main_thread() else 0.0)

    monkeypatch.setattr(soak_module, "answer", unsteady)
    with pytest.raises(BortError, match=r"row \d+ of \d+ characters is answered otherwise under load than alone"):
        soak(exported, minutes=1.0, threads=1, clients=2)


def test_a_thread_that_fails_ends_the_soak_with_its_error(exported, monkeypatch):
    def failing(model, row):
        if threading.current_thread() is not threading.main_thread():
            raise ValueError("a defect")
        return answer(model, row)

    monkeypatch.setattr(soak_module, "answer", failing)
    with pytest.raises(ValueError, match="a defect"):
        soak(exported, minutes=1.0, threads=1, clients=2)


@pytest.mark.parametrize(("minutes", "threads", "clients"), [(0.0, 1, 1), (float("nan"), 1, 1), (1.0, 0, 1), (1.0, 1, 0)])
def test_impossible_loads_are_refused(exported, minutes, threads, clients):
    with pytest.raises(BortError, match="--minutes must lie above 0"):
        soak(exported, minutes, threads, clients)
