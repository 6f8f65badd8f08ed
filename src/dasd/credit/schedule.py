"""How does a setting change over training? One mechanism for every method: any number among its settings may be a `Schedule`:
with `lam=Schedule(0.5, 0.0, steps=50)`, `at_step(method, 25).lam` is 0.25.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

T = TypeVar("T")


@dataclass(frozen=True)
class Schedule:
    """From `start` to `end` over `steps` optimisation steps, constant afterwards; `linear`, or `cosine` (half a period).

    Raises ValueError for steps below 1 or an unknown shape.
    """

    start: float
    end: float
    steps: int
    shape: Literal["linear", "cosine"] = "linear"

    def __post_init__(self) -> None:
        for name in ("start", "end"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise ValueError(f"a schedule's {name} must be a finite number, got {value!r}")
        if isinstance(self.steps, bool) or not isinstance(self.steps, int) or self.steps < 1:
            raise ValueError(f"a schedule's steps must be a whole number of at least 1, got {self.steps!r}")
        if self.shape not in ("linear", "cosine"):
            raise ValueError(f"a schedule's shape must be linear or cosine, got {self.shape!r}; a constant is a plain number")

    def __call__(self, step: int) -> float:
        """Value at optimisation step `step`, counted from 0."""
        done = min(max(step / self.steps, 0.0), 1.0)
        if self.shape == "cosine":
            done = (1.0 - math.cos(math.pi * done)) / 2.0
        return self.start + (self.end - self.start) * done


def at_step(method: T, step: int) -> T:
    """`method` with each scheduled setting at its value of this step, those of a wrapped method too."""
    if not is_dataclass(method) or isinstance(method, type):
        return method
    values = {field.name: getattr(method, field.name) for field in fields(method)}
    resolved = {name: value(step) if isinstance(value, Schedule) else at_step(value, step) for name, value in values.items()}
    changed = {name: value for name, value in resolved.items() if value is not values[name]}
    return replace(method, **changed) if changed else method


def number(setting: float | Schedule) -> float:
    """A setting's value. Raises ValueError for a schedule, which has one only at a step."""
    if isinstance(setting, Schedule):
        raise ValueError(
            f"{setting} has no value without a step: call assign_credit(signals, method, step), or at_step(method, step)"
        )
    return setting


def check_number(name: str, value: Any, low: float = 0.0, high: float = math.inf, hint: str = "") -> None:
    """Raises ValueError where a setting, or an end of its schedule, is no finite number in [low, high]."""
    for end in (value.start, value.end) if isinstance(value, Schedule) else (value,):
        if isinstance(end, bool) or not isinstance(end, int | float):
            raise ValueError(f"{name} must be a number, got {end!r}")
        if not (math.isfinite(end) and low <= end <= high):
            limits = f"between {low:g} and {high:g}" if math.isfinite(high) else f"at least {low:g} and finite"
            raise ValueError(f"{name} must be {limits}, got {end}{hint}")
