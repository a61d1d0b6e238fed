"""How long each of several models takes for the same rows, while the machine is the same for all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

from bort.export.int8_rows import Inputs
from bort.export.runtimes import Session

_ROWS_A_TURN, _TIMED_RUNS = 8, 3
# ONNX Runtime's threads go on for 20 ms of a core after a run, looking for more work, at the cost of whoever comes next.
_PAUSE = 0.1


def median_latencies(sessions: Sequence[Session], rows: Sequence[Inputs]) -> list[float]:
    """Median milliseconds of a run of each session, over all rows.

    The sessions take turns of a few rows each, every time beginning with another one, so that what slows the machine down slows all of
    them. The first run of a row is not timed: it prepares for the row's length, and fetches the weights back into the caches.
    """
    seconds: list[list[float]] = [[] for _ in sessions]
    for start in range(0, len(rows), _ROWS_A_TURN):
        for turn in range(len(sessions)):
            place = (start // _ROWS_A_TURN + turn) % len(sessions)
            time.sleep(_PAUSE)
            for row in rows[start : start + _ROWS_A_TURN]:
                sessions[place].run(row)
                for _ in range(_TIMED_RUNS):
                    before = time.perf_counter()
                    sessions[place].run(row)
                    seconds[place].append(time.perf_counter() - before)
    return [1000.0 * statistics.median(samples) for samples in seconds]
