"""Direction-adaptive self-distillation: should this token move toward the privileged teacher, or away from it?

    A_t = A_G + beta * omega_t * gap_bar_t,      omega_t = tanh((tau - H_t) / sigma_H) * sigmoid(|gap_bar_t| - 1)

Low entropy (H_t < tau): omega > 0, attract. High entropy: omega < 0, repel. A_G is the verifier's advantage of the rollout,
gap_bar the teacher-student gap in units of its own typical size. Source: arXiv 2605.22263; where the paper leaves a choice
open, and where its ablations make another, it is a setting here (`routing.py` has their parts). Imports torch only.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dasd.credit.routing import CENTERS, GAP_SCALES, GATES, MAPS, SIGMAS, SIGNALS, ranks
from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, TokenSignals, masked_mean, masked_quantile, tally


@dataclass(frozen=True)
class DirectionAdaptive:
    """DASD, its ablations and its control arms: one class, whose settings span their space. Every statistic is of one rollout.

    beta          weight of the teacher's term against the verifier's advantage, may be a `Schedule`; 0 is GRPO
    rho           tau is this quantile of the rollout's signals: about the share 1 - rho of its tokens is repelled
    signal        what says that a token is unsure: student_entropy, teacher_entropy, attention_entropy, gradient_norm,
                  token_frequency, position
    map           tanh  smooth, tanh((tau - H) / sigma_H)        linear  the same, clipped to [-1, 1] in place of tanh
                  hard  sign(tau - H)                            attract +1, uniform imitation;  repel  -1, uniform deviation
    arm           which tokens have a direction at all: both, low (at tau or below), high (above tau)
    flip          low, high: that arm's direction is turned round; none
    gate          what the direction is multiplied by: gap  sigmoid(|gap_bar| - 1), small gaps count less;  none  1
                  threshold  1 where |gap_bar| > gate_threshold, else 0;  magnitude  min(|gap_bar|, 1)
    gap_scale     unit of gap_bar: the rollout's median |gap|, its mean, its standard deviation, or one nat. Not centred: that
                  is for `baseline` to do. At least `TokenSignals.noise_floor`: where most gaps are rounding, and so is their
                  median, the others count as gap_clip. A gap that is rounding counts as 0, whatever the scale
    gap_units     one unit for the rollout, or one for each side of tau, so that the smaller gaps of sure tokens carry credit
    gap_clip      gap_bar is clipped to [-gap_clip, gap_clip]
    sigma         one  sigma_H is the mean absolute deviation of H;  side  the mean distance from tau of each side's own tokens
    sigma_center  one: the deviation is from the mean of H, its median, or tau ("quantile")
    rank          the signal's rank in the rollout, from 0 to 1, takes its place
    baseline      what the teacher's term is less: none  nothing;  rollout  its mean over the rollout's tokens of `arm`;
                  side  its mean over those of their side of tau (ours). A student's own tokens have a gap of
                  -KL(student || teacher) in the mean, so without one deviating rewards, and conforming punishes, whatever is
                  written. In expectation a baseline is no gradient; what the printed form learns is the same (docs/findings.md)

    Raises ValueError for settings out of range.
    """

    beta: float | Schedule = 0.1
    rho: float = 0.8
    signal: str = "student_entropy"
    map: Literal["tanh", "linear", "hard", "attract", "repel"] = "tanh"
    arm: Literal["both", "low", "high"] = "both"
    flip: Literal["none", "low", "high"] = "none"
    gate: Literal["gap", "none", "threshold", "magnitude"] = "gap"
    gate_threshold: float = 1.0
    gap_scale: Literal["median_abs", "mean_abs", "std", "none"] = "median_abs"
    gap_units: Literal["one", "side"] = "one"
    gap_clip: float = 5.0
    sigma: Literal["one", "side"] = "one"
    sigma_center: Literal["mean", "median", "quantile"] = "mean"
    rank: bool = False
    baseline: Literal["none", "rollout", "side"] = "none"

    def __post_init__(self) -> None:
        for name in ("rho", "gap_clip"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, got {value!r}")
        check_number("beta", self.beta, hint=": direction is decided by entropy, not by beta's sign")
        check_number("gate_threshold", self.gate_threshold)
        if not 0 < self.rho < 1:
            raise ValueError(f"rho must lie between 0 and 1, got {self.rho}: tokens above that quantile are repelled")
        if not self.gap_clip > 0:
            raise ValueError(f"gap_clip must be above 0, got {self.gap_clip}; use float('inf') for no clipping")
        if not isinstance(self.rank, bool):
            raise ValueError(f"rank must be True or False, got {self.rank!r}")
        for name, choices in _CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")

    @property
    def is_uniform(self) -> bool:
        """Whether all tokens have one direction, whatever the signal says."""
        one_side = (self.arm, self.flip, self.gap_units) == ("both", "none", "one") and self.baseline != "side"
        return self.map in ("attract", "repel") and one_side

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", *([] if self.is_uniform else SIGNALS[self.signal][1])})

    def __call__(self, signals: TokenSignals) -> Credit:
        omega, gap_bar = self.direction(signals)
        pull = omega * gap_bar
        term = number(self.beta) * (pull - self._expected(pull, signals))
        return Credit(signals.rollout_advantages + term, omega, tally(signals, term, omega, self.rho))

    def direction(self, signals: TokenSignals) -> tuple[Tensor, Tensor]:
        """(B, T) omega, > 0 attract, < 0 repel, and (B, T) gap_bar, the normalised gap; both 0 where masked."""
        valid, (signal, tau) = signals.valid, self._unsure(signals)
        below = tau[:, None] - signal
        low, high = valid & (below >= 0), valid & (below < 0)

        if self.gap_units == "one":
            unit = GAP_SCALES[self.gap_scale](signals.raw_gap, valid)[:, None]
        else:
            of_low, of_high = (GAP_SCALES[self.gap_scale](signals.raw_gap, side)[:, None] for side in (low, high))
            unit = torch.where(low, of_low, of_high)
        gap_bar = (signals.gap / torch.maximum(unit, signals.noise_floor)).clamp(-self.gap_clip, self.gap_clip)

        sigma = SIGMAS[self.sigma](signal, below, valid, CENTERS[self.sigma_center](signal, valid, tau))
        omega = MAPS[self.map](below, sigma) * GATES[self.gate](gap_bar.abs(), self.gate_threshold)
        sides = {"low": low, "high": high, "both": valid, "none": torch.zeros_like(valid)}
        omega = torch.where(sides[self.flip], -omega, omega)
        return omega.masked_fill(~sides[self.arm], 0.0), gap_bar

    def _unsure(self, signals: TokenSignals) -> tuple[Tensor, Tensor]:
        """(B, T) the signal, and (B,) tau, its quantile."""
        signal = torch.zeros_like(signals.gap) if self.is_uniform else SIGNALS[self.signal][0](signals)
        if self.rank:
            signal = ranks(signal, signals.valid)
        return signal, masked_quantile(signal, signals.valid, self.rho)

    def _expected(self, pull: Tensor, signals: TokenSignals) -> Tensor:
        """(B, T) what `baseline` takes off `pull`; 0 for tokens without a teacher or outside `arm`."""
        expected = torch.zeros_like(pull)
        if self.baseline == "none":
            return expected
        signal, tau = self._unsure(signals)
        low = signal <= tau[:, None]
        sides = [side for name, side in (("low", low), ("high", ~low)) if self.arm in (name, "both")]
        for group in sides if self.baseline == "side" else [torch.stack(sides).any(0)]:
            group = group & signals.taught
            expected = torch.where(group, masked_mean(pull, group)[:, None], expected)
        return expected


# The tables themselves: what a user enters into one of them can be named.
_CHOICES: dict[str, Collection[str]] = {
    "signal": SIGNALS,
    "map": MAPS,
    "arm": ("both", "low", "high"),
    "flip": ("none", "low", "high"),
    "gate": GATES,
    "gap_scale": GAP_SCALES,
    "gap_units": ("one", "side"),
    "sigma": SIGMAS,
    "sigma_center": CENTERS,
    "baseline": ("none", "rollout", "side"),
}
