"""A method of your own, in one file:

    dasd train recipes/countdown/base.yaml --method.name examples/own_method.py:Spread --method.lam 0.5

It scales the verifier's advantage by how much the teacher's opinion of a token stands out in its rollout, whatever its sign.
A method is a callable from `TokenSignals` to `Credit`. `needs` names what has to be computed for it, the fields of a frozen
dataclass are its settings, and the trainer does the rest.
"""

from dataclasses import dataclass
from typing import ClassVar

from dasd.credit import Credit, TokenSignals
from dasd.credit.signals import credit_with, masked_mean


@dataclass(frozen=True)
class Spread:
    """`A_t = A * (1 - lam + lam * min(|u_t| / mean|u|, 2))`, u the gap in nats, the mean over the rollout's tokens."""

    lam: float = 0.5
    needs: ClassVar[frozenset[str]] = frozenset({"teacher_logps"})

    def __post_init__(self) -> None:
        if not 0 <= self.lam <= 1:
            raise ValueError(f"lam must lie between 0 and 1, got {self.lam}")

    def __call__(self, signals: TokenSignals) -> Credit:
        size = signals.gap.abs()
        mean = masked_mean(size, signals.valid)[:, None]
        share = (size / mean.where(mean > 0, 1.0)).clamp(max=2.0)
        return credit_with(signals, signals.rollout_advantages * (1 - self.lam + self.lam * share))
