"""The compared methods that change the advantage of each token. One small class each, its rule in its docstring.

`A` is the verifier's advantage of the rollout, `u` the gap, teacher minus student log-prob of the token (nats, detached). What
a paper leaves open, and what was chosen, is in docs/method.md. Imports torch only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal

import torch
from torch.nn.functional import softplus

from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, TokenSignals, credit_with, high_entropy, masked_mean


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
        _check_scope(self.scope)

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
        factor = (1.0 - lam) + lam * evidence.clamp(-_LARGEST_EXPONENT, _LARGEST_EXPONENT).exp().clamp(self.low, self.high)
        if self.correct_only:
            factor = torch.where(signals.require("correct")[:, None], factor, 1.0)
        return credit_with(signals, advantages * factor)


@dataclass(frozen=True)
class AntiSelfDistillation:
    """AntiSD moves away from the teacher everywhere: `A_t = A - lam * 0.5 * (softplus(u) - log 2)` (2605.11609).

    lam           weight, may be a `Schedule`
    switch        the term is switched off when the teacher's median entropy falls below this share of its warm-up value, and on
                  again when it is back at that value itself; None: it is always on
    warmup_steps  steps without the term, whose mean median is the warm-up value

    Reads `teacher_entropy_history` for the switch. Raises ValueError for a switch without warm-up.
    """

    lam: float | Schedule = 0.5
    switch: float | None = 0.93
    warmup_steps: int = 5

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
        if self.switch is None:
            return True
        if len(history) <= self.warmup_steps:
            return False
        level, on = math.fsum(history[: self.warmup_steps]) / self.warmup_steps, True
        for median in history[self.warmup_steps :]:
            on = median >= (self.switch * level if on else level)
        return on

    def __call__(self, signals: TokenSignals) -> Credit:
        history = signals.teacher_entropy_history if self.switch is not None else ()
        if history is None:
            raise ValueError("this method needs teacher_entropy_history, which was not given to TokenSignals")
        lam = number(self.lam) if self.is_on(history) else 0.0
        term = lam * 0.5 * (softplus(signals.gap) - math.log(2.0))
        return credit_with(signals, signals.rollout_advantages - term * signals.taught)


@dataclass(frozen=True)
class EntropyGuided:
    """EGRSD: the verifier gives the direction, the teacher the size, and less of it where it is itself unsure,
    `A_t = sign(A) * min(exp(u), ratio_cap) * clip(1 - gamma * H_T / max H_T, floor, 1)` (2605.13255).

    gamma      how much the teacher's entropy, over its rollout's largest, takes away
    floor      smallest weight of a token
    ratio_cap  largest likelihood ratio; None: it is not cut

    A rollout without a teacher keeps its advantage. By what the source divides the entropy and its gamma are not known to us.
    """

    gamma: float = 1.0
    floor: float = 0.1
    ratio_cap: float | None = None

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps", "teacher_entropies"})

    def __post_init__(self) -> None:
        check_number("gamma", self.gamma)
        check_number("floor", self.floor, 0.0, 1.0)
        if self.ratio_cap is not None and not self.ratio_cap > 0:
            raise ValueError(f"ratio_cap must be above 0, got {self.ratio_cap}; null for no cap")

    def __call__(self, signals: TokenSignals) -> Credit:
        advantages, uncertainty = signals.rollout_advantages, signals.require("teacher_entropies")
        largest = uncertainty.amax(-1, keepdim=True) if uncertainty.shape[-1] else uncertainty
        unsure = torch.where(largest > 0, uncertainty / largest.clamp(min=1e-30), 0.0)
        confidence = (1.0 - self.gamma * unsure).clamp(self.floor, 1.0)
        ratio = signals.gap.clamp(max=_LARGEST_EXPONENT).exp()
        ratio = ratio if self.ratio_cap is None else ratio.clamp(max=self.ratio_cap)
        return credit_with(signals, torch.where(signals.taught, advantages.sign() * ratio * confidence, advantages))


@dataclass(frozen=True)
class RatioReweighted:
    """Distilled RL: in rollouts better than their group a token counts by how much likelier the teacher finds it,
    `A_t = A * w_t / (geometric mean of the rollout's w)`, `w_t = clip(exp(u), 1 / clip, clip)`; the others keep `A`
    (2607.17247).
    """

    clip: float = 3.0

    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps"})

    def __post_init__(self) -> None:
        check_number("clip", self.clip, 1.0)

    def __call__(self, signals: TokenSignals) -> Credit:
        advantages, bound = signals.rollout_advantages, math.log(self.clip)
        log_ratio = signals.gap.clamp(-bound, bound)
        weight = (log_ratio - masked_mean(log_ratio, signals.valid)[:, None]).exp()
        return credit_with(signals, torch.where(advantages > 0, advantages * weight, advantages))


@dataclass(frozen=True)
class SelfAdaptation:
    """OPSA: no teacher and no verifier. The tokens that the student itself found least likely are made less likely still, the
    more the higher its entropy there, `A_t = -least - (most - least) * (H - min H) / (max H - min H)`; the others get 0
    (2608.31046). Minimum and maximum are of the chosen tokens; where these are equal all get `-most`.

    share        of the tokens, by log-prob, at least one
    least, most  sizes of the advantage
    scope        `batch`: the lowest of all tokens given, as in the source; `rollout`: of each rollout

    Only the chosen tokens count in the loss's mean (`Credit.loss_weights`).
    """

    share: float = 0.2
    least: float = 0.5
    most: float = 1.0
    scope: Literal["batch", "rollout"] = "batch"

    needs: ClassVar[frozenset[str]] = frozenset({"entropies"})

    def __post_init__(self) -> None:
        check_number("share", self.share, 0.0, 1.0)
        check_number("least", self.least)
        check_number("most", self.most, self.least, hint=": it is the larger one")
        _check_scope(self.scope)

    def __call__(self, signals: TokenSignals) -> Credit:
        valid, entropy = signals.valid, signals.entropy
        logps = signals.require("student_logps")
        if self.scope == "batch":
            valid, entropy, logps = (tensor.reshape(1, -1) for tensor in (valid, entropy, logps))
        count = valid.sum(-1, keepdim=True)
        wanted = (self.share * count).floor().clamp(min=1)
        order = logps.masked_fill(~valid, torch.inf).sort(dim=-1, stable=True).indices
        chosen = valid & (order.argsort(-1) < wanted)
        low = entropy.masked_fill(~chosen, torch.inf).amin(-1, keepdim=True) if entropy.numel() else entropy
        high = entropy.masked_fill(~chosen, -torch.inf).amax(-1, keepdim=True) if entropy.numel() else entropy
        spread = high - low
        rank = torch.where(spread > 1e-12, (entropy - low) / spread.clamp(min=1e-12), 1.0)
        advantages = torch.where(chosen, -(self.least + (self.most - self.least) * rank), 0.0).reshape(signals.valid.shape)
        weights = (chosen * count / chosen.sum(-1, keepdim=True).clamp(min=1)).reshape(signals.valid.shape)
        return replace(credit_with(signals, advantages), loss_weights=weights)


_LARGEST_EXPONENT = 50.0  # e to the 50th is finite in float32, its square is not


def _check_scope(scope: str) -> None:
    if scope not in ("batch", "rollout"):
        raise ValueError(f"scope must be batch or rollout, got {scope!r}")
