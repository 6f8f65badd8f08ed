"""The compared methods that change the advantage of each token. One small class each, its rule in its docstring.

`A` is the verifier's advantage of the rollout, `u` the gap, teacher minus student log-prob of the token (nats, detached). What
a paper leaves open, and what was chosen, is in docs/method.md. Imports torch only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch.nn.functional import softplus

from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, TokenSignals, credit_with, high_entropy


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: each token carries its rollout's verifier advantage, `A_t = A`."""

    needs: ClassVar[frozenset[str]] = frozenset()

    def __call__(self, signals: TokenSignals) -> Credit:
        return credit_with(signals, signals.rollout_advantages)


@dataclass(frozen=True)
class Forking:
    """Policy gradient at forks only: `A_t = A` at the top `rho` of tokens by entropy, else 0 (2506.01939, equation 5).

    scope  `batch`: one threshold for all tokens given, as in the paper; `rollout`: one for each rollout
    """

    rho: float = 0.2
    scope: Literal["batch", "rollout"] = "batch"

    needs: ClassVar[frozenset[str]] = frozenset({"entropies"})

    def __post_init__(self) -> None:
        check_number("rho", self.rho, 0.0, 1.0)
        if self.scope not in ("batch", "rollout"):
            raise ValueError(f"scope must be batch or rollout, got {self.scope!r}")

    def __call__(self, signals: TokenSignals) -> Credit:
        if self.scope == "rollout":
            forks = high_entropy(signals, 1.0 - self.rho)
        else:
            flat = signals.entropy[signals.valid].sort().values
            tau = flat[min(len(flat) - 1, math.floor((1.0 - self.rho) * len(flat)))] if len(flat) else 0.0
            forks = signals.valid & (signals.entropy >= tau)
        return credit_with(signals, signals.rollout_advantages * forks)


@dataclass(frozen=True)
class SampledSelfDistillation:
    """OPSD on the sampled tokens: the advantage is the gap, `A_t = u`, without a verifier (2601.18734, policy gradient)."""

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps"})

    def __call__(self, signals: TokenSignals) -> Credit:
        return credit_with(signals, signals.gap)


@dataclass(frozen=True)
class RewardRescaled:
    """The teacher rescales the verifier's advantage and never turns it:
    `A_t = A * ((1 - lam) + lam * clip(exp(side * sign(A) * u), low, high))`.

    side          conform: side = +1, RLSD (2604.03128); deviate: side = -1, RLRT (2605.10781)
    lam           how much the teacher may change, in [0, 1], may be a `Schedule`
    low, high     smallest and largest factor
    correct_only  only rollouts that the verifier accepts are rescaled
    """

    side: Literal["conform", "deviate"] = "conform"
    lam: float | Schedule = Schedule(0.5, 0.0, steps=50)  # noqa: RUF009 (frozen)
    low: float = 0.8
    high: float = 1.2
    correct_only: bool = False

    def __post_init__(self) -> None:
        check_number("lam", self.lam, 0.0, 1.0)
        if self.side not in ("conform", "deviate"):
            raise ValueError(f"side must be conform or deviate, got {self.side!r}")
        if not 0 <= self.low <= 1 <= self.high:
            raise ValueError(f"low and high must lie on both sides of 1 and low at 0 or above, got {self.low} and {self.high}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", *(["correct"] if self.correct_only else [])})

    def __call__(self, signals: TokenSignals) -> Credit:
        advantages = signals.rollout_advantages
        evidence = advantages.sign() * signals.gap * (1.0 if self.side == "conform" else -1.0)
        lam = number(self.lam)
        factor = (1.0 - lam) + lam * evidence.clamp(-50.0, 50.0).exp().clamp(self.low, self.high)
        if self.correct_only:
            factor = torch.where(signals.require("correct")[:, None], factor, 1.0)
        return credit_with(signals, advantages * factor)


@dataclass(frozen=True)
class AntiSelfDistillation:
    """AntiSD moves away from the teacher everywhere: `A_t = A - lam * 0.5 * (softplus(u) - log 2)` (2605.11609).

    lam           weight, may be a `Schedule`
    switch        the term rests while the teacher's median entropy lies below this share of its warm-up value; None: never
    warmup_steps  optimisation steps whose mean median is the warm-up value

    Reads `teacher_entropy_history` for the switch. Raises ValueError for a switch without warm-up.
    """

    lam: float | Schedule = 0.5
    switch: float | None = 0.93
    warmup_steps: int = 10

    def __post_init__(self) -> None:
        check_number("lam", self.lam)
        if self.switch is not None:
            check_number("switch", self.switch, 0.0, 1.0)
            if self.warmup_steps < 1:
                raise ValueError(
                    f"the entropy switch needs a warm-up to compare with, got warmup_steps {self.warmup_steps}: set it to 1 or "
                    "more, or switch to null"
                )

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", *(["teacher_entropy_history"] if self.switch is not None else [])})

    def is_on(self, history: Sequence[float]) -> bool:
        """Whether the term acts, given the median teacher entropy of each step so far, the present one last."""
        if self.switch is None or len(history) <= self.warmup_steps:
            return True
        return history[-1] >= self.switch * sum(history[: self.warmup_steps]) / self.warmup_steps

    def __call__(self, signals: TokenSignals) -> Credit:
        history = signals.teacher_entropy_history if self.switch is not None else ()
        if history is None:
            raise ValueError("this method needs teacher_entropy_history, which was not given to TokenSignals")
        lam = number(self.lam) if self.is_on(history) else 0.0
        term = lam * 0.5 * (softplus(signals.gap) - math.log(2.0))
        return credit_with(signals, signals.rollout_advantages - term * signals.taught)


@dataclass(frozen=True)
class ContrastiveHints:
    """RLCSD: what the right hint says and wrong hints do not, `A_t = A + scale * tanh(e / width)`, and never with the sign of A
    turned (2606.11709).

    `e` is the token's log-prob under the right hint minus its mean log-prob under the wrong ones.

    wrong_hints  how many wrong hints the teacher also scores; each costs a forward pass
    """

    scale: float | Schedule = 0.5
    width: float = 0.02
    wrong_hints: int = 1

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps", "contrast_logps"})

    def __post_init__(self) -> None:
        check_number("scale", self.scale)
        if not self.width > 0:
            raise ValueError(f"width must be above 0, got {self.width}")
        if self.wrong_hints < 1:
            raise ValueError(f"wrong_hints must be at least 1, got {self.wrong_hints}: the method is a contrast")

    def __call__(self, signals: TokenSignals) -> Credit:
        advantages = signals.rollout_advantages
        evidence = signals.require("teacher_logps") - signals.require("contrast_logps").mean(0)
        moved = advantages + number(self.scale) * torch.tanh(evidence / self.width) * signals.taught
        return credit_with(signals, torch.where(moved * advantages > 0, moved, 0.0))
