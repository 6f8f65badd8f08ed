"""Whose weights is the teacher scored with?

    live         the student's, as they are now
    frozen       the student's as they were before training
    ema          an exponential moving average, teacher <- (1 - rate) * teacher + rate * student after every step
    snapshot     the student's as they were at the last multiple of `sync_steps` steps
    adapter_off  LoRA: the base model without its adapter, at no extra memory

A copy is kept of the trainable parameters alone (with LoRA that is the adapter), and lent to the model itself while it scores
as the teacher: there is no second module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

KINDS = ("live", "frozen", "ema", "snapshot", "adapter_off")


@dataclass
class TeacherWeights:
    """The teacher's weights for one model, see above.

    Raises ValueError for an unknown kind, a rate outside (0, 1], sync_steps below 1, `adapter_off` on a model without
    adapter, and a kept copy of parameters that are sharded over processes.
    """

    model: nn.Module  # unwrapped
    kind: str = "live"
    ema_rate: float = 0.05
    sync_steps: int = 10

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"teacher weights must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 0 < self.ema_rate <= 1:
            raise ValueError(f"ema_rate must lie in (0, 1], got {self.ema_rate}: it is the student's share of each update")
        if self.sync_steps < 1:
            raise ValueError(f"sync_steps must be at least 1, got {self.sync_steps}")
        if self.kind == "adapter_off" and not hasattr(self.model, "disable_adapter"):
            raise ValueError("teacher weights 'adapter_off' need a model with a LoRA adapter: set one up, or use 'frozen'")
        self._copy: dict[str, Tensor] = {}
        if self.keeps_copy:
            sharded = [n for n, p in self._trainable() if hasattr(p, "ds_id") or type(p.data).__name__ == "DTensor"]
            if sharded:
                raise ValueError(
                    f"teacher weights {self.kind!r} keep a copy, and {sharded[0]} is sharded: use 'live' or 'adapter_off'"
                )
            self._copy = {name: _keep(parameter, in_float32=self.kind == "ema") for name, parameter in self._trainable()}

    @property
    def keeps_copy(self) -> bool:
        return self.kind in ("frozen", "ema", "snapshot")

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the model has the teacher's weights. Nothing that needs gradient may be computed there."""
        if self.kind == "adapter_off":
            with self.model.disable_adapter():  # type: ignore[operator]
                yield
            return
        own: list[tuple[nn.Parameter, Tensor]] = []
        try:
            for name, parameter in self._trainable() if self.keeps_copy else ():
                own.append((parameter, parameter.data))
                parameter.data = self._copy[name].to(parameter.dtype)
            yield
        finally:
            for parameter, data in own:
                parameter.data = data

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """To be called when the student has made its optimisation step number `step`, counted from 1."""
        if self.kind == "ema":
            for name, parameter in self._trainable():
                self._copy[name].lerp_(parameter.to(self._copy[name].dtype), self.ema_rate)
        elif self.kind == "snapshot" and step % self.sync_steps == 0:
            for name, parameter in self._trainable():
                self._copy[name].copy_(parameter)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps; empty where there is nothing to keep."""
        return self._copy

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where `state` belongs to another model or kind."""
        if state.keys() != self._copy.keys():
            missing = sorted(state.keys() ^ self._copy.keys())
            raise ValueError(
                f"the checkpoint's teacher is another model's: it differs in {missing[0]} and {len(missing) - 1} more"
            )
        for name, tensor in state.items():
            self._copy[name].copy_(tensor)

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad)


def _keep(parameter: nn.Parameter, in_float32: bool) -> Tensor:
    """A copy; of bfloat16 in float32 where small updates must not be rounded away."""
    return parameter.detach().to(torch.float32 if in_float32 else parameter.dtype, copy=True)
