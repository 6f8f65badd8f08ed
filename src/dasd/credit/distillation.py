"""The compared methods that pull the student's whole next-token distribution toward the teacher's, and DASD's own form of it.

Each gives the policy loss its advantages (0 where there is no verifier) and one or two `DivergenceTerm`s: a divergence and its
weight at every token. `D` below is a divergence of student and teacher in nats, `H` the student's entropy, `H_T` the teacher's.
What a paper leaves open, and what was chosen, is in docs/method.md. Imports torch only.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dasd.credit.direction import DirectionAdaptive
from dasd.credit.divergence import Divergence
from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, DivergenceTerm, TokenSignals, credit_with, high_entropy

VOCABULARY = "teacher_distribution"  # in a method's `needs`: it returns terms, and the trainer must have the teacher's logits


@dataclass(frozen=True)
class Distillation:
    """Every token is pulled to the teacher: weights `strength * w_t` on one divergence, plus `verifier_weight * A`.

    divergence       how the distributions are compared
    strength         weight of the term, may be a `Schedule`
    verifier_weight  share of the verifier's advantage in the policy loss; 0: no verifier
    ratio_cap        the term is weighted by min(importance ratio, cap); None: it is not
    weighting        w_t: `uniform` 1; `position` late tokens more, by 0.25 + 0.75 * sigmoid((position - 0.30) / 0.10), token t
                     of n standing at (t - 1/2) / n
    average          the term's mean: over all `tokens`, over the `taught` ones, or in each rollout and then over the taught
                     `rollouts`
    anchor           share of tokens, the most uncertain ones, whose target is U * student + (1 - U) * teacher with
                     U = sigmoid(p_student * (S - T) / anchor_width), > 1/2 where the teacher suppresses what the student said;
                     0: the target is the teacher everywhere

    OPSD (2601.18734): forward KL with capped summands. SDPO (2601.20802): JSD on the student's top 100 and a tail, ratio_cap 2,
    over taught tokens. SDFT (2601.19897): reverse KL. PW-OPSD (2605.21606): OPSD by position, rollout by rollout. AD-OPSD
    (2607.10805): OPSD with an anchor of 0.2.
    """

    divergence: Divergence = field(default_factory=Divergence)
    strength: float | Schedule = 1.0
    verifier_weight: float = 0.0
    ratio_cap: float | None = None
    weighting: Literal["uniform", "position"] = "uniform"
    average: Literal["tokens", "taught", "rollouts"] = "tokens"
    anchor: float = 0.0
    anchor_width: float = 1.0

    def __post_init__(self) -> None:
        check_number("strength", self.strength)
        check_number("verifier_weight", self.verifier_weight)
        check_number("anchor", self.anchor, 0.0, 1.0)
        if self.ratio_cap is not None and not self.ratio_cap > 0:
            raise ValueError(f"ratio_cap must be above 0, got {self.ratio_cap}; null for no importance ratio")
        if self.weighting not in _WEIGHTINGS:
            raise ValueError(f"weighting must be one of {', '.join(_WEIGHTINGS)}, got {self.weighting!r}")
        if self.average not in ("tokens", "taught", "rollouts"):
            raise ValueError(f"average must be one of tokens, taught, rollouts, got {self.average!r}")
        if not self.anchor_width > 0:
            raise ValueError(f"anchor_width must be above 0, got {self.anchor_width}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", VOCABULARY, *(["entropies"] if self.anchor else [])})

    def __call__(self, signals: TokenSignals) -> Credit:
        weights = (
            number(self.strength)
            * _WEIGHTINGS[self.weighting](signals)
            * _capped_ratio(signals, self.ratio_cap)
            * signals.taught
        )
        if self.average == "rollouts":
            weights = weights / signals.valid.sum(-1, keepdim=True).clamp(min=1)
        share = None
        if self.anchor:
            risk = signals.require("student_logps").clamp(max=0.0).exp() * -signals.gap
            share = torch.sigmoid(risk / self.anchor_width) * high_entropy(signals, 1.0 - self.anchor)
        advantages = number(self.verifier_weight) * signals.rollout_advantages
        return credit_with(signals, advantages, DivergenceTerm(self.divergence, weights, share, self.average))


@dataclass(frozen=True)
class EntropyRouted:
    """EOPD: `A_t = u`, the sampled reverse KL, and forward KL over the teacher's 16 most likely tokens, nothing in place of the
    rest, where the teacher itself is uncertain, `H_T > threshold` (2603.07079).

    gap_clip  u is clipped to [-gap_clip, gap_clip]; not in the source
    """

    divergence: Divergence = field(default_factory=lambda: Divergence("forward_kl", top_k=16, support="teacher", tail="drop"))
    threshold: float = 0.8
    gap_clip: float = math.inf
    strength: float | Schedule = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps", "teacher_entropies", VOCABULARY})

    def __post_init__(self) -> None:
        check_number("threshold", self.threshold)
        check_number("strength", self.strength)
        if not self.gap_clip > 0:
            raise ValueError(f"gap_clip must be above 0, got {self.gap_clip}; use float('inf') for no clipping")

    def __call__(self, signals: TokenSignals) -> Credit:
        uncertain = (signals.require("teacher_entropies") > self.threshold) & signals.taught
        advantages = signals.gap.clamp(-self.gap_clip, self.gap_clip)
        return credit_with(signals, advantages, DivergenceTerm(self.divergence, number(self.strength) * uncertain.float()))


@dataclass(frozen=True)
class SampleRouted:
    """SRPO: rollouts that the verifier accepts learn by policy gradient, the others by distillation weighted
    `exp(-sharpness * H_T)`, which is normalised to mean 1 over all distilled tokens of the batch (2604.02288). A wrong rollout
    without a teacher keeps its policy gradient.
    """

    divergence: Divergence = field(default_factory=lambda: Divergence("jsd", top_k=100))
    strength: float | Schedule = 1.0
    ratio_cap: float | None = 2.0
    sharpness: float = 1.0

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps", "teacher_entropies", "correct", "batch_totals", VOCABULARY})

    def __post_init__(self) -> None:
        check_number("strength", self.strength)
        check_number("sharpness", self.sharpness)
        if self.ratio_cap is not None and not self.ratio_cap > 0:
            raise ValueError(f"ratio_cap must be above 0, got {self.ratio_cap}; null for no importance ratio")

    def certainty(self, signals: TokenSignals) -> Tensor:
        """(B, T) how sure the teacher is of each token that is distilled, in (0, 1]; 0 elsewhere."""
        return self.distilled(signals) * torch.exp(-self.sharpness * signals.require("teacher_entropies"))

    def distilled(self, signals: TokenSignals) -> Tensor:
        """(B, T) bool."""
        return signals.taught & ~signals.require("correct")[:, None]

    def batch_totals(self, signals: TokenSignals) -> dict[str, Tensor]:
        """Certainty and number of the tokens that are distilled."""
        return {"certainty": self.certainty(signals).double().sum(), "distilled": self.distilled(signals).sum()}

    def __call__(self, signals: TokenSignals) -> Credit:
        totals = signals.totals(self.batch_totals)
        mean = totals["certainty"] / max(totals["distilled"], 1.0)
        weights = number(self.strength) * self.certainty(signals) / max(mean, 1e-30) * _capped_ratio(signals, self.ratio_cap)
        advantages = signals.rollout_advantages.masked_fill(self.distilled(signals), 0.0)
        return credit_with(signals, advantages, DivergenceTerm(self.divergence, weights))


@dataclass(frozen=True)
class DirectionAdaptiveVocabulary(DirectionAdaptive):
    """DASD over whole distributions: `loss + beta * omega_t * D_t`, attracted by `attract`, repelled by `repel`.

    The repelled side is ascended, so its divergence must be bounded: reverse KL without a bound collapses the policy
    (2605.22263 gives the sampled form; this one is second-hand). Raises ValueError for an unbounded `repel`.
    """

    attract: Divergence = field(default_factory=lambda: Divergence("reverse_kl"))
    repel: Divergence = field(default_factory=lambda: Divergence("jsd"))

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.baseline != "none":
            raise ValueError(
                f"baseline must be none, got {self.baseline!r}: a divergence is an expectation, and has no noise to take off"
            )
        if self.repel.kind != "jsd":
            raise ValueError(
                f"repel must be a jsd, got {self.repel.kind}: it is maximised, and a KL has no bound (the policy collapses)"
            )

    @property
    def needs(self) -> frozenset[str]:
        return super().needs | {VOCABULARY}

    def __call__(self, signals: TokenSignals) -> Credit:
        omega, _ = self.direction(signals)
        evident = (signals.gap != 0).any(-1, keepdim=True)  # where all gaps are rounding, so is the divergence
        weights = number(self.beta) * omega * (signals.taught & evident)
        terms = DivergenceTerm(self.attract, weights.clamp(min=0.0)), DivergenceTerm(self.repel, weights.clamp(max=0.0))
        return credit_with(signals, signals.rollout_advantages, *terms, omega=omega)


def _by_position(signals: TokenSignals) -> Tensor:
    position = (signals.valid.long().cumsum(-1) - 0.5) / signals.valid.sum(-1, keepdim=True).clamp(min=1)
    return 0.25 + 0.75 * torch.sigmoid((position - 0.30) / 0.10)


_WEIGHTINGS: dict[str, Callable[[TokenSignals], Tensor]] = {
    "uniform": lambda signals: torch.ones_like(signals.gap),
    "position": _by_position,
}


def _capped_ratio(signals: TokenSignals, cap: float | None) -> Tensor:
    if cap is None or signals.ratio is None:
        return torch.ones_like(signals.gap)
    return signals.require("ratio").clamp(max=cap)
