"""The tables of an inference benchmark, as cells: a terminal and a Markdown file show the same ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bort.bench.inference.rows import Row
from bort.bench.report import machine_line

_AS_DEPLOYED = "Classifiers as deployed (Bort computes its last layer for the first token only, BERT for all)"


@dataclass(frozen=True)
class Table:
    """A title, the names of its columns, and its rows of cells."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(record: Mapping[str, Any]) -> Iterator[Table]:
    """Yield one table of latency for each shape, one of sizes and differences, and those of ratios and of the least time.

    The two classifiers, which do other work than the rest, have tables of their own.
    """
    encoders, classifiers = split_rows(record)
    for shape in record["shapes"]:
        yield from _latency(encoders, shape, f"Latency of {shape} (sequences x tokens)")
    yield _sizes(record)
    judged = record["ratios"]
    shapes = record["shapes"]
    if judged["bars"]:
        columns = ("Bort", "against", *shapes, "geometric mean", "asked", "")
        yield Table("Bars: times faster (least–most over rounds)", columns, [(*_ratios(bar), *_verdict(bar)) for bar in judged["bars"]])
    columns = ("Bort", "against", *shapes, "geometric mean")
    if judged["like_for_like"]:
        yield Table("Like for like: same runtime, same precision", columns, [_ratios(pair) for pair in judged["like_for_like"]])
    for shape in record["shapes"]:
        yield from _latency(classifiers, shape, f"{_AS_DEPLOYED}: latency of {shape}")
    if judged["as_deployed"]:
        yield Table(f"{_AS_DEPLOYED}: times faster", columns, [_ratios(judged["as_deployed"])])
    if "shapes" in record["roofline"]:
        yield _roofline(record["roofline"])


def notes(record: Mapping[str, Any]) -> list[str]:
    """What a reader of the tables must know."""
    vocabularies = ", ".join(
        f"{entry['kind']} of {entry['vocab_size']:,} tokens, {entry['tokens_per_word']:.2f} per word" for entry in record["vocabularies"]
    )
    said = [
        machine_line(record["machine"]),
        f"{record['threads']} threads, {record['repeats']} rounds of all rows, which ran one at a time and were verified before; "
        "weights (but a given folder's) and ids are random, the same ids for all rows; "
        "outputs are the hidden states of all positions, in NumPy",
        f"from text: made-up words, vocabularies trained on them ({vocabularies}); Bort cuts them with its own tokenizer, the peers with "
        "Hugging Face's tokenizers; sequences/s are from ids, one batch after another",
        "differences are from Gluon's outputs for Bort and from PyTorch's for the peers, of a batch with padding, in units of their root "
        "mean square; memory is the process's resident set, at its peak and at the end; MB are 2**20 bytes",
    ]
    if record["packs"] > 1:
        said.append(f"memory did not suffice for all rows at once; in every round they were loaded in {record['packs']} packs")
    if "reason" in record["roofline"]:
        said.append(f"no least time: {record['roofline']['reason']}")
    return said


def split_rows(record: Mapping[str, Any]) -> tuple[list[Mapping[str, Any]], list[Mapping[str, Any]]]:
    """The rows whose outputs are hidden states, and the classifiers."""
    encoders: list[Mapping[str, Any]] = []
    classifiers: list[Mapping[str, Any]] = []
    for row in record["rows"]:
        kind = classifiers if Row(row["model"], row["runtime"], row["precision"]).is_classifier else encoders
        kind.append(row)
    return encoders, classifiers


def _latency(measured: Sequence[Mapping[str, Any]], shape: str, title: str) -> Iterator[Table]:
    """Yield the table, unless it has no rows."""
    columns = ("row", "p50 ms", "p95 ms", "sequences/s", "from text: p50 ms", "p95 ms", "sequences/s", "runs")
    rows = []
    for row in measured:
        ids, text = row["shapes"][shape]["from_ids"], row["shapes"][shape]["from_text"]
        cells = [short(speed[name]) for speed in (ids, text) for name in ("p50_ms", "p95_ms", "sequences_per_second")]
        rows.append((row["name"], *cells, str(ids["runs"])))
    if rows:
        yield Table(title, columns, rows)


def _sizes(record: Mapping[str, Any]) -> Table:
    columns = ("row", "on disk MB", "peak MB", "resident MB", "rest computed in", "largest difference", "rms difference", "cosine")
    rows = []
    for row in record["rows"]:
        found = row["differences"]["padded"]
        sizes = (f"{row[name]:,.1f}" for name in ("disk_mb", "peak_mb", "resident_mb"))
        far = (f"{found['largest']:.1e}", f"{found['relative_rms']:.1e}", f"{found['cosine']:.6f}")
        rows.append((row["name"], *sizes, row["computes_in"], *far))
    return Table("Sizes, and what was verified", columns, rows)


def _ratios(pair: Mapping[str, Any]) -> tuple[str, ...]:
    entries = (*pair["shapes"].values(), pair["mean"])
    cells = (f"{short(entry['ratio'])} ({short(entry['least'])}–{short(entry['most'])})" for entry in entries)
    return (pair["ours"], pair["theirs"], *cells)


def _verdict(bar: Mapping[str, Any]) -> tuple[str, str]:
    asked = f"≥ {bar['asked_mean']:g}" + (f", each ≥ {bar['asked_each']:g}" if bar["asked_each"] else "")
    return asked, {True: "holds", False: "missed", None: "other shapes"}[bar["holds"]]


def _roofline(roofline: Mapping[str, Any]) -> Table:
    peaks = ", ".join(f"{name} {rate:,.0f}" for name, rate in roofline["gmacs_per_second"].items())
    title = (
        f"Least time of {roofline['row']}: peaks {peaks} GMAC/s; {roofline['weight_bytes'] / 1e6:.1f} million bytes of weights at "
        f"{roofline['weight_gb_per_second']:.0f} GB/s again and again, {roofline['memory_gb_per_second']:.0f} GB/s from memory"
    )
    columns = ("shape", "GMAC", "products ms", "weights ms", "least ms", "measured ms", "reached")
    rows = [
        (
            shape,
            f"{entry['gmacs']:.2f}",
            *(short(entry[name]) for name in ("products_ms", "weights_ms", "least_ms", "measured_ms")),
            f"{entry['reached']:.0%}",
        )
        for shape, entry in roofline["shapes"].items()
    ]
    return Table(title, columns, rows)


def short(value: float) -> str:
    """Three figures or more, without an exponent."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
