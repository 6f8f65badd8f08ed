"""What is the shape of a logged metric? Means of neighbouring steps, which leave out what was not logged (NaN)."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

MAX_POINTS = 300  # longer curves are drawn as means of neighbouring steps


def edges(count: int) -> tuple[slice, slice]:
    """The first and the last tenth of a run of `count` steps, at least one step each."""
    tenth = max(1, count // 10)
    return slice(0, tenth), slice(count - tenth, count)


def mean(values: NDArray[np.float64]) -> float:
    """Mean of the finite values; NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else math.nan


def smooth(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Centred running mean over a fifteenth of the curve, three points at least; NaN where nothing was logged nearby.

    A curve of fewer than eight points stays as it is.
    """
    half = max(1, len(values) // 30) if len(values) >= 8 else 0
    return np.array([mean(values[max(0, index - half) : index + half + 1]) for index in range(len(values))])


def bin_width(count: int) -> int:
    """How many of `count` steps one point of a curve stands for."""
    return math.ceil(count / MAX_POINTS)


def binned(steps: NDArray[np.float64], values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """At most MAX_POINTS points: means of neighbouring steps."""
    width = bin_width(len(steps))
    x, y = (np.array([mean(part[start : start + width]) for start in range(0, len(steps), width)]) for part in (steps, values))
    return x, y
