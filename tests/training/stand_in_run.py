"""A small program in the place of a fine-tuning run: it takes its time, leaves a checkpoint of sorts, and writes result.json last.

Arguments: the run's folder, the seed, the learning rate, seconds, and what it shall do: finish, fail, crash, leave a grandchild behind, or
finish no earlier than N runs have started (meet_N).
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from bort.files import write_text
from bort.training.finetuning_result import FinetuningResult


def main(run: Path, seed: int, lr: float, seconds: float, kind: str) -> None:
    steps = run / "checkpoint"
    done = int(steps.read_text()) if steps.exists() else 0
    with (run.parent.parent / "started.txt").open("a") as started:
        started.write(f"{run.name} {done} {time.time()}\n")
    (run / "pid").write_text(str(os.getpid()))
    if kind.startswith("meet_"):
        meet(run.parent.parent / "started.txt", int(kind.removeprefix("meet_")))
    print(f"threads {os.environ.get('OMP_NUM_THREADS')} gpu {os.environ.get('CUDA_VISIBLE_DEVICES')}", flush=True)
    if kind == "grandchild":
        grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        write_text(run / "grandchild", str(grandchild.pid))
    for step in range(done, 10):
        time.sleep(seconds / 10)
        write_text(steps, str(step + 1))
    if kind == "fail":
        print("bort: error: the loss is not finite\n", file=sys.stderr)
        raise SystemExit(2)
    if kind == "crash":
        os.abort()
    (run / "best").mkdir(exist_ok=True)
    (run / "best" / "bort.params").write_bytes(b"weights")
    (run / "predictions").mkdir(exist_ok=True)
    score = (seed * 37 % 10) / 20 + lr * 100
    dev, majority = {"dev": {"accuracy": score}}, {"dev": {"accuracy": 0.25}}
    FinetuningResult("RTE", score, 1, 1, 10, dev, majority, {"seed": seed, "lr": lr}, 5, 7, seconds, (), {}).write(run)
    (run / "finished").write_text(str(time.time()))


def meet(started: Path, count: int) -> None:
    """Wait until so many runs have started."""
    end = time.monotonic() + 60.0
    while len(started.read_text().splitlines()) < count:
        if time.monotonic() > end:
            raise SystemExit(f"fewer than {count} runs started")
        time.sleep(0.01)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), float(sys.argv[4]), sys.argv[5])
