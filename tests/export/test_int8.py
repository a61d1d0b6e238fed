"""INT8 by measurement: what is chosen, how speed is measured, and whole folders of an encoder and of a masked language model."""

from __future__ import annotations

import time

import numpy as np
import pytest

from bort.errors import BortError
from bort.export.source import Source

pytest.importorskip("onnx", reason="the extra onnx is not installed")
pytest.importorskip("onnxruntime", reason="the extra onnx is not installed")

from bort.export.exported_model import ExportedModel
from bort.export.int8 import Measured, Trial, choose, write_int8
from bort.export.int8_candidates import Candidate, find_candidates
from bort.export.int8_latency import median_latencies
from bort.export.int8_rows import Reader, examples_of_file
from bort.export.int8_static import StaticRecipe, can_quantize

from .test_exported_model import sizes
from .test_int8_dynamic import random_parameters

needs_nncf = pytest.mark.skipif(not can_quantize(), reason="OpenVINO and NNCF are not installed")


def model(name, loss, megabytes, milliseconds):
    return Measured(name, "float32", None if loss is None else 80.0 - loss, loss, 1.0, megabytes, milliseconds)


@pytest.mark.parametrize(
    ("models", "chosen"),
    [
        ([("fast", 0.6, 4, 1.0), ("slow", 0.5, 9, 3.0)], "slow"),
        ([("fast", 0.5, 9, 1.0), ("slow", 0.0, 4, 3.0)], "fast"),
        # Two that are as fast: the smaller.
        ([("big", 0.0, 9, 1.00), ("small", 0.0, 4, 1.04)], "small"),
        ([("big", 0.0, 9, 1.00), ("small", 0.0, 4, 1.06)], "big"),
        # A loss is a difference of floating point numbers.
        ([("on the limit", 80.6 - 80.1, 4, 1.0), ("slow", 0.0, 4, 3.0)], "on the limit"),
        ([("better than float32", -2.0, 4, 1.0)], "better than float32"),
        # Nothing was checked.
        ([("fast", None, 9, 1.0), ("slow", None, 4, 3.0)], "fast"),
    ],
)
def test_the_fastest_that_loses_little_is_chosen(models, chosen):
    assert choose([model(*each) for each in models], 0.5, "RTE").name == chosen


def test_if_all_lose_too_much_each_loss_is_told():
    with pytest.raises(BortError, match=r"more than 0\.5 points on RTE: a 0\.60, b 7\.25; nothing is written") as raised:
        choose([model("a", 0.6, 4, 1.0), model("b", 7.25, 4, 1.0)], 0.5, "RTE")
    assert "\n" not in str(raised.value)


class Sleeper:
    """A session that takes a known time, the first run of a row longer."""

    runtime, precision, inputs = "none", "float32", ("input_ids",)

    def __init__(self, seconds):
        self.seconds, self.seen, self.turns = seconds, set(), []

    def run(self, inputs):
        row = int(inputs["input_ids"][0, 0])
        time.sleep(self.seconds if row in self.seen else 0.05)
        self.seen.add(row)
        self.turns.append(time.perf_counter())
        return {}


def test_latencies_are_medians_of_prepared_runs_in_turns():
    sessions = [Sleeper(0.012), Sleeper(0.003), Sleeper(0.006)]
    rows = [{"input_ids": np.array([[number]])} for number in range(12)]
    medians = median_latencies(sessions, rows)
    for found, session in zip(medians, sessions, strict=True):
        # Whoever sleeps is woken late where others are at work, but not by as much as a first run takes.
        assert 1000 * session.seconds <= found < 1000 * session.seconds + 20
        assert session.seen == set(range(12))
        assert len(session.turns) == 12 * 4
    # Nobody is measured only before or only after the others.
    starts = sorted((turn, number) for number, session in enumerate(sessions) for turn in session.turns)
    order = [number for place, (_, number) in enumerate(starts) if place == 0 or starts[place - 1][1] != number]
    assert order == [0, 1, 2, 1, 2, 0]


def test_candidates_are_those_of_the_runtime():
    for runtime in ("onnxruntime", "openvino"):
        for reduced_range in (False, True):
            found = find_candidates(runtime, reduced_range)
            assert {each.runtime for each in found} == {runtime}
            assert len({each.name for each in found}) == len(found)
    assert len(find_candidates("openvino", True)) == len(find_candidates("openvino", False)) - 1


@pytest.mark.parametrize(
    "candidate",
    [
        Candidate("dynamic", "onnxruntime", True),
        pytest.param(Candidate("static", "openvino", True, StaticRecipe(attention=True)), marks=needs_nncf),
    ],
    ids=lambda candidate: candidate.name,
)
@pytest.mark.parametrize("kind", ["encoder", "mlm"])
def test_a_pretrained_model_becomes_a_folder(kind, candidate, tokenizer, repository, tmp_path):
    config = sizes(tokenizer)
    source = Source(config, random_parameters(kind, config), tokenizer)
    examples = examples_of_file(repository / "test_data/corpus/river_and_weather.txt", None)[:24]
    rows = Reader.of(kind, tokenizer, config, None).inputs(examples)
    report = write_int8(tmp_path / "out", source, Trial([candidate], rows, rows[:5], None, 0.5, False, {"calibration": "lines"}))
    assert (report["written"], report["check"]) == (candidate.name, None)
    float32, int8 = report["models"]
    assert (float32["agreement"], int8["points"], int8["loss"]) == (pytest.approx(1.0), None, None)
    # Of an encoder the correlation of all hidden states; of a masked language model the share of equal words, of 400.
    assert int8["agreement"] > (0.99 if kind == "encoder" else 0.8)
    exported = ExportedModel.from_directory(tmp_path / "out")
    assert (exported.folder.precision, exported.folder.reduced_range, exported.folder.report) == ("int8", False, report)
    assert exported.session.runtime == candidate.runtime
    files = {"model.onnx"} if candidate.recipe is None else {"openvino_model.xml", "openvino_model.bin"}
    assert sum((tmp_path / "out" / file).stat().st_size for file in files) == pytest.approx(1e6 * int8["megabytes"])
    rest = {"config.json", "export.json", "vocab.json", "merges.txt", "tokenizer.json", "tokenizer_config.json"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files | rest
    assert exported.encode(["It rains."]).shape == (1, config.hidden_size)
    if kind == "mlm":
        assert len(exported.fill_mask("It <mask> today.")) == 5
