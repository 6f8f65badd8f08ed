"""What do the numbers of a study say? Pure functions of NumPy arrays.

A score is Avg@k of one problem in one run: `scores` has shape (seeds, problems), and two arms are compared on the same seeds
and the same problems. There are two sources of noise, seeds and problems, and both are in every interval. With the few seeds
that one can afford, drawing them again is too sure of itself (of two seeds half of all draws have a single one twice); so the
test has Student's t of the seeds (`dasd.evaluation.estimators.mean_of_seeds`), and the hierarchical bootstrap stands beside
it. A difference counts where both agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray

from dasd.evaluation.estimators import RESAMPLES, Draws, Estimate, draws_of, error_of_seeds, mean_of_seeds

Scores = NDArray[np.float64]
POWER, LEVEL = 0.8, 0.05


@dataclass(frozen=True)
class Difference:
    """An arm minus the reference. `resampled`: the 95 % interval of the hierarchical bootstrap."""

    mean: float
    low: float
    high: float
    resampled: tuple[float, float]
    p_value: float
    seeds: int


def level(scores: ArrayLike) -> Estimate:
    """Mean of (seeds, problems) shares, with a 95 % interval over both."""
    values = _matrix(scores)
    drawn = draws_of({seed: (row, np.ones(len(row))) for seed, row in enumerate(values)})
    return mean_of_seeds(list(drawn.values())).estimate


def paired_difference(arm: ArrayLike, reference: ArrayLike) -> Difference:
    """`arm` minus `reference`, both (seeds, problems), paired by seed and by problem.

    Raises ValueError where the shapes differ.
    """
    ours, theirs = _matrix(arm), _matrix(reference)
    if ours.shape != theirs.shape:
        raise ValueError(f"arms are paired by seed and problem, got shapes {ours.shape} and {theirs.shape}")
    ones = np.ones(ours.shape[1])
    sides = {("arm", i): (row, ones) for i, row in enumerate(ours)} | {("ref", i): (row, ones) for i, row in enumerate(theirs)}
    drawn = draws_of(sides)
    runs = [drawn["arm", i] - drawn["ref", i] for i in range(len(ours))]
    found, low_high = mean_of_seeds(runs).estimate, np.quantile(hierarchical_bootstrap(ours - theirs), [0.025, 0.975])
    resampled = float(low_high[0]), float(low_high[1])
    return Difference(found.mean, found.low, found.high, resampled, _p_value(runs), len(ours))


def _p_value(runs: Sequence[Draws]) -> float:
    """Two-sided: how far out 0 lies, as in the draws of `mean_of_seeds`, but with Student's t of the seeds in closed form
    around each draw of the problems. Drawn as well, it could not be less than one in so many draws, and many comparisons
    would never be told apart.
    """
    error = error_of_seeds(runs) if len(runs) > 1 else 0.0
    if not error > 1e-9:  # one seed, or all alike: the problems alone tell
        return mean_of_seeds(runs).p_value
    means = np.mean([run.draws for run in runs], axis=0)
    below = float(np.mean(student_tail(means / error, len(runs) - 1)))
    return min(1.0, 2 * min(below, 1 - below))


def hierarchical_bootstrap(values: ArrayLike, seed: int = 0, draws: int = RESAMPLES) -> Scores:
    """(draws,) means of `values` (seeds, problems), seeds and problems drawn with replacement, independently of each other.

    All seeds have the same problems, so the levels are crossed (the pigeonhole bootstrap of Owen, 2007, which is on the
    careful side). Deviations of the drawn seeds are widened by sqrt(S / (S - 1)), which makes their variance that of S seeds.
    """
    matrix = _matrix(values)
    count, problems = matrix.shape
    rng = np.random.default_rng(seed)
    by_problem = rng.multinomial(problems, np.full(problems, 1 / problems), size=draws) / problems
    by_seed = rng.multinomial(count, np.full(count, 1 / count), size=draws) / count
    widen = math.sqrt(count / (count - 1)) if count > 1 else 1.0
    weights = 1 / count + widen * (by_seed - 1 / count)
    return np.einsum("rs,sp,rp->r", weights, matrix, by_problem, optimize=True)


def interquartile_mean(scores: ArrayLike) -> float:
    """Mean of what is left once the lowest and the highest quarter are cut, `floor(n / 4)` on either side.

    Over all runs of all tasks, as Agarwal et al., "Deep RL at the Edge of the Statistical Precipice" (2108.13264), have it.
    """
    values = np.sort(np.asarray(scores, float).ravel())
    cut = len(values) // 4
    return float(values[cut : len(values) - cut].mean()) if len(values) else math.nan


def performance_profile(tasks: Sequence[ArrayLike], thresholds: ArrayLike) -> Scores:
    """Share of runs whose score is above each threshold, each task counting the same; same source. `tasks`: scores of each."""
    points = np.asarray(thresholds, float)
    shares = [np.mean(np.asarray(runs, float)[:, None] > points, axis=0) for runs in tasks if len(np.asarray(runs))]
    return np.mean(shares, axis=0) if shares else np.full(len(points), np.nan)


def interquartile_interval(tasks: Sequence[ArrayLike], seed: int = 0, draws: int = 2000) -> Estimate:
    """The interquartile mean over all tasks' runs, with the stratified bootstrap's 95 % interval: runs drawn in each task.

    The interval is NaN where no task has two runs.
    """
    runs = [np.asarray(scores, float) for scores in tasks if len(np.asarray(scores))]
    if not runs:
        return Estimate(math.nan, math.nan, math.nan)
    mean = interquartile_mean(np.concatenate(runs))
    if all(len(scores) < 2 for scores in runs):
        return Estimate(mean, math.nan, math.nan)
    rng = np.random.default_rng(seed)
    drawn = np.concatenate([scores[rng.integers(0, len(scores), (draws, len(scores)))] for scores in runs], axis=1)
    low, high = np.quantile([interquartile_mean(row) for row in drawn], [0.025, 0.975])
    return Estimate(mean, float(low), float(high))


@dataclass(frozen=True)
class Noise:
    """Variances of the reference: of its seeds' means, of its problems' means, and what is left of (seed, problem)."""

    seeds: float
    problems: float
    rest: float


def noise(scores: ArrayLike) -> Noise:
    """Variances in (seeds, problems), unbiased within each; needs two seeds and two problems, NaN otherwise.

    The rest is the two-way residual `x_sp - x_s. - x_.p + x_..` with (S - 1)(P - 1) degrees of freedom.
    """
    values = _matrix(scores)
    if min(values.shape) < 2:
        return Noise(math.nan, math.nan, math.nan)
    by_seed, by_problem = values.mean(axis=1, keepdims=True), values.mean(axis=0, keepdims=True)
    left = values - by_seed - by_problem + values.mean()
    freedom = (values.shape[0] - 1) * (values.shape[1] - 1)
    return Noise(float(by_seed.var(ddof=1)), float(by_problem.var(ddof=1)), float((left**2).sum() / freedom))


def minimum_detectable_effect(
    of: Noise, seeds: int, problems: int, comparisons: int, level: float = LEVEL, power: float = POWER
) -> float:
    """The least difference of two means that a study of this size finds with this `power`, at `level` over all comparisons.

        (t_(S-1)(1 - level / 2m) + t_(S-1)(power)) * sqrt(2 V_seeds / S + 2 V_rest / P)

    V_seeds is the variance of the reference's seed means, twice, for either arm has its own. What problems have in common
    (V_problems) cancels, for they are paired; the last term lets an arm change single problems as much as another seed does,
    which more seeds do not average out. m comparisons: Holm's first step. NaN with one seed, unknown variances, or none at all:
    a reference that is never or always right says nothing of an arm's noise.
    """
    if seeds < 2:
        return math.nan
    variance = 2 * of.seeds / seeds + 2 * of.rest / problems
    error = math.sqrt(variance) if variance > 0 else math.nan
    return (student_quantile(1 - level / (2 * comparisons), seeds - 1) + student_quantile(power, seeds - 1)) * error


def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t."""
    angles, above = _angles(freedom)
    angle = np.interp(1 - abs(2 * probability - 1), above[::-1], angles[::-1])
    return math.copysign(math.sqrt(freedom) * math.tan(float(angle)), probability - 0.5)


def student_tail(values: ArrayLike, freedom: int) -> Scores:
    """Probability that Student's t is above each value."""
    points = np.asarray(values, float)
    upper = np.interp(np.arctan(np.abs(points) / math.sqrt(freedom)), *_angles(freedom)) / 2
    return np.where(points < 0, 1 - upper, upper)


@lru_cache(maxsize=32)
def _angles(freedom: int) -> tuple[Scores, Scores]:
    """Angles from 0 to pi / 2, and the share of Student's |t| above each. With t = sqrt(f) tan(a), the density of a is
    cos(a)^(f - 1): summed over a fine grid, from its far end, so that small tails are exact too.
    """
    angles = np.linspace(0.0, np.pi / 2, 200_001)
    middle = (angles[1:] + angles[:-1]) / 2
    above = np.append(np.cumsum(np.cos(middle[::-1]) ** (freedom - 1))[::-1], 0.0)
    return angles, above / above[0]


def _matrix(values: ArrayLike) -> Scores:
    matrix = np.asarray(values, dtype=float)
    if matrix.ndim != 2 or 0 in matrix.shape:
        raise ValueError(f"scores have shape (seeds, problems), got {matrix.shape}")
    return matrix
