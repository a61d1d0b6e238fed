"""The least time: counts against the shapes of real parameters, peaks from the real processor, and reasons where there are none."""

from __future__ import annotations

import shutil

import pytest

from bort import BortConfig, BortError
from bort.bench.inference import roofline
from bort.bench.inference.roofline import ROW, measure_peaks, measure_roofline, multiply_adds, weight_bytes
from bort.bench.pretrain import Shape
from bort.bench.processes import choose_cores
from bort.machine import cpu_flags, has_vnni

TINY = BortConfig(
    hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=64, vocab_size=400
)
BASE = BortConfig(hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12)


def test_weights_are_the_matrices_of_the_layers():
    from bort.gluon.model import BortModel
    from bort.gluon.parameters import named_parameters

    parameters = named_parameters(BortModel(TINY, use_decoder=False, prefix=""))
    matrices = [parameter.shape for name, parameter in parameters.items() if "cells" in name and name.endswith("weight")]
    assert weight_bytes(TINY) == sum(rows * columns for rows, columns in matrices)


def test_multiply_adds_are_those_of_weights_and_of_attention():
    # Of one token alone: its score and its value, each of the width of the layer.
    assert multiply_adds(TINY, Shape(1, 1)) == weight_bytes(TINY) + 3 * 2 * 32
    assert multiply_adds(TINY, Shape(5, 40)) == 5 * multiply_adds(TINY, Shape(1, 40))
    assert multiply_adds(TINY, Shape(1, 40)) == 40 * weight_bytes(TINY) + 3 * 2 * 40 * 40 * 32


def test_bort_has_a_few_times_fewer_than_bert_base():
    assert multiply_adds(BASE, Shape(1, 128)) / multiply_adds(BortConfig(), Shape(1, 128)) == pytest.approx(3.7, abs=0.15)


needs_vnni = pytest.mark.skipif(not has_vnni(cpu_flags()) or "amx_int8" in cpu_flags(), reason="this CPU has no VNNI, or has AMX")
needs_compiler = pytest.mark.skipif(shutil.which("c++") is None, reason="no C++ compiler")


@needs_vnni
@needs_compiler
def test_peaks_are_measured_and_the_share_reached_follows(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    cores = choose_cores(1)
    peaks = measure_peaks(1 << 16, cores)
    (library,) = (tmp_path / "bort").iterdir()
    compiled = library.stat().st_mtime_ns
    assert peaks.keys() == {"fp32", "bf16", "int8", "weights", "memory"}
    # An instruction has four INT8 products for each of float32; 64 KB come from a cache. Both with room for a busy machine.
    assert peaks["int8"] > 1.5 * peaks["fp32"] > 0.5
    assert peaks["weights"] > peaks["memory"] > 0.1
    monkeypatch.setattr(roofline, "measure_peaks", lambda weights, cores: peaks)
    row = {"name": str(ROW), "shapes": {"2x16": {"from_ids": {"p50_ms": 4.0}}}}
    found = measure_roofline(TINY, [row], ["2x16"], cores)
    entry = found["shapes"]["2x16"]
    assert entry["products_ms"] == pytest.approx(multiply_adds(TINY, Shape(2, 16)) / (peaks["int8"] * 1e9) * 1e3)
    assert entry["weights_ms"] == pytest.approx(weight_bytes(TINY) / (peaks["weights"] * 1e9) * 1e3)
    assert entry["reached"] == pytest.approx(max(entry["products_ms"], entry["weights_ms"]) / 4.0)
    assert library.stat().st_mtime_ns == compiled


@needs_vnni
@pytest.mark.parametrize(
    ("compiler", "says"),
    [("/nowhere/c++", r"no C\+\+ compiler \(/nowhere/c\+\+\)"), ("false", r"^false cannot compile peaks\.cc \(exit status 1\)$")],
)
def test_without_a_compiler_the_reason_stands_in_the_record(compiler, says, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", compiler)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(BortError, match=says) as refusal:
        measure_peaks(1 << 16, choose_cores(1))
    assert measure_roofline(TINY, [{"name": str(ROW)}], ["1x16"], choose_cores(1)) == {"reason": str(refusal.value)}


@pytest.mark.parametrize(("flags", "says"), [({"avx2"}, "no VNNI"), ({"avx512_vnni", "amx_int8"}, "tiles")])
def test_other_processors_are_not_measured(flags, says, monkeypatch):
    monkeypatch.setattr(roofline, "cpu_flags", lambda: frozenset(flags))
    with pytest.raises(BortError, match=says):
        measure_peaks(1 << 16, choose_cores(1))


def test_without_the_row_there_is_no_least_time():
    assert measure_roofline(TINY, [{"name": "bort/gluon/fp32"}], ["1x16"], choose_cores(1)) == {
        "reason": "bort/openvino/int8 was not measured"
    }
