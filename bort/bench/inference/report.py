"""What an inference benchmark leaves behind: tables on the terminal, and a folder with the record, the tables in Markdown and a plot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bort.bench.inference.tables import notes, split_rows, tables
from bort.bench.report import print_table
from bort.errors import BortError
from bort.files import whole_directory
from bort.training import markdown
from bort.training.pictures import picture, plain

RECORD_FILE, TABLES_FILE, PLOT_FILE = "inference.json", "inference.md", "inference.png"
# Of a panel and of a row in it, in inches.
_WIDTH, _HEIGHT, _MARGIN = 4.0, 0.24, 1.5
_COLOURS = {"gluon": "tab:green", "torch": "tab:red", "onnxruntime": "tab:blue", "openvino": "tab:purple"}
_MARKERS = {"fp32": "o", "bf16": "s", "int8": "D"}


def check_report_folder(folder: Path) -> None:
    """Refuse, before anything is measured, a folder that is there already.

    Raises:
        BortError: with its name.
    """
    if folder.exists():
        raise BortError(f"{folder}: there already; give another --report, or remove it")


def print_report(record: Mapping[str, Any]) -> None:
    """Print all tables, and notes below them."""
    for table in tables(record):
        print_table(table.title, table.columns, table.rows)
    for note in notes(record):
        print(note)


def write_report(folder: Path, record: Mapping[str, Any]) -> None:
    """Write the folder, whole or not at all."""
    with whole_directory(folder) as partial:
        text = json.dumps(record, ensure_ascii=False, allow_nan=False, indent=1)
        (partial / RECORD_FILE).write_text(text + "\n", encoding="utf-8")
        parts = [f"**{table.title}**\n\n{markdown.table(table.columns, table.rows)}" for table in tables(record)]
        (partial / TABLES_FILE).write_text("\n\n".join([*parts, markdown.bullets(notes(record))]) + "\n", encoding="utf-8")
        draw_latency(partial / PLOT_FILE, record)


def draw_latency(path: Path, record: Mapping[str, Any]) -> None:
    """Draw a panel for each shape: every row's median latency, and the range of the rounds' medians; classifiers apart, below a line."""
    encoders, classifiers = split_rows(record)
    rows, shapes = [*encoders, *classifiers], record["shapes"]
    with picture(path, 2.5 + _WIDTH * len(shapes), _MARGIN + _HEIGHT * len(rows)) as figure:
        panels = figure.subplots(1, len(shapes), sharey=True, squeeze=False)[0]
        for axes, shape in zip(panels, shapes, strict=True):
            for place, row in enumerate(rows):
                found = row["shapes"][shape]
                colour, marker = _COLOURS[row["runtime"]], _MARKERS[row["precision"]]
                axes.hlines(place, min(found["round_medians_ms"]), max(found["round_medians_ms"]), color=colour, linewidth=3, alpha=0.4)
                axes.plot(found["from_ids"]["p50_ms"], place, marker, color=colour, markersize=5)
            if encoders and classifiers:
                axes.axhline(len(encoders) - 0.5, color="black", linewidth=0.8)
            axes.set_xscale("log")
            axes.set_title(f"{shape}, ms")
            axes.grid(axis="x", which="both", alpha=0.3)
        panels[0].set_yticks(range(len(rows)), [plain(row["name"]) for row in rows])
        panels[0].invert_yaxis()
        machine = record["machine"]
        figure.suptitle(plain(f"Latency from ids to outputs: median, range over rounds; {record['threads']} threads of {machine['cpu']}"))
