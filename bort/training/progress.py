"""What the loops of pre-training and of fine-tuning say of their progress in the same way: plan, speed and memory."""

from __future__ import annotations

import resource
import time


class Clock:
    """Seconds of the whole run, and of the window since the last :meth:`restart`.

    A loop restarts it after everything that is not training: an entry of the journal, an evaluation, a checkpoint.

    Args:
        before: seconds that the run took before it was interrupted.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._window = time.perf_counter()
        self._run = self._window - before

    def restart(self) -> None:
        """Begin a new window."""
        self._window = time.perf_counter()

    def window(self) -> float:
        """Seconds since the last restart."""
        return time.perf_counter() - self._window

    def run(self) -> float:
        """Seconds of the whole run so far, those before an interruption included."""
        return time.perf_counter() - self._run


def peak_memory_mb() -> float:
    """Peak resident memory of this process in 2**20 bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def plan_line(what: str, batch_size: int, accumulate: int, world_size: int, unit: str, padding: float, first_step: int) -> str:
    """What a run will do, on one line.

    Args:
        what: the number of updates, how many epochs these are, and whatever is to be said before.
        batch_size: sequences or rows per micro-batch of one worker.
        accumulate: micro-batches per update of one worker.
        world_size: workers.
        unit: what the size of an update counts.
        padding: share of padded positions.
        first_step: updates done before, by a run that is resumed.
    """
    workers = f"{world_size} worker{'s' if world_size > 1 else ''} × {accumulate} × {batch_size}"
    resumed = f", resumed from step {first_step}" if first_step else ""
    return f"run: {what}, each of {batch_size * accumulate * world_size} {unit} ({workers}), {padding:.1%} padding{resumed}"
