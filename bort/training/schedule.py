"""Learning-rate schedule of the published recipe: linear warm-up, then linear decay, or none."""

from __future__ import annotations

from dataclasses import dataclass

from bort.errors import BortError


@dataclass(frozen=True)
class LinearSchedule:
    """Learning rate of each update.

    The first update already learns (rate ``peak / warmup``), the last warm-up update has the peak, and the last update of all has
    ``peak / (steps - warmup)``: no update is spent at a rate of zero.

    Args:
        peak: highest rate.
        num_steps: updates of the whole run.
        warmup_ratio: share of them that warm up, in [0, 1].
        decays: whether the rate falls after the warm-up, or stays at the peak.

    Raises:
        BortError: if a value lies outside its range.
    """

    peak: float
    num_steps: int
    warmup_ratio: float
    decays: bool = True

    def __post_init__(self) -> None:
        if not self.peak > 0:
            raise BortError(f"the learning rate must be positive, got {self.peak}")
        if self.num_steps < 1:
            raise BortError(f"the number of steps must be at least 1, got {self.num_steps}")
        if not 0.0 <= self.warmup_ratio <= 1.0:
            raise BortError(f"warmup_ratio must lie in [0, 1], got {self.warmup_ratio}")

    @property
    def num_warmup_steps(self) -> int:
        """Updates that warm up."""
        return round(self.num_steps * self.warmup_ratio)

    def __call__(self, step: int) -> float:
        """Rate of update ``step``, counted from 0."""
        if step < self.num_warmup_steps:
            return self.peak * ((step + 1) / self.num_warmup_steps)
        if not self.decays:
            return self.peak
        return self.peak * (max(self.num_steps - step, 0) / (self.num_steps - self.num_warmup_steps))
