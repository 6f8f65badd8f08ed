"""How is a token's direction found? What `DirectionAdaptive` is put together from, one small function for each choice.

A *signal* x says how unsure the student is at a token: high is unsure. tau is a quantile of the rollout's own signals. A
*map* makes a direction of `below` = tau - x and of sigma, a typical distance from tau; a *gate* makes a factor in [0, 1] of
|gap_bar|. The ablations of 2605.22263 name signals, maps and gates without formulas that we could read; which are ours is said
below. Imports torch only.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dasd.credit.signals import TokenSignals, masked_deviation, masked_mean, masked_quantile

# ---- signals: (B, T) from a batch, 0 where masked; what each needs of `TokenSignals`


def position(signals: TokenSignals) -> Tensor:
    """1 for a rollout's first token, 0 for its last: the beginning counts as unsure, as in the control `position_router`."""
    place = signals.valid.long().cumsum(-1) - 1
    return (1.0 - place / (signals.valid.sum(-1, keepdim=True) - 1).clamp(min=1)).masked_fill(~signals.valid, 0.0)


def token_frequency(signals: TokenSignals) -> Tensor:
    """-log of how often the token occurs among the tokens of its batch of rollouts (ours): rare tokens count as unsure."""
    return -signals.require("token_frequencies").clamp(1e-30, 1.0).log().masked_fill(~signals.valid, 0.0)


def gradient_norm(signals: TokenSignals) -> Tensor:
    """||softmax(z) - onehot(y)||_2, the size of the gradient of -log p(y) by the logits z: sqrt(1 - 2 p(y) + sum_v p(v)^2)."""
    chosen = signals.require("student_logps").clamp(max=0.0).exp()
    squares = signals.require("sum_squared_probs").clamp(0.0, 1.0)
    return (1.0 - 2.0 * chosen + squares).clamp(min=0.0).sqrt().masked_fill(~signals.valid, 0.0)


SIGNALS: dict[str, tuple[Callable[[TokenSignals], Tensor], tuple[str, ...]]] = {
    "student_entropy": (lambda signals: signals.entropy, ("entropies",)),
    "teacher_entropy": (
        lambda signals: signals.require("teacher_entropies").masked_fill(~signals.taught, 0.0),
        ("teacher_entropies",),
    ),
    "attention_entropy": (lambda signals: signals.require("attention_entropies"), ("attention_entropies",)),
    "gradient_norm": (gradient_norm, ("sum_squared_probs",)),
    "token_frequency": (token_frequency, ("token_frequencies",)),
    "position": (position, ()),
}


def ranks(values: Tensor, valid: Tensor) -> Tensor:
    """(B, T) in [0, 1]: the share of its rollout's other tokens that lie below each; equal values share their mean rank."""
    ordered = values.masked_fill(~valid, torch.inf).sort(-1).values.contiguous()
    first, last = (torch.searchsorted(ordered, values.contiguous(), right=right) for right in (False, True))
    rank = (first + last - 1) / 2 / (valid.sum(-1, keepdim=True) - 1).clamp(min=1)
    return rank.masked_fill(~valid, 0.0)


# ---- sigma: (B, 1) or (B, T), the typical distance from tau; `below` is tau - x


def one_sigma(signal: Tensor, below: Tensor, valid: Tensor, center: Tensor) -> Tensor:
    """Mean absolute deviation of all the rollout's signals from `center`."""
    return masked_deviation(signal, valid, center)[:, None]


def sigma_of_side(signal: Tensor, below: Tensor, valid: Tensor, center: Tensor) -> Tensor:
    """Mean distance from tau of the tokens below it for those, and of the tokens above it for the others (ours)."""
    low, high = (masked_mean(below.abs(), valid & side)[:, None] for side in (below > 0, below < 0))
    return torch.where(below > 0, low, high)


SIGMAS = {"one": one_sigma, "side": sigma_of_side}
CENTERS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "mean": lambda signal, valid, tau: masked_mean(signal, valid),
    "median": lambda signal, valid, tau: masked_quantile(signal, valid, 0.5),
    "quantile": lambda signal, valid, tau: tau,
}

# ---- maps: (B, T) direction in [-1, 1] from `below` and sigma, > 0 attracts

MAPS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "tanh": lambda below, sigma: torch.tanh(divide(below, sigma)),
    "linear": lambda below, sigma: divide(below, sigma).clamp(-1.0, 1.0),
    "hard": lambda below, sigma: below.sign(),
    "attract": lambda below, sigma: torch.ones_like(below),
    "repel": lambda below, sigma: -torch.ones_like(below),
}

# ---- gates: (B, T) factor in [0, 1] from |gap_bar| and the threshold

GATES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "gap": lambda size, threshold: torch.sigmoid(size - 1.0),
    "none": lambda size, threshold: torch.ones_like(size),
    "threshold": lambda size, threshold: (size > threshold).float(),
    "magnitude": lambda size, threshold: size.clamp(max=1.0),
}

# ---- units of the gap: (B,) from (B, T) gaps and the tokens that count


def _std(gap: Tensor, valid: Tensor) -> Tensor:
    """Standard deviation of each row's gaps, in units of the largest so that squares stay in range; 0 for equal gaps."""
    largest = gap.masked_fill(~valid, 0.0).abs().amax(-1) if gap.shape[-1] else gap.sum(-1)
    unit = divide(gap, largest[:, None])
    std = masked_mean((unit - masked_mean(unit, valid)[:, None]).square(), valid).sqrt()
    return torch.where(std > 1e-6, std * largest, 0.0)  # below is rounding: the mean of equal numbers is not always that number


GAP_SCALES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "median_abs": lambda gap, valid: masked_quantile(gap.abs(), valid, 0.5),
    "mean_abs": lambda gap, valid: masked_mean(gap.abs(), valid),
    "std": _std,
    "none": lambda gap, valid: gap.new_ones(len(gap)),
}


def divide(values: Tensor, scale: Tensor) -> Tensor:
    """values / scale, and 0 where the scale is 0."""
    return torch.where(scale > 0, values / torch.where(scale > 0, scale, 1.0), 0.0)
