"""Direction-adaptive self-distillation: should this token move toward the privileged teacher, or away from it?

    A_t = A_G + beta * omega_t * gap_bar_t,      omega_t = tanh((tau - H_t) / sigma_H) * sigmoid(|gap_bar_t| - 1)

Low entropy (H_t < tau): omega > 0, attract. High entropy: omega < 0, repel. A_G is the verifier's advantage of the rollout,
gap_bar the teacher-student gap in units of its own typical size. Source: arXiv 2605.22263; where the paper leaves a choice
open it is a setting here. Imports torch only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from dasd.credit.schedule import Schedule, check_number, number
from dasd.credit.signals import Credit, TokenSignals, masked_deviation, masked_mean, masked_quantile, tally


@dataclass(frozen=True)
class DirectionAdaptive:
    """DASD and, by `route`, its ablations. Every statistic is of one rollout.

    beta          weight of the teacher's term against the verifier's advantage, may be a `Schedule`; 0 is GRPO
    rho           tau is this quantile of the rollout's entropies: about the share 1 - rho of its tokens is repelled
    route         tanh  smooth, tanh((tau - H) / sigma_H)        hard           sign(tau - H)
                  attract  +1, uniform imitation                 repel          -1, uniform deviation
                  fork_only  -1 where H > tau, else 0            scaffold_only  +1 where H <= tau, else 0
    gate          multiply the route by sigmoid(|gap_bar| - 1): small gaps count less
    gap_scale     unit of gap_bar: the rollout's median |gap|, its mean, its standard deviation, or one nat. Never centred: that
                  flips signs. At least `TokenSignals.noise_floor`: where most gaps are rounding, and so is their median, the
                  others count as gap_clip. A gap that is rounding counts as 0, whatever the scale
    gap_clip      gap_bar is clipped to [-gap_clip, gap_clip]
    sigma_center  sigma_H is the mean absolute deviation of H from its mean, median, or tau ("quantile")

    Raises ValueError for settings out of range.
    """

    beta: float | Schedule = 0.1
    rho: float = 0.8
    route: Literal["tanh", "hard", "attract", "repel", "fork_only", "scaffold_only"] = "tanh"
    gate: bool = True
    gap_scale: Literal["median_abs", "mean_abs", "std", "none"] = "median_abs"
    gap_clip: float = 5.0
    sigma_center: Literal["mean", "median", "quantile"] = "mean"

    def __post_init__(self) -> None:
        for name in ("rho", "gap_clip"):
            if isinstance(value := getattr(self, name), bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, got {value!r}")
        check_number("beta", self.beta, hint=": direction is decided by entropy, not by beta's sign")
        if not 0 < self.rho < 1:
            raise ValueError(f"rho must lie between 0 and 1, got {self.rho}: tokens above that quantile are repelled")
        if not self.gap_clip > 0:
            raise ValueError(f"gap_clip must be above 0, got {self.gap_clip}; use float('inf') for no clipping")
        for name, table in (("route", _ROUTES), ("gap_scale", _GAP_SCALES), ("sigma_center", _SIGMA_CENTERS)):
            if getattr(self, name) not in table:
                raise ValueError(f"{name} must be one of {', '.join(table)}, got {getattr(self, name)!r}")

    @property
    def needs(self) -> frozenset[str]:
        return frozenset({"teacher_logps", *([] if self.route in ("attract", "repel") else ["entropies"])})

    def __call__(self, signals: TokenSignals) -> Credit:
        omega, gap_bar = self.direction(signals)
        term = number(self.beta) * omega * gap_bar
        return Credit(signals.rollout_advantages + term, omega, tally(signals, term, omega, self.rho))

    def direction(self, signals: TokenSignals) -> tuple[Tensor, Tensor]:
        """(B, T) omega, > 0 attract, < 0 repel, and (B, T) gap_bar, the normalised gap; both 0 where masked."""
        valid, entropy = signals.valid, signals.entropy
        unit = torch.maximum(_GAP_SCALES[self.gap_scale](signals)[:, None], signals.noise_floor)
        gap_bar = (signals.gap / unit).clamp(-self.gap_clip, self.gap_clip)

        tau = masked_quantile(entropy, valid, self.rho)[:, None]
        sigma = masked_deviation(entropy, valid, _SIGMA_CENTERS[self.sigma_center](signals, self.rho))[:, None]
        omega = _ROUTES[self.route](tau - entropy, sigma)
        if self.gate:
            omega = omega * torch.sigmoid(gap_bar.abs() - 1.0)
        return omega.masked_fill(~valid, 0.0), gap_bar


def _divide(values: Tensor, scale: Tensor) -> Tensor:
    """values / scale, and 0 where the scale is 0."""
    return torch.where(scale > 0, values / torch.where(scale > 0, scale, 1.0), 0.0)


def _std(signals: TokenSignals) -> Tensor:
    """Standard deviation of each rollout's gaps, in units of the largest so that squares stay in range; 0 for equal gaps."""
    gap, valid = signals.raw_gap, signals.valid
    largest = gap.abs().amax(-1) if gap.shape[-1] else gap.sum(-1)
    unit = _divide(gap, largest[:, None])
    std = masked_mean((unit - masked_mean(unit, valid)[:, None]).square(), valid).sqrt()
    return torch.where(std > 1e-6, std * largest, 0.0)  # below is rounding: the mean of equal numbers is not always that number


# Each takes `below` = tau - H (B, T), > 0 for low entropy, and sigma_H (B, 1).
_ROUTES = {
    "tanh": lambda below, sigma: torch.tanh(_divide(below, sigma)),
    "hard": lambda below, sigma: below.sign(),
    "attract": lambda below, sigma: torch.ones_like(below),
    "repel": lambda below, sigma: -torch.ones_like(below),
    "fork_only": lambda below, sigma: -(below < 0).float(),
    "scaffold_only": lambda below, sigma: (below >= 0).float(),
}
_GAP_SCALES = {
    "median_abs": lambda signals: masked_quantile(signals.raw_gap.abs(), signals.valid, 0.5),
    "mean_abs": lambda signals: masked_mean(signals.raw_gap.abs(), signals.valid),
    "std": _std,
    "none": lambda signals: signals.gap.new_ones(len(signals.gap)),
}
_SIGMA_CENTERS = {
    "mean": lambda signals, rho: masked_mean(signals.entropy, signals.valid),
    "median": lambda signals, rho: masked_quantile(signals.entropy, signals.valid, 0.5),
    "quantile": lambda signals, rho: masked_quantile(signals.entropy, signals.valid, rho),
}
