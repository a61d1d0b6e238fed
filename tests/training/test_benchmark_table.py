"""Tables of dev scores: what is averaged differs in the seed alone, and of a sweep the best setting is taken and named."""

from __future__ import annotations

import pytest

from bort.errors import BortError
from bort.training.benchmark_table import averages, find_runs, summarise
from bort.training.grid import grid_points
from bort.training.sweep import remember_sweep

from .results import write_result

SCORES = {("1e-3", 0): 0.5, ("1e-3", 1): 0.75, ("1e-4", 0): 0.875, ("1e-4", 1): 0.25, ("1e-5", 0): 1.0}


@pytest.fixture
def sweep(tmp_path):
    """Folder of a sweep of three learning rates, of which the one that looks best lacks a run."""
    folder = tmp_path / "runs/sweep"
    points = grid_points({"lr": [1e-3, 1e-4, 1e-5]}, [0, 1])
    remember_sweep(folder, {"task": "RTE"}, points)
    for (lr, seed), score in SCORES.items():
        write_result(folder / f"runs/lr={lr},seed={seed}", score, seed, lr=float(lr))
    return folder


def test_of_a_sweep_the_runs_of_the_best_setting_are_taken_and_it_is_said(sweep, tmp_path):
    write_result(tmp_path / "runs/cola", 0.5, 0, "CoLA")
    for folders in ([tmp_path / "runs"], [sweep, tmp_path / "runs", sweep]):
        runs, notes = find_runs(folders)
        assert sorted(run.name for run in runs) == ["cola", "lr=1e-3,seed=0", "lr=1e-3,seed=1"]
        assert notes == [
            f"RTE: of 3 settings in {sweep}, the best alone: lr=1e-3, chosen by these dev scores, so they look better than they are"
        ]
        assert [(row.task, row.runs, row.score) for row in summarise(runs)] == [("CoLA", 1, 0.5), ("RTE", 2, 0.625)]


def test_of_a_sweep_over_seeds_there_is_nothing_to_choose(tmp_path):
    points = grid_points({}, [0, 1])
    remember_sweep(tmp_path, {"task": "RTE"}, points)
    write_result(tmp_path / "runs/seed=0", 0.5, 0)
    runs, notes = find_runs([tmp_path])
    assert ([run.name for run in runs], notes) == (["seed=0"], [])


def test_a_sweep_without_a_complete_run_counts_for_nothing(tmp_path):
    remember_sweep(tmp_path, {"task": "RTE"}, grid_points({}, [0]))
    with pytest.raises(BortError, match=r"no result\.json in "):
        find_runs([tmp_path])


def test_runs_that_differ_in_more_than_the_seed_are_not_averaged(sweep, tmp_path):
    # The folder in the sweep's does not say that it is a sweep's.
    with pytest.raises(BortError, match=r"lr=1e-4,seed=0: made with lr 0\.0001, but .*lr=1e-3,seed=0 with 0\.001, so .*whole sweep"):
        summarise(find_runs([sweep / "runs"])[0])
    alike = {"one": {"batch_size": 8, "accumulate": 2}, "two": {"batch_size": 16, "accumulate": 1}}
    for seed, (name, division) in enumerate(alike.items()):
        write_result(tmp_path / "divided" / name, seed / 2, seed, global_batch=16, **division)
    assert [(row.runs, row.score) for row in summarise(find_runs([tmp_path / "divided"])[0])] == [(2, 0.25)]
    write_result(tmp_path / "divided/three", 0.5, 3, global_batch=32, batch_size=16, accumulate=2)
    with pytest.raises(BortError, match=r"made with global_batch (16|32), but .* with (16|32), so they cannot be averaged; leave one"):
        summarise(find_runs([tmp_path / "divided"])[0])


def test_a_benchmark_has_an_average_only_when_it_is_complete(tmp_path):
    write_result(tmp_path / "race", 0.5, 0, "RACE")
    write_result(tmp_path / "rte", 0.5, 0, "RTE")
    found = averages(summarise(find_runs([tmp_path])[0]))
    assert found["RACE"] == 0.5
    assert str(found["GLUE"]).startswith("no average of GLUE without CoLA")
    assert "SuperGLUE" not in found
