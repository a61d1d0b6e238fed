"""Whole runs of the training commands, in processes of their own: started on one worker or several, killed at a moment, and compared."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bort.training.journal import read_metrics

REPOSITORY = Path(__file__).resolve().parent.parent
# What a clock or the operating system says.
_MEASURED = {"rows_per_second", "tokens_per_second", "waiting", "seconds", "memory_mb"}


def module_on(workers: int, *words: object) -> list[str]:
    """The command line of a Python module, its name the first word, on so many Horovod workers; run it with ``one_thread``.

    Two launchers at once would spoil each other's cache of host checks in the home folder, and by default a worker waits half a minute for
    the other to start, which is little where many tests run.
    """
    launcher = ["horovodrun", "--disable-cache", "--gloo-timeout-seconds", "240", "--gloo", "-np", str(workers)] if workers > 1 else []
    return [*launcher, sys.executable, "-m", *map(str, words)]


def bort_on(workers: int, *words: object) -> list[str]:
    """The command line of ``bort`` with these words on so many Horovod workers."""
    return module_on(workers, "bort", *words)


# Before a command that is to be killed: of two that want the processor, the one that waits for the moment gets it.
GIVING_WAY = ("nice", "-n", "10")


def one_thread(**variables: str) -> dict[str, str]:
    """The environment of a worker that has one core, with horovodrun on its path."""
    return os.environ | {"OMP_NUM_THREADS": "1", "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"} | variables


def assert_only_worker_0_printed(printed: str) -> None:
    """horovodrun says before each line which worker printed it."""
    assert {line.split(":", 1)[0] for line in printed.splitlines() if line} == {"[0]<stdout>"}, printed


def steps_recorded(run: Path) -> int:
    """Updates that the journal of a run at work tells of."""
    try:
        return int(json.loads((run / "metrics.jsonl").read_text().split("\n")[-2])["step"])
    except (OSError, IndexError):
        return 0


def journal(run: Path) -> list[dict[str, Any]]:
    """All of the journal that no clock measured."""
    return [{name: value for name, value in entry.items() if name not in _MEASURED} for entry in read_metrics(run)]


def assert_same_files(run: Path, expected: Path, *folders: str) -> None:
    """Every byte in these folders but for the cards, which say how long a run took."""
    for folder in folders:
        files = {path.name for path in (expected / folder).iterdir()}
        assert {path.name for path in (run / folder).iterdir()} == files
        for file in files - {"README.md"}:
            assert (run / folder / file).read_bytes() == (expected / folder / file).read_bytes(), f"{folder}/{file}"


def assert_same_finetuning(run: Path, expected: Path) -> None:
    """Two complete runs left the same classifier, predictions, picture of the errors, journal and result, but for what a clock measured."""
    assert {path.name for path in run.iterdir()} == {path.name for path in expected.iterdir()}
    assert_same_files(run, expected, "best", "predictions")
    for picture in {"confusion_matrix.png", "scores.png"} & {path.name for path in expected.iterdir()}:
        assert (run / picture).read_bytes() == (expected / picture).read_bytes(), picture
    assert journal(run) == journal(expected)
    results = [json.loads((folder / "result.json").read_text()) | {"seconds": 0} for folder in (run, expected)]
    assert results[0] == results[1]


def killed_when(process: subprocess.Popen[str], has_come: Callable[[], bool], pause: float = 0.0) -> bool:
    """Kill -9 a process at a moment, at the latest ``pause`` seconds after it; whether the moment was caught.

    The process is stopped first and looked at again, since what is half-written may be whole, and a fast run over, before anyone looks;
    then it runs on to the next such moment, or to its end.
    """
    while process.poll() is None:
        if has_come():
            time.sleep(pause)
            process.send_signal(signal.SIGSTOP)
            # Whether it has stopped or ended; the end is left for Popen to see.
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if process.poll() is None and has_come():
                process.kill()
                process.communicate(timeout=60)
                return True
            process.send_signal(signal.SIGCONT)
        time.sleep(0.0005)
    process.communicate(timeout=60)
    return False
