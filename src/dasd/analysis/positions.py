"""At which tokens does the probe intervene, and with what?

Three kinds of places in a rollout, `count` of each:

    high     tokens above the rollout's entropy quantile rho, at random
    low      the other tokens: for each high one the nearest in the text, so that the two differ by entropy and not by place
    random   any tokens, whatever their entropy: the control that asks whether entropy matters at all

and what is done there:

    conform   the teacher's most likely token is forced
    deviate   the student's most likely token among those the teacher likes less than the student does
    nothing   the student draws as it would: the control

Where the rollout turns back by itself (`evaluation.revisions`): its own marker is kept (preserve), or the student's most likely
token that begins no marker is forced in its place (suppress).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from dasd.evaluation.revisions import REVISION_MARKERS, find_revisions

KINDS = ("low", "high", "random")


@dataclass(frozen=True)
class Position:
    """Token `index` of a completion and the KINDS it was chosen as; `rank` is its entropy's place among the completion's
    tokens, 0 lowest, below 1."""

    index: int
    kinds: tuple[str, ...]
    rank: float
    entropy: float


def choose_positions(entropies: Sequence[float], count: int, rho: float, seed: int) -> list[Position]:
    """At most `count` positions of each kind, in the order of the text; fewer where a completion has too few tokens.

    Ranks are broken by place, so that exactly the share `1 - rho` is high.
    """
    values = np.asarray(entropies)
    ranks = np.empty(len(values))
    ranks[np.argsort(values, kind="stable")] = np.arange(len(values)) / max(len(values), 1)
    rng = np.random.default_rng(seed)
    kinds: dict[int, list[str]] = {}
    left = set(np.flatnonzero(ranks < rho).tolist())
    for index in rng.permutation(np.flatnonzero(ranks >= rho))[:count].tolist():
        if not left:
            break
        nearest = min(left, key=lambda other: (abs(other - index), other))
        left.remove(nearest)
        kinds.setdefault(index, []).append("high")
        kinds.setdefault(nearest, []).append("low")
    for index in rng.permutation(len(values))[:count].tolist():
        kinds.setdefault(index, []).append("random")
    return [Position(i, tuple(kinds[i]), float(ranks[i]), float(values[i])) for i in sorted(kinds)]


def interventions(student: Tensor, teacher: Tensor) -> dict[str, int]:
    """The forced token of `conform` and `deviate` from (V,) log-probs of student and teacher.

    Where the teacher likes no token less, `deviate` is the student's second choice.
    """
    liked_less = teacher < student
    liked_less[teacher.argmax()] = False
    candidates = student.masked_fill(~liked_less, -torch.inf) if liked_less.any() else student.clone()
    if not liked_less.any():
        candidates[student.argmax()] = -torch.inf
    return {"conform": int(teacher.argmax()), "deviate": int(candidates.argmax())}


def revision_tokens(texts: Sequence[str]) -> list[int]:
    """Places of the tokens at which a rollout's own revisions begin; `texts` is what each of its tokens adds to its text."""
    ends = np.cumsum([len(text) for text in texts])
    starts = [revision.start for revision in find_revisions("".join(texts))]
    return sorted({int(np.searchsorted(ends, start, side="right")) for start in starts})


def begins_marker(text: str) -> bool:
    """Whether a token's text is a marker of a revision, or a piece of two letters or more that one begins with."""
    word = text.strip(" \n.,:;!?\u2581\u0120").lower()
    return len(word) > 1 and any(marker.startswith(word) or word == marker.split()[0] for marker in REVISION_MARKERS)


def suppressed(student: Tensor, own: int, markers: Tensor) -> int:
    """The student's most likely token, from (V,) log-probs, that is neither the rollout's own nor one of the `markers`.

    `markers` (W,) bool may be shorter or longer than the vocabulary of the logits, which some models pad.
    """
    candidates, known = student.clone(), min(len(markers), len(student))
    candidates[:known][markers[:known].to(student.device)] = -torch.inf
    candidates[own] = -torch.inf
    return int(candidates.argmax())
