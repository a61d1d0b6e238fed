"""The learning-rate schedule: warm-up, peak and decay in closed form."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bort import BortError
from bort.training.schedule import LinearSchedule


def test_ten_steps_by_hand():
    schedule = LinearSchedule(peak=1.0, num_steps=10, warmup_ratio=0.4)
    assert [schedule(step) for step in range(10)] == pytest.approx([0.25, 0.5, 0.75, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6])


@settings(derandomize=True, deadline=None)
@given(st.integers(1, 500), st.floats(0, 1))
def test_rises_to_the_peak_then_falls_and_is_never_zero(num_steps, warmup_ratio):
    schedule = LinearSchedule(2e-4, num_steps, warmup_ratio)
    rates = [schedule(step) for step in range(num_steps)]
    top = max(schedule.num_warmup_steps - 1, 0)
    assert rates[top] == pytest.approx(2e-4)
    assert all(0 < rate <= 2e-4 * (1 + 1e-12) for rate in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


@pytest.mark.parametrize(("peak", "num_steps", "warmup_ratio"), [(0.0, 10, 0.1), (1e-4, 0, 0.1), (1e-4, 10, 1.1), (1e-4, 10, -0.1)])
def test_values_outside_their_range_are_refused(peak, num_steps, warmup_ratio):
    with pytest.raises(BortError):
        LinearSchedule(peak, num_steps, warmup_ratio)


def test_without_decay_the_rate_stays_at_the_peak_after_the_warm_up():
    schedule, constant = LinearSchedule(0.5, 20, 0.25), LinearSchedule(0.5, 20, 0.25, decays=False)
    assert [constant(step) for step in range(5)] == [schedule(step) for step in range(5)]
    assert {constant(step) for step in range(4, 20)} == {0.5}
