"""The tables, the Markdown file and the plot of a made-up record; the folder is whole or not there."""

from __future__ import annotations

import copy
import json

import pytest

from bort import BortError
from bort.bench.inference import report
from bort.bench.inference.bars import judge
from bort.bench.inference.report import PLOT_FILE, RECORD_FILE, TABLES_FILE, check_report_folder, print_report, write_report
from bort.bench.inference.tables import notes, short, tables
from bort.machine import describe_machine

NAMES = ("bort/openvino/int8", "bort/onnxruntime/int8", "bert-base/torch/fp32", "bert-base/onnxruntime/int8")
SHAPES = ("1x32", "8x128")


@pytest.fixture(scope="module")
def record():
    """Each row takes ten times as long as the one before it, and a text half as long again."""
    rows = []
    for place, name in enumerate(NAMES):
        model, runtime, precision = name.split("/")
        ids = {"p50_ms": 10.0**place, "p95_ms": 2 * 10.0**place, "sequences_per_second": 1000 / 10.0**place, "runs": 7}
        text = {"p50_ms": 1.5 * 10.0**place, "p95_ms": 3 * 10.0**place, "sequences_per_second": 600 / 10.0**place, "runs": 3}
        rows.append(
            {"name": name, "model": model, "runtime": runtime, "precision": precision, "computes_in": "bfloat16"}
            | {"disk_mb": 76.9, "peak_mb": 1234.5, "resident_mb": 345.6}
            | {"differences": {"padded": {"largest": 0.04, "relative_rms": 0.0123, "cosine": 0.99987}}}
            | {
                "shapes": {
                    shape: {"from_ids": ids, "from_text": text, "round_medians_ms": [0.9 * 10**place, 1.1 * 10**place]} for shape in SHAPES
                }
            }
        )
    record = {"benchmark": "inference", "model": "bort", "shapes": list(SHAPES), "repeats": 2, "threads": 2, "packs": 1}
    record |= {"machine": describe_machine(["numpy"]), "rows": rows, "roofline": {"reason": "no C++ compiler (c++)"}}
    record["vocabularies"] = [{"kind": "bpe", "vocab_size": 50265, "tokens_per_word": 1.56}]
    return record | {"ratios": judge(record)}


def test_every_row_and_figure_is_in_the_tables(record):
    found = {table.title: table for table in tables(record)}
    latency = found["Latency of 8x128 (sequences x tokens)"]
    assert [row[0] for row in latency.rows] == list(NAMES)
    assert latency.rows[0] == ("bort/openvino/int8", "1.00", "2.00", "1,000", "1.50", "3.00", "600", "7")
    assert all(len(row) == len(table.columns) for table in found.values() for row in table.rows)
    (bar,) = found["Bars: times faster (least–most over rounds)"].rows
    assert bar == (NAMES[0], NAMES[2], "100 (100–100)", "100 (100–100)", "100 (100–100)", "≥ 16, each ≥ 10", "other shapes")
    (pair,) = found["Like for like: same runtime, same precision"].rows
    assert pair[:3] == (NAMES[1], NAMES[3], "100 (100–100)")
    assert found["Sizes, and what was verified"].rows[0][1:] == ("76.9", "1,234.5", "345.6", "bfloat16", "4.0e-02", "1.2e-02", "0.999870")
    assert "no least time: no C++ compiler (c++)" in notes(record)


def test_classifiers_stand_in_tables_of_their_own(record):
    names = ("bort-classifier/openvino/int8", "bert-base-classifier/torch/fp32")
    classifiers = [
        row | {"name": name, **dict(zip(("model", "runtime", "precision"), name.split("/"), strict=True))}
        for row, name in zip(record["rows"], names, strict=False)
    ]
    record = record | {"rows": classifiers[:1] + record["rows"] + classifiers[1:]}
    found = {table.title: table for table in tables(record | {"ratios": judge(record)})}
    assert [row[0] for row in found["Latency of 8x128 (sequences x tokens)"].rows] == list(NAMES)
    (latency,) = (table for title, table in found.items() if title.startswith("Classifiers as deployed") and title.endswith("of 8x128"))
    assert [row[0] for row in latency.rows] == list(names)
    (ratio,) = next(table.rows for title, table in found.items() if title.endswith("times faster"))
    assert ratio[:3] == (*names, "10.0 (10.0–10.0)")


def test_the_least_time_has_a_table_of_its_own(record):
    entry = {"gmacs": 24.7, "products_ms": 53.0, "weights_ms": 0.5, "least_ms": 53.0, "measured_ms": 79.5, "reached": 2 / 3}
    peaks = {"fp32": 115.0, "bf16": 233.0, "int8": 466.0}
    roofline = {
        "row": NAMES[0],
        "gmacs_per_second": peaks,
        "weight_bytes": 23_068_672,
        "weight_gb_per_second": 80.0,
        "memory_gb_per_second": 20.0,
    }
    *_, table = tables(record | {"roofline": roofline | {"shapes": {"8x128": entry}}})
    assert "peaks fp32 115, bf16 233, int8 466 GMAC/s; 23.1 million bytes of weights at 80 GB/s" in table.title
    assert table.rows == [("8x128", "24.70", "53.0", "0.50", "53.0", "79.5", "67%")]


def test_the_folder_holds_the_record_the_tables_and_the_plot(record, tmp_path, capsys):
    write_report(tmp_path / "report", record)
    assert {path.name for path in (tmp_path / "report").iterdir()} == {RECORD_FILE, TABLES_FILE, PLOT_FILE}
    assert json.loads((tmp_path / "report" / RECORD_FILE).read_text(encoding="utf-8")) == record
    text = (tmp_path / "report" / TABLES_FILE).read_text(encoding="utf-8")
    assert "| bert-base/torch/fp32 | 100 | 200 | 10.0 | 150 | 300 | 6.00 | 7 |" in text
    assert record["machine"]["cpu"] in text
    assert (tmp_path / "report" / PLOT_FILE).read_bytes().startswith(b"\x89PNG")
    print_report(record)
    printed = capsys.readouterr().out
    assert all(name in printed for name in NAMES)
    assert "Python 3." in printed


def test_a_report_that_fails_halfway_leaves_nothing(record, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "draw_latency", lambda path, record: (_ for _ in ()).throw(OSError("no room")))
    with pytest.raises(OSError, match="no room"):
        write_report(tmp_path / "report", record)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_there_is_refused(tmp_path):
    check_report_folder(tmp_path / "new")
    with pytest.raises(BortError, match="there already; give another --report"):
        check_report_folder(tmp_path)


def test_memory_that_did_not_suffice_is_said(record):
    assert not any("packs" in note for note in notes(record))
    assert any("loaded in 3 packs" in note for note in notes(copy.deepcopy(record) | {"packs": 3}))


@pytest.mark.parametrize(("value", "text"), [(0.0123, "0.01"), (9.876, "9.88"), (12.34, "12.3"), (12345.6, "12,346")])
def test_figures_have_three_digits(value, text):
    assert short(value) == text
