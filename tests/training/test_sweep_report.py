"""Reports of sweeps: their numbers against the statistics module, what may not be claimed, and files that hold together."""

from __future__ import annotations

import json
import random
import statistics

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort.errors import BortError
from bort.training.finetuning_result import FinetuningResult
from bort.training.grid import grid_points
from bort.training.sweep import remember_sweep
from bort.training.sweep_report import Report, Row, read_runs, summarise, write_report

GRID = {"lr": [1e-3, 1e-4], "batch_size": [8, 16]}


def write_result(folder, score, seed, task="RTE", majority=0.5, **more):
    folder.mkdir(parents=True)
    dev = {"dev": {"accuracy": score}}
    result = FinetuningResult(task, score, 1, 2, 3, dev, {"dev": {"accuracy": majority}}, {"seed": seed, "epochs": 3} | more, 1, 1, 1.0, ())
    result.write(folder)


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
    by_setting = {point.setting["lr"]: [] for point in points}
    for point in points:
        by_setting[point.setting["lr"]].append(point)
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


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rows": "b", "model": {"layers": 1}}, "with rows 'b', but lr=1e-3,seed=0 with 'a'"),
        ({"rows": "a", "model": {"layers": 2}}, "with model.layers 2, but lr=1e-3,seed=0 with 1"),
        ({"rows": "a", "model": {"layers": 1}, "encoder": "x"}, "with encoder 'x', but lr=1e-3,seed=0 with None"),
        ({"rows": "a", "model": {"layers": 1}, "global_batch": 9}, "with global_batch 9, but"),
    ],
)
def test_runs_of_other_data_or_models_are_not_averaged(more, message, tmp_path):
    points = grid_points({"lr": [1e-3, 1e-4]}, [0, 1])
    for point in points[:3]:
        write_result(tmp_path / "runs" / point.name, 0.5, point.seed, rows="a", model={"layers": 1}, lr=point.values["lr"])
    assert len(read_runs(tmp_path, points[0].values)) == 3
    write_report(tmp_path, "RTE", points[:3], {})
    before = (tmp_path / "report.json").read_text()
    write_result(tmp_path / "runs" / points[3].name, 0.5, 1, lr=1e-4, **more)
    with pytest.raises(BortError, match=r"runs/lr=1e-4,seed=1: made .*cannot be averaged; remove the one that is out of date") as error:
        write_report(tmp_path, "RTE", points, {})
    assert message in str(error.value)
    assert "\n" not in str(error.value)
    assert (tmp_path / "report.json").read_text() == before


def test_what_follows_from_the_varied_settings_may_differ(tmp_path):
    for batch_size, epochs in ((8, 2), (16, 4)):
        more = {"batch_size": batch_size, "global_batch": batch_size, "epochs": epochs, "training_steps": 40}
        write_result(tmp_path / f"runs/batch_size={batch_size},seed=0", 0.5, 0, **more)
    assert len(read_runs(tmp_path, ["batch_size", "seed"])) == 2
    with pytest.raises(BortError, match="with batch_size 8, but batch_size=16,seed=0 with 16"):
        read_runs(tmp_path, ["seed"])


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


def test_summaries_of_sweeps_and_of_single_runs(sweep, tmp_path):
    points, scores, folder = sweep()
    for seed in range(3):
        for epochs in (5, 10):
            write_result(
                tmp_path / f"single/{epochs}-{seed}", epochs / 100 + seed / 1000, seed, "CoLA", majority=0.0, epochs=epochs, lr=1e-3
            )
    rows = summarise([folder, *sorted((tmp_path / "single").iterdir())])
    assert [row.task for row in rows] == ["CoLA"] * 2 + ["RTE"] * 4
    assert [(row.setting, row.scores, row.majority) for row in rows[:2]] == [
        ({"epochs": epochs}, {seed: pytest.approx(epochs / 100 + seed / 1000) for seed in range(3)}, 0.0) for epochs in (10, 5)
    ]
    assert {tuple(row.setting.values()): row.scores for row in rows[2:]} == {
        tuple(setting.values()): {point.seed: scores[point.name] for point in points if point.setting == setting}
        for setting in (point.setting for point in points)
    }
    with pytest.raises(BortError, match=r"nowhere/result\.json: cannot read"):
        summarise([tmp_path / "nowhere"])
    with pytest.raises(BortError, match="CoLA: two of the runs have the same settings and the same seed"):
        summarise([tmp_path / "single/5-0", tmp_path / "single/5-0"])
