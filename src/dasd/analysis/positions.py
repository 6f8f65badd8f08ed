"""At which tokens does the probe intervene, and with what?

A rollout's tokens above its entropy quantile rho are the uncertain ones, the others the sure ones; each uncertain position
that is chosen is matched with the sure one nearest to it in the text, so that the two differ by entropy and not by place.

    conform   the teacher's most likely token
    deviate   the student's most likely token among those the teacher likes less than the student does
    resample  whatever the student draws there: the control
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class Position:
    """Token `index` of a completion; `rank` is its entropy's place among the completion's tokens, 0 lowest, below 1."""

    index: int
    uncertain: bool
    rank: float
    entropy: float


def choose_positions(entropies: Sequence[float], count: int, rho: float, seed: int) -> list[Position]:
    """At most `count` positions, half of them uncertain and each of those followed by its sure match.

    Fewer where a completion has too few tokens. Ranks are broken by place, so that exactly the share `1 - rho` is uncertain.
    """
    values = np.asarray(entropies)
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values)) / max(len(values), 1)
    uncertain = np.flatnonzero(ranks >= rho)
    sure = set(np.flatnonzero(ranks < rho).tolist())
    chosen = []
    for index in np.random.default_rng(seed).permutation(uncertain)[: count // 2].tolist():
        if not sure:
            break
        match = min(sure, key=lambda other: (abs(other - index), other))
        sure.remove(match)
        chosen += [Position(i, flag, float(ranks[i]), float(values[i])) for i, flag in ((index, True), (match, False))]
    return chosen


def interventions(student: Tensor, teacher: Tensor) -> dict[str, int | None]:
    """The forced token of each action from (V,) log-probs of student and teacher; None: the student draws.

    Where the teacher likes no token less, `deviate` is the student's second choice.
    """
    liked_less = teacher < student
    liked_less[teacher.argmax()] = False
    candidates = student.masked_fill(~liked_less, -torch.inf) if liked_less.any() else student.clone()
    if not liked_less.any():
        candidates[student.argmax()] = -torch.inf
    return {"conform": int(teacher.argmax()), "deviate": int(candidates.argmax()), "resample": None}
