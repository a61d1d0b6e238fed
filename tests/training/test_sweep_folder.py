"""What is read back from a sweep's folder: runs that belong together, and nothing else."""

from __future__ import annotations

import pytest

from bort.errors import BortError
from bort.training.grid import grid_points
from bort.training.sweep_folder import read_runs
from bort.training.sweep_report import write_report

from .results import write_result


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
