"""Windows of time, and the plan on one line."""

from __future__ import annotations

from bort.training import progress
from bort.training.progress import Clock, plan_line


def test_a_window_begins_at_a_restart_and_a_run_before_its_interruption(monkeypatch):
    now = [5.0]
    monkeypatch.setattr(progress.time, "perf_counter", lambda: now[0])
    clock = Clock(before=100.0)
    assert (clock.window(), clock.run()) == (0.0, 100.0)
    now[0] = 7.0
    assert (clock.window(), clock.run()) == (2.0, 102.0)
    clock.restart()
    now[0] = 8.0
    assert (clock.window(), clock.run()) == (1.0, 103.0)


def test_a_plan_says_what_an_update_is_made_of_and_where_it_resumes():
    line = plan_line("12 updates = 1.5 epochs", 8, 2, 1, "rows", 0.125, 0)
    assert line == "run: 12 updates = 1.5 epochs, each of 16 rows (1 worker × 2 × 8), 12.5% padding"
    line = plan_line("12 updates = 1.5 epochs", 8, 2, 3, "sequences", 0.0, 4)
    assert line == "run: 12 updates = 1.5 epochs, each of 48 sequences (3 workers × 2 × 8), 0.0% padding, resumed from step 4"
