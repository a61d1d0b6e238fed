"""Sweeps of a stand-in for a run: real processes, real kills, the scheduler and the folder it leaves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import psutil
import pytest

from bort.errors import BortError
from bort.training.finetuning_result import read_result
from bort.training.grid import Point, grid_points
from bort.training.lock import only_process
from bort.training.sweep import best_run, remember_sweep, run_sweep
from bort.training.sweep_folder import read_runs
from bort.training.sweep_processes import LocalWorkers, last_line
from tests.training.sweep_of_stand_ins import command_of

PROGRAM = Path(__file__).with_name("sweep_of_stand_ins.py")


def sweep(output, seeds, jobs=2, seconds=0.0, kinds=None, **options):
    return run_sweep(grid_points({}, seeds), command_of(seconds, kinds), output, LocalWorkers(jobs), **options)


def start(output, jobs, seconds, seeds, kind="finish", **popen):
    words = [str(PROGRAM), str(output), str(jobs), str(seconds), seeds, kind]
    # A shell starts what goes to the background with SIGINT ignored, and these tests would inherit that.
    listens = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, *words], preexec_fn=listens, **pipes, **popen)


def wait_for(happens, seconds=30.0):
    end = time.monotonic() + seconds
    while not happens():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.01)


def running(output):
    """Processes whose command line has a run of this folder in it: programs and their guards."""
    return [
        process for process in psutil.process_iter(["cmdline"]) if any(f"{output}/runs" in word for word in process.info["cmdline"] or ())
    ]


def results(output):
    return {path.parent.name: read_result(path.parent).score for path in output.glob("runs/*/result.json")}


def started(output):
    return [line.split()[0] for line in (output / "started.txt").read_text().splitlines()]


def test_every_run_is_done_once_and_the_results_do_not_depend_on_jobs(tmp_path):
    for jobs in (1, 2):
        assert sweep(tmp_path / str(jobs), [0, 1, 2], jobs) == {}
        assert sorted(started(tmp_path / str(jobs))) == ["seed=0", "seed=1", "seed=2"]
    one, two = results(tmp_path / "1"), results(tmp_path / "2")
    assert one == two
    assert one == {f"seed={seed}": (seed * 37 % 10) / 20 for seed in range(3)}


def test_as_many_run_at_once_as_there_are_jobs(tmp_path):
    assert sweep(tmp_path, range(4), jobs=3, kinds={f"seed={seed}": "meet_3" for seed in range(4)}) == {}
    begins = [float(line.split()[2]) for line in (tmp_path / "started.txt").read_text().splitlines()]
    ends = [float(path.read_text()) for path in tmp_path.glob("runs/*/finished")]
    at_once = [sum(b <= moment for b in begins) - sum(e < moment for e in ends) for moment in begins]
    assert max(at_once) == 3


def test_cores_are_shared_out_unless_the_user_has_done_so(tmp_path, monkeypatch):
    cores = len(os.sched_getaffinity(0))
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    sweep(tmp_path / "shared", [0], jobs=1)
    assert f"threads {cores} " in (tmp_path / "shared/runs/seed=0/log.txt").read_text()
    sweep(tmp_path / "more", [0], jobs=2 * cores)
    assert "threads 1 " in (tmp_path / "more/runs/seed=0/log.txt").read_text()
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    sweep(tmp_path / "chosen", [0], jobs=1)
    assert "threads 7 " in (tmp_path / "chosen/runs/seed=0/log.txt").read_text()


def test_each_place_has_a_gpu(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,GPU-7")
    workers = LocalWorkers(use_gpu=True)
    assert workers.at_once == 2
    assert run_sweep(grid_points({}, [0, 1]), command_of(0.0), tmp_path, workers) == {}
    logs = [path.read_text().split("gpu ")[1].strip() for path in tmp_path.glob("runs/*/log.txt")]
    assert sorted(logs) == ["4", "GPU-7"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    with pytest.raises(BortError, match="no GPU here"):
        LocalWorkers(use_gpu=True)
    with pytest.raises(BortError, match="--jobs must be at least 1, got 0"):
        LocalWorkers(0)


def test_a_failing_run_says_why_and_does_not_stop_the_others(tmp_path, capsys):
    failed = sweep(tmp_path, [0, 1, 2], kinds={"seed=0": "fail", "seed=1": "crash"})
    assert failed["seed=0"] == "bort: error: the loss is not finite"
    assert failed["seed=1"].startswith("ended by SIGABRT, after: threads ")
    assert results(tmp_path).keys() == {"seed=2"}
    assert "seed=0  failed: bort: error: the loss is not finite" in capsys.readouterr().out
    # Once that is fixed, the same sweep runs what is missing, and only that.
    assert sweep(tmp_path, [0, 1, 2]) == {}
    assert sorted(started(tmp_path)) == ["seed=0", "seed=0", "seed=1", "seed=1", "seed=2"]
    assert results(tmp_path).keys() == {"seed=0", "seed=1", "seed=2"}


def test_a_program_without_a_result_has_failed(tmp_path):
    failed = run_sweep(grid_points({}, [0]), lambda point, folder: ["-c", "pass"], tmp_path, LocalWorkers(1))
    assert failed == {"seed=0": "exit status 0 and no result.json"}


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_an_ended_sweep_leaves_no_process_and_resumes_where_it_was(tmp_path, number):
    process = start(tmp_path, 2, 5.0, "0,1,2", "grandchild")
    wait_for(lambda: len(list(tmp_path.glob("runs/*/checkpoint"))) == 2 and len(list(tmp_path.glob("runs/*/grandchild"))) == 2)
    grandchildren = [psutil.Process(int(path.read_text())) for path in tmp_path.glob("runs/*/grandchild")]
    process.send_signal(number)
    process.communicate(timeout=30)
    wait_for(lambda: not running(tmp_path) and not any(each.is_running() for each in grandchildren), 15)
    assert results(tmp_path) == {}
    steps = {path.parent.name: int(path.read_text()) for path in tmp_path.glob("runs/*/checkpoint")}
    assert len(steps) == 2
    assert all(0 < done < 10 for done in steps.values())
    assert sweep(tmp_path, [0, 1, 2]) == {}
    assert results(tmp_path) == {f"seed={seed}": (seed * 37 % 10) / 20 for seed in range(3)}
    began = {line.split()[0]: int(line.split()[1]) for line in (tmp_path / "started.txt").read_text().splitlines()}
    assert began == {"seed=2": 0} | steps


def test_killed_again_and_again_a_sweep_still_ends_with_every_result(tmp_path):
    for already in (1, 3):
        process = start(tmp_path, 2, 0.4, "0,1,2,3")
        wait_for(lambda already=already: (tmp_path / "started.txt").exists() and len(started(tmp_path)) >= already)
        process.kill()
        process.communicate()
    # At once, while what was killed may still be on its way out.
    process = start(tmp_path, 2, 0.1, "0,1,2,3")
    printed, errors = process.communicate(timeout=60)
    assert json.loads(printed.splitlines()[-1]) == {}, errors
    assert results(tmp_path) == {f"seed={seed}": (seed * 37 % 10) / 20 for seed in range(4)}
    assert len(started(tmp_path)) > 4
    assert not running(tmp_path)


def test_a_program_does_not_outlive_its_guard(tmp_path):
    process = start(tmp_path, 1, 30.0, "0")
    wait_for(lambda: (tmp_path / "runs/seed=0/checkpoint").exists())
    program = psutil.Process(int((tmp_path / "runs/seed=0/pid").read_text()))
    program.parent().kill()
    printed, _ = process.communicate(timeout=15)
    assert json.loads(printed.splitlines()[-1])["seed=0"].startswith("ended by SIGKILL, after: threads ")
    # Whoever inherits it may take a while to notice that it has ended.
    wait_for(lambda: not program.is_running() or program.status() == psutil.STATUS_ZOMBIE, 10)


def test_only_one_sweep_works_on_a_folder(tmp_path):
    process = start(tmp_path, 1, 5.0, "0")
    wait_for(lambda: (tmp_path / "started.txt").exists())
    with pytest.raises(BortError, match="another sweep is at work there"), only_process(tmp_path, "sweep"):
        pass
    process.kill()
    process.communicate()
    with only_process(tmp_path, "sweep"):
        pass


def test_more_seeds_and_values_may_come_and_other_options_are_refused(tmp_path):
    tmp_path = tmp_path / "sweep"
    options = {"task": "RTE", "epochs": 3}
    first = grid_points({"lr": [0.1]}, [0, 1])
    assert remember_sweep(tmp_path, options, first) == (first, first)
    assert remember_sweep(tmp_path, options, first) == (first, first)
    # A value that stands alone is not named, and what has run under such a name is found by it when there are more values.
    asked, known = remember_sweep(tmp_path, options, grid_points({"lr": [0.2, 0.1]}, [1, 2]))
    assert [point.name for point in asked] == ["lr=0.2,seed=1", "lr=0.2,seed=2", "seed=1", "seed=2"]
    names = [point.name for point in known]
    assert names == ["seed=0", "seed=1", "lr=0.2,seed=1", "lr=0.2,seed=2", "seed=2"]
    asked, known = remember_sweep(tmp_path, options, first)
    assert (asked, [point.name for point in known]) == (first, names)
    (tmp_path / "runs/seed=0/checkpoint_0000001").mkdir(parents=True)
    before = (tmp_path / "sweep.json").read_text()
    for wrong, message in (
        (options | {"epochs": 4}, "the sweep there has epochs 3, this one 4; give the same options, or another --output_dir"),
        ({"task": "RTE"}, "the sweep there has epochs 3, this one its default"),
        (options | {"max_len": 64}, "the sweep there has max_len its default, this one 64"),
    ):
        with pytest.raises(BortError, match=message):
            remember_sweep(tmp_path, wrong, first)
    with pytest.raises(BortError, match="the sweep there varies lr, seed, this one batch_size, lr, seed"):
        remember_sweep(tmp_path, options, grid_points({"lr": [0.1], "batch_size": [8]}, [0]))
    assert (tmp_path / "sweep.json").read_text() == before
    described = {"options": {}, "fixed": {}, "points": [{"seed": 0}]}
    wrong = [described | more for more in ({"fixed": {"../x": 1}}, {"fixed": []}, {"points": []}, {"points": [{"../x": 1, "seed": 0}]})]
    wrong += [{name: value for name, value in described.items() if name != left_out} for left_out in described]
    for text in ("{", "[]", *map(json.dumps, wrong)):
        (tmp_path / "sweep.json").write_text(text)
        with pytest.raises(BortError, match=r"sweep\.json: not the description of a sweep"):
            remember_sweep(tmp_path, options, first)


@pytest.mark.parametrize("work", ["result.json", "checkpoint_0000001"])
def test_a_sweep_that_came_to_nothing_may_become_another(work, tmp_path):
    wrong, right = {"task": "RTE", "model": "typo.json"}, {"task": "RTE", "model": "small.json"}
    remember_sweep(tmp_path, wrong, grid_points({"lr": [0.1, 0.2]}, [0]))
    (tmp_path / "runs/lr=0.1,seed=0").mkdir(parents=True)
    (tmp_path / "runs/lr=0.1,seed=0/log.txt").write_text("bort: error: no model typo.json\n")
    points = grid_points({}, [0, 1])
    assert remember_sweep(tmp_path, right, points) == (points, points)
    assert remember_sweep(tmp_path, right, points[:1]) == (points[:1], points)
    (tmp_path / "runs/seed=1" / work).mkdir(parents=True)
    with pytest.raises(BortError, match=r"the sweep there has model 'small\.json', this one 'typo\.json'"):
        remember_sweep(tmp_path, wrong, points)


def test_a_run_of_other_data_stops_the_sweep(tmp_path):
    sweep(tmp_path, [0])
    path = tmp_path / "runs/seed=0/result.json"
    path.write_text(path.read_text().replace('"lr": 0.0', '"rows": "other", "lr": 0.0'))
    with pytest.raises(BortError, match=r"runs/seed=1: made with rows None, but seed=0 with 'other'.*remove the one"):
        sweep(tmp_path, [1, 2, 3], jobs=1)
    # So it is found at the first run's end, and by the next sweep before anything is begun.
    assert sorted(started(tmp_path)) == ["seed=0", "seed=1"]
    with pytest.raises(BortError, match="runs/seed=1: made with rows None"):
        sweep(tmp_path, [2])
    assert sorted(started(tmp_path)) == ["seed=0", "seed=1"]


def test_a_run_whose_folder_cannot_be_made_fails_alone(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/seed=0").write_text("a file")
    assert sweep(tmp_path, [0, 1]) == {"seed=0": f"{tmp_path}/runs/seed=0: File exists"}
    assert results(tmp_path).keys() == {"seed=1"}
    (tmp_path / "runs/seed=2").mkdir()
    (tmp_path / "runs/seed=2/log.txt").mkdir()
    assert sweep(tmp_path, [2, 3]).keys() == {"seed=2"}
    assert results(tmp_path).keys() == {"seed=1", "seed=3"}


def test_what_a_kill_left_of_a_complete_run_is_removed(tmp_path):
    sweep(tmp_path, [0, 1])
    run = tmp_path / "runs/seed=0"

    def leave():
        for name in ("checkpoint_0000003", ".best.retired.partial", ".checkpoint_0000002.x.partial", "checkpoint_of_mine"):
            (run / name).mkdir(exist_ok=True)

    def left():
        return {path.name for path in run.iterdir() if path.name.startswith(("checkpoint_", ".best", ".check"))}

    leave()
    sweep(tmp_path, [0, 1], keep_checkpoints=True)
    assert left() == {"checkpoint_0000003", "checkpoint_of_mine"}
    leave()
    # One that is still at work, on its way out, cleans up itself.
    with only_process(run, "run"):
        process = start(tmp_path, 1, 0.0, "0")
        process.communicate(timeout=30)
    assert len(left()) == 4
    sweep(tmp_path, [0, 1])
    assert left() == {"checkpoint_of_mine"}
    # A run that is not complete needs them.
    (run / "result.json").unlink()
    leave()
    sweep(tmp_path, [0, 1], kinds={"seed=0": "fail"})
    assert len(left()) == 4


def test_one_model_is_kept_that_of_the_best_run(tmp_path):
    seeds = [0, 1, 2, 4]
    sweep(tmp_path / "best", seeds[:3])
    # Scores are 0, 0.35, 0.2, 0.4 for these seeds.
    assert [path.parent.name for path in (tmp_path / "best").glob("runs/*/best")] == ["seed=1"]
    sweep(tmp_path / "best", seeds)
    assert [path.parent.name for path in (tmp_path / "best").glob("runs/*/best")] == ["seed=4"]
    assert best_run(tmp_path / "best", read_runs(tmp_path / "best", ["seed"])) == tmp_path / "best/runs/seed=4"
    assert len(list((tmp_path / "best").glob("runs/*/predictions"))) == 4
    sweep(tmp_path / "all", seeds[:2], keep_models="all")
    assert len(list((tmp_path / "all").glob("runs/*/best"))) == 2
    assert best_run(tmp_path, {}) is None


def test_a_failed_run_keeps_what_it_needs_to_resume(tmp_path):
    (tmp_path / "runs/seed=0/best").mkdir(parents=True)
    assert sweep(tmp_path, [0, 1], kinds={"seed=0": "fail"}).keys() == {"seed=0"}
    assert {path.parent.name for path in tmp_path.glob("runs/*/best")} == {"seed=0", "seed=1"}


def test_a_damaged_result_is_named(tmp_path):
    sweep(tmp_path, [0])
    path = tmp_path / "runs/seed=0/result.json"
    for text in (
        "{",
        path.read_text().replace('"score": 0.0', '"score": "high"'),
        path.read_text().replace('"score": 0.0', '"score": NaN'),
    ):
        path.write_text(text)
        with pytest.raises(BortError, match=r"seed=0/result\.json"):
            sweep(tmp_path, [0, 1])


def test_the_last_line_is_the_last_that_says_something(tmp_path):
    log = tmp_path / "log.txt"
    log.write_bytes(b"before\n" + b"x" * 200_000 + b"\nstep 1\rstep 2\nbort: error: \xff here\n\n  \n")
    assert last_line(log, 0) == "bort: error: � here"
    assert last_line(log, log.stat().st_size) == ""
    assert last_line(tmp_path / "nowhere", 0) == ""


def test_a_point_runs_in_the_folder_of_its_name(tmp_path):
    point = Point({"lr": 1e-3, "seed": 1})
    assert run_sweep([point], command_of(0.0), tmp_path, LocalWorkers(1)) == {}
    assert results(tmp_path) == {"lr=1e-3,seed=1": pytest.approx(0.45)}
