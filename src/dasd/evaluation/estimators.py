"""What do the samples say, and how sure are we?

Every figure is a ratio of sums over problems, so one bootstrap serves them all: problems are drawn with replacement (samples
of one problem are not independent), and two runs on the same problems are compared by drawing the same problems for both.
Whether two runs differ at all is asked by swapping them problem by problem (a paired permutation test).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 4000
PERMUTATIONS = 10_000
EXACT_UP_TO = 12  # problems that differ: beyond it permutations are drawn, not listed
MOST_VOTES = 256  # samples of a problem whose majority is worked out

Pair = tuple[ArrayLike, ArrayLike]  # numerators and denominators, one entry a problem
Votes = tuple[tuple[int, int], ...]  # of each answer: how often it was given, how often that was right


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


def majority_at_k(votes: Iterable[tuple[int, int]], silent: int, k: int) -> float:
    """Expected credit of the most frequent answer among k samples of one problem, over all subsets of size k.

    `votes` holds for each answer how often it was given and how often it was judged right, `silent` counts samples without
    an answer. Answers that tie for the most votes share the credit; a subset without any answer earns none. NaN where there
    are fewer than k samples, or more than MOST_VOTES. Raises ValueError for k < 1 and impossible counts.
    """
    votes = tuple(sorted(votes))
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if silent < 0 or any(count < 1 or not 0 <= right <= count for count, right in votes):
        raise ValueError("every answer needs at least one vote, and of its votes between none and all are right")
    total = silent + sum(count for count, _ in votes)
    return _majority_curve(votes, silent)[k - 1] if k <= total <= MOST_VOTES else math.nan


@lru_cache(maxsize=4096)
def _majority_curve(votes: Votes, silent: int) -> NDArray[np.float64]:
    """Maj@k for k = 1..n. For each answer and each number of votes it may win with, the ways to draw the others are counted."""
    total = silent + sum(count for count, _ in votes)
    ways = np.zeros(total + 1)  # of drawing k samples, weighted by the winner's credit
    for winner, (count, right) in enumerate(votes):
        others = [other for index, (other, _) in enumerate(votes) if index != winner]
        for won in range(1, count + 1) if right else ():
            ties = sum(other >= won for other in others)
            drawn = np.zeros((ties + 1, total + 1))  # [answers that tie with the winner, samples drawn]
            drawn[0, : silent + 1] = [math.comb(silent, size) for size in range(silent + 1)]
            for other in others:
                fewer = [math.comb(other, size) * _shift(drawn, size) for size in range(min(other, won - 1) + 1)]
                as_many = math.comb(other, won) * _shift(drawn, won)  # no ways where the answer has too few votes
                drawn = np.sum(fewer, axis=0)
                drawn[1:] += as_many[:-1]
            shares = (1 / (1 + np.arange(ties + 1))) @ drawn
            ways += math.comb(count, won) * right / count * _shift(shares, won)
    return ways[1:] / [math.comb(total, k) for k in range(1, total + 1)]


def _shift(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    """The last axis moved up by `size`, zeros coming in."""
    moved = np.zeros_like(values)
    moved[..., size:] = values[..., : values.shape[-1] - size]
    return moved


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
    return ratios_of_sums({"": (numerators, denominators)}, seed)[""]


def ratios_of_sums(figures: Mapping[str, Pair], seed: int = 0) -> dict[str, Estimate]:
    """`ratio_of_sums` of many figures, all over the same draws of the same problems."""
    points, draws = _ratios(list(figures.values()), seed)
    return {name: _estimate(points[i], draws[:, i]) for i, name in enumerate(figures)}


def difference_of_ratios(before: Pair, after: Pair, seed: int = 0) -> Estimate:
    """`after` minus `before` over the same problems in the same order: paired bootstrap."""
    return differences_of_ratios({"": before}, {"": after}, seed)[""]


def differences_of_ratios(before: Mapping[str, Pair], after: Mapping[str, Pair], seed: int = 0) -> dict[str, Estimate]:
    """`difference_of_ratios` of every figure that both have, all over the same draws of the same problems."""
    names = [name for name in before if name in after]
    points, draws = _ratios([before[name] for name in names] + [after[name] for name in names], seed)
    points, draws = points[len(names) :] - points[: len(names)], draws[:, len(names) :] - draws[:, : len(names)]
    return {name: _estimate(points[i], draws[:, i]) for i, name in enumerate(names)}


def macro_average(benchmarks: Sequence[Pair], seed: int = 0) -> Estimate:
    """Mean over benchmarks of one figure, each benchmark counting the same; problems are drawn within each benchmark."""
    return macro_averages([{"": pair} for pair in benchmarks], seed)[""]


def macro_averages(benchmarks: Sequence[Mapping[str, Pair]], seed: int = 0) -> dict[str, Estimate]:
    """`macro_average` of every figure that all benchmarks have, over the same draws."""
    names = [name for name in benchmarks[0] if all(name in figures for figures in benchmarks)] if benchmarks else [""]
    parts = [_ratios([figures[name] for name in names], seed + i) for i, figures in enumerate(benchmarks)]
    return {
        name: _mean_estimate([(points[i : i + 1], draws[:, i : i + 1]) for points, draws in parts])
        for i, name in enumerate(names)
    }


def macro_difference(before: Sequence[Pair], after: Sequence[Pair], seed: int = 0) -> Estimate:
    """`after` minus `before`, averaged over benchmarks, paired by problem within each."""
    parts = []
    for i, pairs in enumerate(zip(before, after, strict=True)):
        points, draws = _ratios(list(pairs), seed + i)
        parts.append((points[1:] - points[:1], draws[:, 1:] - draws[:, :1]))
    return _mean_estimate(parts)


def swap_p_value(before: Sequence[Pair], after: Sequence[Pair], seed: int = 0) -> float:
    """Two-sided p-value of `after` minus `before`, averaged over benchmarks, if it did not matter which run is which.

    Under that hypothesis the two runs' results may be swapped problem by problem; for a mean over problems this is the
    sign-flip test of the differences. Exact where at most EXACT_UP_TO problems differ, otherwise PERMUTATIONS random swaps
    and the given one. NaN where the difference is undefined.
    """
    ends = [np.stack([np.asarray(v, float) for v in (*b, *a)]) for b, a in zip(before, after, strict=True)]
    observed = np.mean([_swapped_difference(end, np.zeros((1, end.shape[1])))[0] for end in ends])
    if not np.isfinite(observed):
        return math.nan
    ends = [_only_differing(end) for end in ends]
    sizes = [len(end.T) - 1 for end in ends]
    if sum(sizes) <= EXACT_UP_TO:
        swaps = np.array(list(product((0.0, 1.0), repeat=sum(sizes))))
        return _share_as_large(ends, np.split(swaps, np.cumsum(sizes)[:-1], axis=1), observed)
    rng, as_large = np.random.default_rng(seed), 0.0
    for rows in _chunks(PERMUTATIONS, sum(sizes)):
        as_large += rows * _share_as_large(ends, [rng.integers(0, 2, (rows, size)).astype(float) for size in sizes], observed)
    return (1 + as_large) / (1 + PERMUTATIONS)


def _only_differing(ends: NDArray[np.float64]) -> NDArray[np.float64]:
    """(4, problems that differ between the runs, then the sums of the others): swapping equals changes nothing."""
    differ = (ends[:2] != ends[2:]).any(axis=0)
    return np.concatenate([ends[:, differ], ends[:, ~differ].sum(axis=1, keepdims=True)], axis=1)


def _share_as_large(ends: list[NDArray[np.float64]], swaps: list[NDArray[np.float64]], observed: float) -> float:
    never = np.zeros((len(swaps[0]), 1))  # the last column holds what is not swapped
    parts = [_swapped_difference(end, np.hstack([swap, never])) for end, swap in zip(ends, swaps, strict=True)]
    return float(np.mean(np.abs(np.mean(parts, axis=0)) >= abs(observed) * (1 - 1e-9) - 1e-12))


def _swapped_difference(ends: NDArray[np.float64], swaps: NDArray[np.float64]) -> NDArray[np.float64]:
    """After minus before, for each row of `swaps` (1: the two runs change places on that problem)."""
    moved = swaps @ (ends[2:] - ends[:2]).T
    top_0, bottom_0 = (ends[:2].sum(axis=1) + moved).T
    top_1, bottom_1 = (ends[2:].sum(axis=1) - moved).T
    return _divide(top_1, bottom_1) - _divide(top_0, bottom_0)


def _ratios(pairs: Sequence[Pair], seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Each figure's value (figures,), and its values over RESAMPLES draws of the problems (RESAMPLES, figures)."""
    columns = [np.asarray(values, float) for pair in pairs for values in pair]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"all arrays must cover the same problems, got lengths {[len(column) for column in columns]}")
    values = np.stack(columns, axis=1)
    draws = _resampled_sums(seed, values)
    return _divide(values[:, 0::2].sum(axis=0), values[:, 1::2].sum(axis=0)), _divide(draws[:, 0::2], draws[:, 1::2])


def _resampled_sums(seed: int, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of each column of `values` (problems, columns) over RESAMPLES draws of the problems."""
    count = len(values)
    if count == 0:
        return np.full((RESAMPLES, values.shape[1]), np.nan)
    rng, shares = np.random.default_rng(seed), np.full(count, 1 / count)
    return np.concatenate([rng.multinomial(count, shares, size=rows) @ values for rows in _chunks(RESAMPLES, count)])


def _chunks(draws: int, problems: int) -> list[int]:
    """`draws` in portions: memory stays small for large benchmarks."""
    rows = max(1, 2_000_000 // problems)
    return [min(rows, draws - start) for start in range(0, draws, rows)]


def _divide(top: ArrayLike, bottom: ArrayLike) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(np.asarray(bottom) != 0, np.divide(top, bottom), np.nan)


def _mean_estimate(parts: Sequence[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> Estimate:
    """The mean over benchmarks; NaN where one of them is undefined, or there is none."""
    if not parts:
        return Estimate(math.nan, math.nan, math.nan)
    return _estimate(np.mean([point[0] for point, _ in parts]), np.mean([draws[:, 0] for _, draws in parts], axis=0))


def _estimate(point: Any, draws: NDArray[np.float64]) -> Estimate:
    draws = draws[np.isfinite(draws)]
    low, high = np.quantile(draws, [0.025, 0.975]) if draws.size and np.isfinite(point) else (np.nan, np.nan)
    return Estimate(float(point), float(low), float(high))
