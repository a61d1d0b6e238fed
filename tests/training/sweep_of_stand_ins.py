"""A sweep of stand_in_run.py as a program: OUTPUT JOBS SECONDS SEEDS KIND [RAY]; prints what failed."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from bort.training.grid import grid_points
from bort.training.lock import only_process
from bort.training.sweep import remember_sweep, run_sweep
from bort.training.sweep_processes import LocalWorkers

STAND_IN = Path(__file__).with_name("stand_in_run.py")


def command_of(seconds, kinds=None):
    """The stand-in's command; ``kinds`` by the name of a point, ``finish`` for the others."""

    def command(point, folder):
        kind = (kinds or {}).get(point.name, "finish")
        return [str(STAND_IN), *map(str, (folder, point.seed, point.values.get("lr", 0.0), seconds, kind))]

    return command


def main(output: str, jobs: str, seconds: str, seeds: str, kind: str, *ray: str) -> None:
    points = grid_points({}, [int(seed) for seed in seeds.split(",")])
    if ray:
        from bort.training.sweep_ray import RayWorkers

        workers = RayWorkers(ray[0], int(jobs))
    else:
        workers = LocalWorkers(int(jobs))
    with only_process(Path(output), "sweep"):
        remember_sweep(Path(output), {"task": "RTE"}, points)
        kinds = {point.name: kind for point in points}
        print(json.dumps(run_sweep(points, command_of(float(seconds), kinds), Path(output), workers)))


if __name__ == "__main__":
    main(*sys.argv[1:])
