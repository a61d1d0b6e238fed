"""What a run leaves for people to look at: a progress bar, ``metrics.jsonl``, TensorBoard events and ``curves.png``.

Notable: workers other than the first get a journal that does nothing, so no loop ever asks whether to log. ``metrics.jsonl`` is the source:
one line per entry, flushed at once; curves and tables are made from it. A resumed run drops the lines beyond the step it resumes from.
The curves are drawn again at evaluations, at most once a minute, and at the end.
"""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Mapping
from contextlib import nullcontext, suppress
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from bort.errors import BortError
from bort.files import write_text
from bort.training.pictures import picture

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

METRICS_FILE, CURVES_FILE = "metrics.jsonl", "curves.png"
_SECONDS_BETWEEN_DRAWINGS = 60.0


class Journal:
    """The record of one run.

    Args:
        run: its folder; None records nothing.
        num_steps: length of the progress bar.
        first_step: updates already done.
        description: shown before the bar.
    """

    def __init__(self, run: Path | None, num_steps: int, first_step: int = 0, description: str = "") -> None:
        self._run = run
        self._bar = tqdm(total=num_steps, initial=first_step, desc=description, unit="step", disable=None if run else True, leave=False)
        if run is None:
            return
        run.mkdir(parents=True, exist_ok=True)
        kept = [entry for entry in read_metrics(run) if entry["step"] <= first_step] if first_step else []
        write_text(run / METRICS_FILE, "".join(json.dumps(entry) + "\n" for entry in kept))
        self._lines = (run / METRICS_FILE).open("a", encoding="utf-8")
        self._events = _event_writer(run / "tensorboard", first_step + 1)
        self._drawn = monotonic()

    def advance(self) -> None:
        """Count one update on the bar."""
        self._bar.update()

    def note(self, text: str) -> None:
        """Print a line above the bar, and also where there is no terminal and so no bar; when nobody reads any more, it is dropped."""
        if self._run is None:
            return
        try:
            self._bar.write(text)
            sys.stdout.flush()
        except BrokenPipeError:
            # The reader has gone, as behind ``| head``: no reason to stop. Nothing that is printed later may fail again.
            with open(os.devnull, "w") as nowhere:
                os.dup2(nowhere.fileno(), sys.stdout.fileno())

    def record(self, step: int, kind: str, values: Mapping[str, float]) -> None:
        """Add an entry; an evaluation is also printed.

        Args:
            step: updates done so far.
            kind: ``train`` or ``eval``; the curves of a kind are drawn together.
            values: quantities by name; one that is not finite is written as null.
        """
        if self._run is None:
            return
        entry = {"step": step, "kind": kind} | {name: value if math.isfinite(value) else None for name, value in values.items()}
        self._lines.write(json.dumps(entry) + "\n")
        self._lines.flush()
        for name, value in values.items():
            self._events.add_scalar(f"{kind}/{name}", value, step)
        shown = {name: f"{value:.4g}" for name, value in values.items()}
        if kind == "eval":
            self.note(f"step {step}/{self._bar.total}  " + "  ".join(f"{name} {value}" for name, value in shown.items()))
            if monotonic() - self._drawn >= _SECONDS_BETWEEN_DRAWINGS:
                draw_curves(self._run)
                self._drawn = monotonic()
        else:
            self._bar.set_postfix(dict(list(shown.items())[:3]), refresh=False)

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._bar.close()
        if self._run is None:
            return
        # On a full disk each of these fails too, and would hide the error that says what to do.
        for finish in (self._lines.close, self._events.close, lambda: draw_curves(self._run)):
            with suppress(OSError) if error is not None else nullcontext():
                finish()


def _event_writer(folder: Path, first_step: int) -> SummaryWriter:
    """Writes TensorBoard's events from ``first_step`` on, without PyTorch.

    tensorboardX imports PyTorch where it finds it, for tensors that it never gets here; that takes seconds, and beside MXNet and Horovod in
    one process it crashes.
    """
    hides = "torch" not in sys.modules
    if hides:
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tensorboardX import SummaryWriter

        return SummaryWriter(logdir=str(folder), purge_step=first_step)
    finally:
        if hides:
            del sys.modules["torch"]


def read_metrics(run: Path) -> list[dict[str, Any]]:
    """Entries of a run's ``metrics.jsonl``, in order; a last line cut off by a kill is left out.

    Raises:
        BortError: if another line is damaged.
    """
    path = run / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8").split("\n")
    entries = []
    # What follows the last line feed is either empty or a line that was being written.
    for number, line in enumerate(lines[:-1], 1):
        try:
            entries.append(json.loads(line))
        except ValueError:
            raise BortError(
                f"{path}, line {number}: not a JSON object; the file is damaged, remove it to resume without its past"
            ) from None
    return entries


def draw_curves(run: Path) -> None:
    """Draw every quantity of ``metrics.jsonl`` against the step into ``curves.png``, training and evaluation in one panel."""
    entries = read_metrics(run)
    quantities = sorted({name for entry in entries for name, value in entry.items() if name not in ("step", "kind") and value is not None})
    if not quantities:
        return
    columns = min(3, len(quantities))
    rows = -(-len(quantities) // columns)
    width, height = 4.5 * columns, 3.0 * rows
    with picture(run / CURVES_FILE, width, height) as figure:
        # Margins of fixed inches: to find out how much room the labels need takes as long as all the rest.
        figure.set_layout_engine("none")
        left, right, below, above = 0.75 / width, 1.0 - 0.15 / width, 0.5 / height, 1.0 - 0.35 / height
        grid = figure.add_gridspec(rows, columns, left=left, right=right, bottom=below, top=above, wspace=0.9 / 3.6, hspace=0.85 / 2.15)
        for index, name in enumerate(quantities):
            axes = figure.add_subplot(grid[index // columns, index % columns])
            for kind in ("train", "eval"):
                points = [(entry["step"], entry[name]) for entry in entries if entry["kind"] == kind and entry.get(name) is not None]
                if points:
                    axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=kind)
            axes.set_title(name)
            axes.set_xlabel("step")
            axes.legend()
