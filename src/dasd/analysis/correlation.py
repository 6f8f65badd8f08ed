"""How closely do two quantities of tokens go together, when tokens of one problem are no independent witnesses?"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

DRAWS = 1000


def spearman(
    x: Sequence[NDArray[np.float64]], y: Sequence[NDArray[np.float64]], seed: int = 0, draws: int = DRAWS
) -> dict[str, float]:
    """Spearman's rank correlation over all tokens, ties at their mean rank; one pair of arrays a problem.

    The 95 % interval draws problems with replacement and ranks their tokens anew in each draw (by weights: a problem drawn
    twice counts twice). NaN where one of both never varies, and no interval from fewer than two problems.
    """
    sizes = [len(values) for values in x]
    n, problems = sum(sizes), sum(size > 0 for size in sizes)
    empty = {"mean": np.nan, "low": np.nan, "high": np.nan, "n": n, "problems": problems}
    if n == 0:
        return empty
    problem = np.repeat(np.arange(len(sizes)), sizes)
    groups = [np.unique(np.concatenate(list(side)), return_inverse=True)[1] for side in (x, y)]
    value = _weighted(groups, np.ones(n))
    if problems < 2 or not np.isfinite(value):
        return {**empty, "mean": value}
    weights = np.random.default_rng(seed).multinomial(len(sizes), np.full(len(sizes), 1 / len(sizes)), size=draws)
    drawn = np.array([_weighted(groups, row[problem].astype(float)) for row in weights])
    low, high = np.quantile(drawn[np.isfinite(drawn)], [0.025, 0.975]) if np.isfinite(drawn).any() else (np.nan, np.nan)
    return {**empty, "mean": value, "low": float(low), "high": float(high)}


def _weighted(groups: Sequence[NDArray[np.int64]], weights: NDArray[np.float64]) -> float:
    """Correlation of the mean ranks that tokens have when each counts `weights` times; `groups` number equal values
    ascending.
    """
    ranks = []
    for group in groups:
        counts = np.bincount(group, weights)
        ranks.append((np.cumsum(counts) - counts / 2)[group])
    total = weights.sum()
    a, b = (rank - (weights @ rank) / total for rank in ranks)
    spread = np.sqrt((weights @ a**2) * (weights @ b**2))
    return float((weights @ (a * b)) / spread) if spread > 0 else np.nan
