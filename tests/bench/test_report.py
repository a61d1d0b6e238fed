"""What benchmarks share: spreads, the machine, the table and the JSON line."""

from __future__ import annotations

import json

import pytest

from bort.bench.report import Spread, machine_line, print_table, write_json_line
from bort.machine import describe_machine


def test_a_spread_is_the_median_and_the_range():
    spread = Spread.of([3.0, 1.0, 2.0, 10.0])
    assert (spread.median, spread.least, spread.most) == (2.5, 1.0, 10.0)
    assert spread.samples == (3.0, 1.0, 2.0, 10.0)
    assert str(spread) == "2.50 (1.00–10.0)"


def test_the_machine_is_one_line():
    machine = describe_machine(["numpy"])
    assert "Python 3." in machine_line(machine)
    assert "\n" not in machine_line(machine)


def test_the_table_keeps_every_cell(capsys):
    print_table("a title", ["", "MB/s"], [["one [core]", "1.0 (0.9–1.1)"], ["two", ""]], ["a note [of] some length " * 10])
    printed = capsys.readouterr().out
    assert all(text in printed for text in ("a title", "MB/s", "one [core]", "1.0 (0.9–1.1)", "a note [of] some length " * 10))


def test_the_json_line_is_one_line_on_the_screen_and_in_the_file(tmp_path, capsys):
    record = {"name": "straße\n", "values": [1.5, None]}
    write_json_line(record, tmp_path / "new" / "a.json")
    assert (tmp_path / "new" / "a.json").read_text(encoding="utf-8") == capsys.readouterr().out
    assert [json.loads(line) for line in (tmp_path / "new" / "a.json").read_text(encoding="utf-8").splitlines()] == [record]
    with pytest.raises(ValueError, match="JSON"):
        write_json_line({"value": float("nan")}, tmp_path / "nan.json")
    assert not (tmp_path / "nan.json").exists()
