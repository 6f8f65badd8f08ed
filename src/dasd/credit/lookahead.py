"""Which way should the teacher's term point at tokens like this one? Let one more step of the verifier say.

Let d be the step of Adam that the verifier's gradient alone would make, remembered from earlier batches, and u_t the change of
log p(y_t) by that step. For a class c of tokens, here a decile of the rollout's entropies,

    slope_c = mean over problems of  sum over the problem's tokens in c of  gap_bar_t * u_t

is, to first order, what attracting tokens of that class to the teacher does to the verifier's objective of *other* problems.
With se_c the standard error of that mean,

    A_t = A_G + beta * omega_c(t) * gap_bar_t,      omega_c = sign(slope_c) * max(0, 1 - (z se_c / slope_c)^2)

so a class without evidence has no direction, and a run without any is GRPO. Evidence decays, and what was learnt turns slopes.
Ours; the router of 2605.22263 is drawn by hand. Imports torch only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dasd.credit.direction import DirectionAdaptive
from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, TokenSignals, entropy_deciles, tally

CLASSES = 10
EVIDENCE = "evidence"
Evidence = Mapping[str, Sequence[float]]  # sums of `update`


@dataclass(frozen=True)
class Lookahead:
    """Direction by entropy decile from the verifier's own lookahead.

    beta    weight of the teacher's term, may be a `Schedule`; 0 is GRPO
    z       standard errors that a slope must exceed to count at all
    memory  share of the older evidence that is kept each time that new evidence comes, in [0, 1)
    every   steps between two looks, each of which costs two passes over the rollouts without gradient

    Raises ValueError for settings out of range.
    """

    beta: float | Schedule = 0.1
    z: float = 2.0
    memory: float = 0.9
    every: int = 2

    def __post_init__(self) -> None:
        check_number("beta", self.beta, hint=": direction is decided by evidence, not by beta's sign")
        check_number("z", self.z)
        if isinstance(self.memory, bool) or not isinstance(self.memory, int | float) or not 0 <= self.memory < 1:
            raise ValueError(f"memory must lie in [0, 1), got {self.memory!r}")
        if isinstance(self.every, bool) or not isinstance(self.every, int) or self.every < 1:
            raise ValueError(f"every must be a whole number of at least 1, got {self.every!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", "entropies", EVIDENCE})

    def __call__(self, signals: TokenSignals) -> Credit:
        deciles = entropy_deciles(signals)
        by_class = torch.tensor(self.directions(signals.evidence), device=deciles.device)
        omega = by_class[deciles.clamp(min=0)].masked_fill(~signals.valid, 0.0)
        term = number(self.beta) * omega * _gap_bar(signals)
        return Credit(signals.rollout_advantages + term, omega, tally(signals, term, omega))

    def directions(self, evidence: Evidence | None) -> list[float]:
        """omega of each class, lowest entropies first; 0 where there is no evidence."""
        if not evidence:
            return [0.0] * CLASSES
        weight, squared = evidence["weight"][0], evidence["squared_weight"][0]
        rest = weight**2 - squared  # of n problems that weigh alike n (n - 1)
        if rest <= 0:
            return [0.0] * CLASSES  # one problem has no standard error
        found = []
        for total, squares in zip(evidence["sum"], evidence["squares"], strict=True):
            mean = total / weight
            error = (max(squares / weight - mean**2, 0.0) * squared / rest) ** 0.5
            strength = 0.0 if mean == 0 else max(0.0, 1.0 - (self.z * error / mean) ** 2)
            found.append(-strength if mean < 0 else strength)
        return found

    def look(self, signals: TokenSignals, uphill: Tensor) -> Tensor:
        """(B, CLASSES) each rollout's sums of gap_bar * uphill; `uphill` (B, T) nats."""
        product = (_gap_bar(signals) * uphill.float()).masked_fill(~signals.taught, 0.0)
        deciles = entropy_deciles(signals)
        return torch.stack([product.masked_fill(deciles != c, 0.0).sum(-1) for c in range(CLASSES)], dim=1)

    def update(self, evidence: Evidence | None, found: Tensor) -> dict[str, list[float]]:
        """Older evidence, which fades, and the (G, CLASSES) sums that were `found`, one row a problem."""
        values = found.double().cpu()
        count = float(len(values))
        fresh = {
            "weight": [count], "squared_weight": [count], "sum": values.sum(0).tolist(),
            "squares": values.square().sum(0).tolist(),
        }  # fmt: skip
        if evidence is None:
            return fresh
        keep = {name: self.memory ** (2 if name == "squared_weight" else 1) for name in fresh}
        return {name: [keep[name] * a + b for a, b in zip(evidence[name], fresh[name], strict=True)] for name in fresh}


def _gap_bar(signals: TokenSignals) -> Tensor:
    return DirectionAdaptive(map="attract", gate="none").direction(signals)[1]
