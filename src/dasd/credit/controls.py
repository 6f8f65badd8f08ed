"""Is it the information, or only the perturbation? Wrappers of any method that spoil one signal and leave everything else.

    permuted_entropy      a rollout's entropies change places: forks fall on random tokens
    permuted_gap          a rollout's gaps change places
    sign_randomised_gap   each gap keeps its size and takes a random sign
    position_router       a rollout's entropies, sorted: the first tokens are the forks, the last ones the scaffold

Chance comes from a hash of the seed and each rollout's own log-probs, so a control is a pure function like every method:
padding, order and micro-batch splits change nothing. Imports torch only.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dasd.credit.distillation import VOCABULARY
from dasd.credit.signals import Credit, TokenSignals


@dataclass(frozen=True)
class Controlled:
    """`method` under a control.

    Raises ValueError for an unknown control, for one that spoils what the method never reads, or half of what it reads.
    """

    method: Any
    control: str
    seed: int = 0

    def __post_init__(self) -> None:
        if not isinstance(self.control, str) or self.control not in CONTROLS:
            raise ValueError(f"control must be one of {', '.join(CONTROLS)}, got {self.control!r}")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**31:
            raise ValueError(f"control_seed must be a whole number from 0 to 2147483647, got {self.seed!r}")
        if "evidence" in self.method.needs:
            raise ValueError(f"control {self.control} does not reach the evidence of this method: it would spoil half of it")
        spoiled = "entropies" if self.control in ("permuted_entropy", "position_router") else "teacher_logps"
        if spoiled not in self.method.needs:
            raise ValueError(f"control {self.control} changes nothing: this method does not read {spoiled}")
        if spoiled == "teacher_logps" and VOCABULARY in self.method.needs:
            raise ValueError(f"control {self.control} does not reach this method: it learns from whole distributions")
        if spoiled == "teacher_logps" and "contrast_logps" in self.method.needs:
            raise ValueError(
                f"control {self.control} does not reach the wrong hints of this method: it would spoil half of its evidence"
            )

    @property
    def needs(self) -> frozenset[str]:
        return self.method.needs

    def __call__(self, signals: TokenSignals) -> Credit:
        return self.method(CONTROLS[self.control](signals, self.seed))


def without_control(method: Any) -> Any:
    """The method under a control, or the method itself where it is under none."""
    return method.method if isinstance(method, Controlled) else method


def _permuted_entropy(signals: TokenSignals, seed: int) -> TokenSignals:
    return replace(signals, entropies=_permute(signals.entropy, signals.valid, noise(signals, seed)))


def _permuted_gap(signals: TokenSignals, seed: int) -> TokenSignals:
    return _with_gap(signals, _permute(signals.gap, signals.valid, noise(signals, seed)))


def _sign_randomised_gap(signals: TokenSignals, seed: int) -> TokenSignals:
    return _with_gap(signals, torch.where(noise(signals, seed) < 0.5, signals.gap, -signals.gap))


def _position_router(signals: TokenSignals, seed: int) -> TokenSignals:
    ordered = signals.entropy.masked_fill(~signals.valid, -torch.inf).sort(-1, descending=True).values
    rank = (signals.valid.long().cumsum(-1) - 1).clamp(min=0)
    return replace(signals, entropies=ordered.gather(-1, rank).masked_fill(~signals.valid, 0.0))


CONTROLS = {
    "permuted_entropy": _permuted_entropy,
    "permuted_gap": _permuted_gap,
    "sign_randomised_gap": _sign_randomised_gap,
    "position_router": _position_router,
}


def _with_gap(signals: TokenSignals, gap: Tensor) -> TokenSignals:
    student = signals.student_logps.detach().float().masked_fill(~signals.valid, 0.0)
    # What is evidence has been decided, by the tokens' own probabilities.
    return replace(signals, student_logps=student, teacher_logps=student + gap, computed_in=torch.float32)


def _permute(values: Tensor, valid: Tensor, keys: Tensor) -> Tensor:
    """Each row's valid values, in the order of `keys`, at that row's valid positions."""
    source = keys.masked_fill(~valid, 2.0).argsort(-1)  # the valid positions, shuffled, then the masked ones
    rank = (valid.long().cumsum(-1) - 1).clamp(min=0)
    return values.gather(-1, source.gather(-1, rank)).masked_fill(~valid, 0.0)


def noise(signals: TokenSignals, seed: int) -> Tensor:
    """(B, T) float64 in [0, 1), uniform: a hash of the seed, the token's place among the valid ones and its log-prob."""
    place = signals.valid.long().cumsum(-1)
    bits = signals.student_logps.detach().float().nan_to_num().contiguous().view(torch.int32).long()
    mixed = bits ^ (place * 0x9E3779B1) ^ ((seed + 1) * 0x85EBCA77)
    for shift, factor in ((33, 0x7FEB352D), (29, 0x5C4DD124D68B3), (32, 0x1B873593)):
        mixed = (mixed ^ (mixed >> shift)) * factor  # int64 arithmetic wraps, on every device alike
    return ((mixed >> 20) & (2**32 - 1)).double() / 2**32
