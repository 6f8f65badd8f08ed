"""What do the samples say, and how sure are we?

Every figure is a ratio of sums over problems, so one bootstrap serves them all: problems are drawn with replacement (samples
of one problem are not independent), and two runs on the same problems are compared by drawing the same problems for both.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 4000


def pass_at_k(num_samples: ArrayLike, num_correct: ArrayLike, k: int) -> NDArray[np.float64]:
    """Unbiased probability that at least one of k samples is right: `1 - C(n - c, k) / C(n, k)`; NaN where n < k.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (2107.03374), equation 1. Raises ValueError for
    k < 1 and for counts with c > n or below 0.
    """
    n, c = np.broadcast_arrays(np.asarray(num_samples, dtype=np.int64), np.asarray(num_correct, dtype=np.int64))
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if (c < 0).any() or (c > n).any():
        raise ValueError("num_correct must lie between 0 and num_samples")
    # C(n - c, k) / C(n, k) as a product of k factors in [0, 1]: exact for large n, and 0 as soon as n - c < k.
    steps = np.arange(k)
    remaining = np.maximum(n[..., None] - steps, 1)
    all_wrong = np.prod(np.clip((n - c)[..., None] - steps, 0, None) / remaining, axis=-1)
    return np.where(n >= k, 1.0 - all_wrong, np.nan)


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float

    @property
    def ci95(self) -> list[float]:
        return [self.low, self.high]


def ratio_of_sums(numerators: ArrayLike, denominators: ArrayLike, seed: int = 0) -> Estimate:
    """Sum of `numerators` over sum of `denominators`, each (problems,), with an interval clustered by problem.

    NaN where the denominators add up to 0 or a numerator is NaN.
    """
    top, bottom = np.asarray(numerators, float), np.asarray(denominators, float)
    means = _divide(*_resampled_sums(seed, top, bottom))
    return _estimate(_divide(top.sum(), bottom.sum()), means)


def difference_of_ratios(before: tuple[ArrayLike, ArrayLike], after: tuple[ArrayLike, ArrayLike], seed: int = 0) -> Estimate:
    """`after` minus `before`, each (numerators, denominators) over the same problems in the same order: paired bootstrap."""
    sums = [np.asarray(values, float) for values in (*before, *after)]
    top_0, bottom_0, top_1, bottom_1 = _resampled_sums(seed, *sums)
    totals = [values.sum() for values in sums]
    point = _divide(totals[2], totals[3]) - _divide(totals[0], totals[1])
    return _estimate(point, _divide(top_1, bottom_1) - _divide(top_0, bottom_0))


def _resampled_sums(seed: int, *values: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Each array's sum over RESAMPLES draws of the problems; every array sees the same draws."""
    count = len(values[0])
    if any(len(v) != count for v in values):
        raise ValueError(f"all arrays must cover the same problems, got lengths {[len(v) for v in values]}")
    if count == 0:
        return [np.full(RESAMPLES, np.nan) for _ in values]
    weights = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    return [weights @ v for v in values]


def _divide(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(bottom) != 0, np.divide(top, bottom), np.nan)


def _estimate(point: Any, draws: NDArray[np.float64]) -> Estimate:
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.025, 0.975]) if draws.size and np.isfinite(point) else (np.nan, np.nan)
    return Estimate(float(point), float(low), float(high))
