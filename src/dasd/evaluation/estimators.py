"""What do the samples say, and how sure are we?

Every figure is a ratio of sums over problems, so one bootstrap serves them all: problems are drawn with replacement (samples
of one problem are not independent), and two runs on the same problems are compared by drawing the same problems for both.
Whether two runs differ at all is asked by swapping them problem by problem (a paired permutation test).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESAMPLES = 4000
PERMUTATIONS = 10_000
EXACT_UP_TO = 12  # problems that differ: beyond it permutations are drawn, not listed
MOST_VOTES = 256  # samples of a problem whose majority is worked out

Name = TypeVar("Name", bound=Hashable)
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


@dataclass(frozen=True)
class Draws:
    """A figure, and what it is in every draw of the problems. Figures of the same problems are drawn alike, so they subtract.

    value     the figure on the problems as they are
    draws     (RESAMPLES,) its values over draws of the problems
    problems  how many problems it rests on
    range     the least and the most that it can be; NaN where nobody can say
    """

    value: float
    draws: NDArray[np.float64]
    problems: float
    range: tuple[float, float]

    def __sub__(self, other: Draws) -> Draws:
        least, most = self.range[0] - other.range[1], self.range[1] - other.range[0]
        fewest = min(self.problems, other.problems)
        return Draws(self.value - other.value, self.draws - other.draws, fewest, (least, most))

    @property
    def estimate(self) -> Estimate:
        """Quantiles of the draws. Where all draws are the same they tell nothing, and the interval is `unanimous`."""
        draws = self.draws[np.isfinite(self.draws)]
        if not draws.size or not math.isfinite(self.value):
            return Estimate(self.value, math.nan, math.nan)
        if np.ptp(draws) <= 1e-9 * max(1.0, abs(self.value)):
            return unanimous(self.value, self.problems, *self.range)
        low, high = np.quantile(draws, [0.025, 0.975])
        least, most = self.range
        return Estimate(self.value, float(np.fmax(low, least)), float(np.fmin(high, most)))

    @property
    def p_value(self) -> float:
        """Two-sided: how far 0 lies out among the draws. It is below 0.05 just where the interval leaves 0 out."""
        draws = self.draws[np.isfinite(self.draws)]
        if not draws.size or not math.isfinite(self.value):
            return math.nan
        tail = min((draws <= 0).mean(), (draws >= 0).mean())
        return float(min(1.0, 2 * max(tail, 1 / (draws.size + 1))))


def unanimous(value: float, problems: float, least: float, most: float) -> Estimate:
    """A mean over problems that all have the same `value`: exact interval at 95 %, given that no problem can leave
    [least, most].

    n of n problems with this value exclude that a share below `q = 0.025^(1/n)` of all problems has it, so the mean lies
    between `q value + (1 - q) least` and `q value + (1 - q) most`. For a share of 0 or 1 this is the interval of Clopper and
    Pearson (1934). NaN where the range is not known.
    """
    share = 0.025 ** (1 / problems)
    return Estimate(value, share * value + (1 - share) * least, share * value + (1 - share) * most)


# Figures of evaluation that count something; each name, or how it begins.
COUNTS = ("epistemic_", "backtracks_", "mean_length", "first_wrong_step", "distinct_at_", "entropy")


def draws_of(figures: Mapping[Name, Pair], seed: int = 0) -> dict[Name, Draws]:
    """Every figure over the same draws of the same problems.

    A numerator that never leaves 0 to its denominator is a share, unless its name is that of a count (`COUNTS`); a count that
    is 0 everywhere is as sure as the share of problems that have any.
    """
    columns = [np.asarray(values, float) for pair in figures.values() for values in pair]
    if len({len(column) for column in columns}) > 1:
        raise ValueError(f"all arrays must cover the same problems, got lengths {[len(column) for column in columns]}")
    if not columns:
        return {}
    values = np.stack(columns, axis=1)
    sums, (tops, bottoms) = _resampled_sums(seed, values), (values[:, 0::2], values[:, 1::2])
    points, draws = _divide(tops.sum(axis=0), bottoms.sum(axis=0)), _divide(sums[:, 0::2], sums[:, 1::2])
    shares, counted = np.all((tops >= 0) & (tops <= bottoms + 1e-9), axis=0), np.sum(bottoms > 0, axis=0)
    bounds = [
        (0.0, 1.0) if shares[i] and not (is_count(name) and tops[:, i].any()) else (math.nan, math.nan)
        for i, name in enumerate(figures)
    ]
    return {name: Draws(float(points[i]), draws[:, i], int(counted[i]), bounds[i]) for i, name in enumerate(figures)}


def is_count(name: Name) -> bool:
    """Whether a figure has no upper end, however small it is in these data."""
    return str(name).startswith(COUNTS)


def mean_of_benchmarks(parts: Sequence[Draws]) -> Draws:
    """Each benchmark counts the same, its problems drawn on their own; as sure as if all had the fewest problems."""
    fewest = len(parts) * min((part.problems for part in parts), default=0)
    return _mean(parts, fewest)


def mean_of_seeds(runs: Sequence[Draws], stream: int = 0) -> Draws:
    """The mean of training runs that differ in their seed alone, on the same problems.

    To the draws of the problems comes what seeds do: the standard error of the mean over runs times Student's t with one
    degree of freedom less than there are runs. `stream` sets the noise of two groups apart, which makes their difference that
    of Behrens and Fisher. A single run has no such noise: it stands for itself.
    """
    mean, count = _mean(runs, min(run.problems for run in runs)), len(runs)
    if count < 2:
        return mean
    error = error_of_seeds(runs)
    order = np.random.default_rng([stream, count]).permutation(RESAMPLES)
    return replace(mean, draws=mean.draws + error * _student(count - 1)[order])


def error_of_seeds(runs: Sequence[Draws]) -> float:
    """Standard error of the mean over training runs, two or more."""
    return float(np.std([run.value for run in runs], ddof=1)) / math.sqrt(len(runs))


def _mean(parts: Sequence[Draws], problems: float) -> Draws:
    """NaN where one of them is undefined, or there is none."""
    if not parts:
        return Draws(math.nan, np.full(RESAMPLES, np.nan), 0, (math.nan, math.nan))
    value, draws = np.mean([part.value for part in parts]), np.mean([part.draws for part in parts], axis=0)
    least, most = np.mean([part.range for part in parts], axis=0)
    return Draws(float(value), draws, problems, (float(least), float(most)))


@lru_cache(maxsize=32)
def _student(freedom: int) -> NDArray[np.float64]:
    """(RESAMPLES,) evenly spread quantiles of Student's t, ascending: draws without the luck of drawing."""
    many = np.random.default_rng(0).standard_t(freedom, 1_000_000)
    return np.quantile(np.concatenate([many, -many]), (np.arange(RESAMPLES) + 0.5) / RESAMPLES)


def ratios_of_sums(figures: Mapping[str, Pair], seed: int = 0) -> dict[str, Estimate]:
    """Of each figure the sum of its numerators over the sum of its denominators, each (problems,), with an interval clustered
    by problem, all over the same draws of the same problems.

    NaN where the denominators add up to 0 or a numerator is NaN.
    """
    return {name: draws.estimate for name, draws in draws_of(figures, seed).items()}


def differences_of_ratios(before: Mapping[str, Pair], after: Mapping[str, Pair], seed: int = 0) -> dict[str, Estimate]:
    """`after` minus `before`, of every figure that both have, over the same problems in the same order: paired bootstrap, all
    over the same draws."""
    sides = {("before", name): before[name] for name in before if name in after}
    sides |= {("after", name): after[name] for name in before if name in after}
    drawn = draws_of(sides, seed)  # in one call, which refuses problems that do not match
    return {name: (drawn["after", name] - drawn["before", name]).estimate for side, name in drawn if side == "before"}


def macro_averages(benchmarks: Sequence[Mapping[str, Pair]], seed: int = 0) -> dict[str, Estimate]:
    """Mean over benchmarks of every figure that all of them have, each benchmark counting the same; problems are drawn within
    each, the same for all figures."""
    return {name: draws.estimate for name, draws in macro_draws(benchmarks, seed).items()}


def macro_draws(benchmarks: Sequence[Mapping[str, Pair]], seed: int = 0) -> dict[str, Draws]:
    """The mean over benchmarks of every figure that all of them have."""
    names = [name for name in benchmarks[0] if all(name in figures for figures in benchmarks)] if benchmarks else [""]
    parts = [draws_of({name: figures[name] for name in names}, seed + i) for i, figures in enumerate(benchmarks)]
    return {name: mean_of_benchmarks([part[name] for part in parts]) for name in names}


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of several tests, corrected so that all that stay below a level are false at once no more often than it says.

    The smallest is multiplied by how many there are, the next by one less, never falling below the one before (Holm 1979). NaN
    stays, and is not counted.
    """
    corrected, largest = [math.nan] * len(p_values), 0.0
    order = sorted((p, index) for index, p in enumerate(p_values) if not math.isnan(p))
    for place, (p, index) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - place)))
        corrected[index] = largest
    return corrected


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
