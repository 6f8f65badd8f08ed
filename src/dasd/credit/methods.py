"""Which methods are there? A method is any callable from `TokenSignals` to `Credit`; this is the table of the named ones.

`needs_teacher` says whether the method reads `teacher_logps`: where it does not, the trainer saves the teacher's pass.
Imports torch only.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar, Protocol

import torch

from dasd.credit.direction import DirectionAdaptive
from dasd.credit.signals import Credit, TokenSignals, tally


class Method(Protocol):
    """Token credit: detached (B, T) advantages from a batch's signals."""

    @property
    def needs_teacher(self) -> bool: ...

    def __call__(self, signals: TokenSignals) -> Credit: ...


@dataclass(frozen=True)
class GroupRelative:
    """GRPO: each token carries its rollout's verifier advantage, `A_t = A_G`."""

    needs_teacher: ClassVar[bool] = False

    def __call__(self, signals: TokenSignals) -> Credit:
        nothing = torch.zeros_like(signals.rollout_advantages)
        return Credit(signals.rollout_advantages, None, tally(signals, nothing, None, rho=0.2))


METHODS: dict[str, Method] = {
    "dasd": DirectionAdaptive(),
    "grpo": GroupRelative(),
    "conformity": DirectionAdaptive(route="attract", gate=False),
    "novelty": DirectionAdaptive(route="repel", gate=False),
    "fork_only": DirectionAdaptive(route="fork_only", gate=False),
    "scaffold_only": DirectionAdaptive(route="scaffold_only", gate=False),
}


def make_method(name: str, settings: Mapping[str, Any] | None = None) -> Method:
    """The named method with these settings in place of its defaults.

    What makes an ablation (a setting in which its entry of METHODS differs from its class) cannot be changed. Raises
    ValueError naming the nearest valid name for an unknown method or setting.
    """
    settings = dict(settings or {})
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}{_nearest(name, METHODS)}; methods: {', '.join(METHODS)}")
    method: Any = METHODS[name]
    free = [f.name for f in fields(method) if getattr(method, f.name) == f.default]
    for setting in settings:
        if setting not in free:
            choices = f"its settings: {', '.join(free)}" if free else "it has no settings"
            raise ValueError(f"method {name} has no setting {setting!r}{_nearest(setting, free)}; {choices}")
    return replace(method, **settings)


def assign_credit(signals: TokenSignals, method: Method) -> Credit:
    """Credit of every token of a batch under `method`, any of `METHODS` or a callable of your own."""
    return method(signals)


def _nearest(word: str, choices: Any) -> str:
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f", did you mean {close[0]!r}?" if close else ""
