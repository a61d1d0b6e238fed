"""Reports of sweeps: their numbers against the statistics module, what may not be claimed, and files that hold together."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import bort.training.sweep_report
from bort.training.grid import grid_points
from bort.training.sweep import remember_sweep
from bort.training.sweep_report import Report, Row, summarise_points, write_report

from .results import write_result

GRID = {"lr": [1e-3, 1e-4], "batch_size": [8, 16]}


@pytest.fixture
def sweep(tmp_path):
    """Writes a sweep of seeded random scores, without the runs whose names are given; returns points, scores by name, and the folder."""

    def sweep(seeds=(0, 1, 2, 3, 4), grid=GRID, without=()):
        points = grid_points(grid, seeds)
        chance = random.Random(7)
        scores = {point.name: chance.random() for point in points}
        remember_sweep(tmp_path, {"task": "RTE"}, points)
        for point in points:
            if point.name not in without:
                write_result(tmp_path / "runs" / point.name, scores[point.name], point.seed)
        return points, scores, tmp_path

    return sweep


def test_numbers_are_those_of_the_statistics_module(sweep):
    points, scores, folder = sweep()
    write_report(folder, "RTE", points, {})
    report = json.loads((folder / "report.json").read_text())
    assert len(report["settings"]) == report["settings_compared"] == 4
    for row in report["settings"]:
        mine = [scores[point.name] for point in points if point.setting == row["setting"]]
        assert len(mine) == row["n"] == row["wanted"] == 5
        assert sorted(row["scores"].values()) == sorted(mine)
        expected = (statistics.mean(mine), statistics.stdev(mine), statistics.median(mine), max(mine), min(mine), 0.5)
        assert [row[name] for name in ("mean", "sd", "median", "best", "worst", "majority")] == pytest.approx(expected)
    means = [row["mean"] for row in report["settings"]]
    assert means == sorted(means, reverse=True)
    assert report["best"] == report["settings"][0]
    assert report["failed"] == {}
    assert report["missing"] == []


def test_the_headline_is_a_mean_with_its_spread_and_says_how_many_were_compared(sweep):
    points, scores, folder = sweep()
    report = write_report(folder, "RTE", points, {})
    page = (folder / "report.md").read_text()
    best = report.rows[0]
    assert report.headline() in page
    assert report.headline().startswith(f"RTE: {best.mean:.4f} ± {best.sd:.4f} (mean and standard deviation of 5 runs) with {best.name}")
    assert "majority class gives 0.5000" in report.headline()
    assert "4 settings that were compared on the same dev rows" in report.headline()
    assert f"{max(scores.values()):.4f}" not in page.split("|")[0]
    assert (folder / "scores.png").read_bytes().startswith(b"\x89PNG")
    lines = [line for line in page.splitlines() if line.startswith("| `")]
    assert [line.split("`")[1] for line in lines] == [row.name for row in report.rows]


def test_one_run_has_no_standard_deviation(sweep):
    points, _, folder = sweep(seeds=(3,))
    report = write_report(folder, "RTE", points, {})
    assert all(row.sd is None for row in report.rows)
    assert "(one run, so no standard deviation)" in report.headline()
    page, numbers = (folder / "report.md").read_text(), (folder / "report.json").read_text()
    assert "nan" not in (page + numbers).casefold()
    assert all(row["sd"] is None for row in json.loads(numbers)["settings"])
    assert page.count("| – |") == 4


def test_failed_and_missing_runs_are_counted_and_a_lucky_rest_does_not_win(sweep):
    points, scores, folder = sweep()
    # All but the best run of the best setting are taken away: its mean would rise.
    lucky = max(points, key=lambda point: scores[point.name])
    rest = [point.name for point in points if point.setting == lucky.setting and point.seed != lucky.seed]
    for name in rest:
        (folder / "runs" / name / "result.json").unlink()
    report = write_report(folder, "RTE", points, {rest[0]: "bort: error: no | space"})
    assert report.rows[0].name == ",".join(lucky.name.split(",")[:-1])
    assert report.best is report.rows[1]
    page = (folder / "report.md").read_text()
    assert "16 of 20 runs complete, 1 failed, 3 missing" in page
    assert "fewer than 5 complete runs were not considered" in page
    assert "1 of 5" in page
    assert f"`{rest[0]}`: `bort: error: no | space`" in page
    assert report.missing == sorted(rest[1:], key=[point.name for point in points].index)


def test_a_sweep_without_any_result_says_so(sweep):
    points, _, folder = sweep(seeds=(0,), grid={}, without=("seed=0",))
    report = write_report(folder, "RTE", points, {"seed=0": "killed"})
    assert report.headline() == "No run is complete."
    assert not (folder / "scores.png").exists()
    assert json.loads((folder / "report.json").read_text())["best"] is None


def test_the_work_grows_with_the_number_of_points_and_not_with_its_square(tmp_path, monkeypatch):
    points = grid_points({"epochs": list(range(1, 301))}, [0, 1])
    calls = []
    name = bort.training.sweep_report.setting_name
    monkeypatch.setattr(bort.training.sweep_report, "setting_name", lambda setting: calls.append(setting) or name(setting))
    assert len(summarise_points(tmp_path, "RTE", points)) == 300
    assert len(calls) <= 2 * len(points)


def test_many_settings_make_a_picture_of_bearable_size(tmp_path):
    points = grid_points({"epochs": list(range(1, 151))}, [0])
    for point in points:
        write_result(tmp_path / "runs" / point.name, point.values["epochs"] / 1000, 0)
    write_report(tmp_path, "RTE", points, {})
    header = (tmp_path / "scores.png").read_bytes()[16:24]
    assert int.from_bytes(header[4:], "big") < 4000


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=8), st.randoms())
@settings(max_examples=50)
def test_a_row_does_not_depend_on_the_order_of_its_runs(values, chance):
    pairs = list(enumerate(values))
    one = Row("RTE", {}, dict(pairs), len(pairs), 0.5)
    chance.shuffle(pairs)
    other = Row("RTE", {}, dict(pairs), len(pairs), 0.5)
    assert one.numbers() == other.numbers()
    assert one.cells() == other.cells()
    assert min(values) - 1e-12 <= one.mean <= max(values) + 1e-12
    assert Report([one], {}, []).headline() == Report([other], {}, []).headline()
