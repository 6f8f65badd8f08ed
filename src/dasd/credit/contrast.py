"""What does the right hint say that wrong hints do not? The methods whose teacher is asked more than once.

    e_t = log p(y_t | x, right hint) - log mean over wrong hints of p(y_t | x, wrong hint)

in nats, > 0: only the right hint makes this token likely; what every hint does (a style, a sureness) cancels. The verifier
decides the direction: the term never turns the sign of its advantage. Imports torch only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch import Tensor

from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, TokenSignals, credit_with

HintSource = Literal["failed_rollouts", "other_problems"]


@dataclass(frozen=True)
class ContrastiveHints:
    """RLCSD: `A_t = A + scale * tanh(e / width)` where the size of that term exceeds `threshold`, `A` elsewhere (2606.11709).
    Where `A` is 0 it stays 0.

    wrong_hints     at most so many wrong hints; each costs a forward pass of the teacher
    hints_from      `failed_rollouts`: other rollouts of the problem that the verifier refuses; `other_problems`: their context
    separate_means  tokens with a term and those without are averaged apart in the loss and both means added
                    (`Credit.loss_weights`), as the authors' code does; False: one mean over all
    """

    scale: float | Schedule = 0.5
    width: float = 0.02
    threshold: float = 0.02
    wrong_hints: int = 4
    hints_from: HintSource = "failed_rollouts"
    separate_means: bool = True

    def __post_init__(self) -> None:
        check_number("scale", self.scale)
        check_number("threshold", self.threshold)
        if not self.width > 0:
            raise ValueError(f"width must be above 0, got {self.width}")
        _check_hints(self.wrong_hints, self.hints_from)

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", "contrast_logps", *(["batch_totals"] if self.separate_means else [])})

    def residual(self, signals: TokenSignals) -> Tensor:
        """(B, T) the term; 0 where it is too small, masked, or there is no teacher."""
        found = number(self.scale) * torch.tanh(evidence(signals) / self.width)
        return found.masked_fill(found.abs() <= self.threshold, 0.0)

    def batch_totals(self, signals: TokenSignals) -> dict[str, Tensor]:
        """How many tokens have a term, and how many there are."""
        return {"with_term": (self.residual(signals) != 0).sum(), "tokens": signals.valid.sum()}

    def __call__(self, signals: TokenSignals) -> Credit:
        residual = self.residual(signals)
        credit = credit_with(signals, keep_sign(signals.rollout_advantages, residual, idle=0.0))
        if not self.separate_means:
            return credit
        totals = signals.totals(self.batch_totals)
        tokens, chosen = totals["tokens"], totals["with_term"]
        with_term, without = (tokens / max(count, 1.0) for count in (chosen, tokens - chosen))
        weights = torch.where(residual != 0, with_term, without) * signals.valid
        return replace(credit, loss_weights=weights)


@dataclass(frozen=True)
class ContrastiveTeacher:
    """SIPO: `A_t = A + kappa * clip(e, -clip, clip)`, `A = R - mean` (2609.36742). Where `A` is 0 the term stands alone, so a
    group that fails altogether still learns; where it is not, its sign stays.

    wrong_hints, hints_from  as in `ContrastiveHints`
    """

    kappa: float | Schedule = 0.1
    clip: float = 0.2
    wrong_hints: int = 1
    hints_from: HintSource = "failed_rollouts"

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps", "contrast_logps"})

    def __post_init__(self) -> None:
        check_number("kappa", self.kappa)
        if not self.clip > 0:
            raise ValueError(f"clip must be above 0, got {self.clip}; use float('inf') for no clipping")
        _check_hints(self.wrong_hints, self.hints_from)

    def __call__(self, signals: TokenSignals) -> Credit:
        term = number(self.kappa) * evidence(signals).clamp(-self.clip, self.clip)
        return credit_with(signals, keep_sign(signals.rollout_advantages, term, idle=term))


def evidence(signals: TokenSignals) -> Tensor:
    """(B, T) float32 nats, e_t; 0 where masked, where there is no teacher, and for rollouts without any wrong hint."""
    right, wrong = signals.require("teacher_logps"), signals.require("contrast_logps")
    known = signals.has_contrast
    if known is None:
        known = torch.ones(wrong.shape[:2], dtype=torch.bool, device=wrong.device)
    count = known.sum(0)[:, None]
    mean = wrong.masked_fill(~known[..., None], -torch.inf).logsumexp(0) - count.clamp(min=1).log()
    return torch.where(signals.taught & (count > 0), right - mean, 0.0)


def keep_sign(advantages: Tensor, term: Tensor, idle: Tensor | float) -> Tensor:
    """(B, T) `advantages + term`, cut at 0 where it would have the other sign, and `idle` where the advantage is 0."""
    moved = advantages + term
    return torch.where(advantages == 0, idle, torch.where(moved * advantages.sign() > 0, moved, 0.0))


def _check_hints(count: int, source: str) -> None:
    if count < 1:
        raise ValueError(f"wrong_hints must be at least 1, got {count}: the method is a contrast")
    if source not in ("failed_rollouts", "other_problems"):
        raise ValueError(f"hints_from must be failed_rollouts or other_problems, got {source!r}")
