"""Whose weights is the teacher scored with?

    live         the student's, as they are now
    frozen       the student's as they were before training
    ema          an exponential moving average, teacher <- (1 - rate) * teacher + rate * student after every step
    snapshot     the student's as they were at the last multiple of `sync_steps` steps
    adapter_off  LoRA: the base model without its adapter, at no extra memory

A copy is kept of the trainable parameters alone (with LoRA that is the adapter), and lent to the model itself while it scores
as the teacher: there is no second module. Where FSDP2 shards the model, each process keeps a copy of its own shards.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

KEEPS_COPY = ("frozen", "ema", "snapshot")
KINDS = ("live", *KEEPS_COPY, "adapter_off")


@dataclass
class TeacherWeights:
    """The teacher's weights for one model, see above.

    `deferred`: the copy is made when `keep` is called or it is first needed, for a model that is yet to be sharded.

    Raises ValueError for an unknown kind, a rate outside (0, 1], sync_steps below 1, `adapter_off` on a model without
    adapter, and a kept copy of parameters that DeepSpeed ZeRO-3 shards.
    """

    model: nn.Module  # unwrapped
    kind: str = "live"
    ema_rate: float = 0.05
    sync_steps: int = 10
    deferred: bool = False

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"teacher weights must be one of {', '.join(KINDS)}, got {self.kind!r}")
        if not 0 < self.ema_rate <= 1:
            raise ValueError(f"ema_rate must lie in (0, 1], got {self.ema_rate}: it is the student's share of each update")
        if self.sync_steps < 1:
            raise ValueError(f"sync_steps must be at least 1, got {self.sync_steps}")
        if self.kind == "adapter_off" and not hasattr(self.model, "disable_adapter"):
            raise ValueError("teacher weights 'adapter_off' need a model with a LoRA adapter: set one up, or use 'frozen'")
        if any(hasattr(parameter, "ds_id") for _, parameter in self._trainable()):
            refuse_sharded_copy(self.kind)
        self._copy: dict[str, Tensor] = {}
        if not self.deferred:
            self.keep()

    def keep(self) -> None:
        """Makes the copy, where one is kept and not there yet."""
        if self.keeps_copy and not self._copy:
            self._reshard()
            self._copy = {name: _keep(parameter, in_float32=self.kind == "ema") for name, parameter in self._trainable()}

    @property
    def keeps_copy(self) -> bool:
        return self.kind in KEEPS_COPY

    @contextmanager
    def lent(self) -> Iterator[None]:
        """Inside, the model has the teacher's weights. Nothing that needs gradient may be computed there."""
        if self.kind == "adapter_off":
            with self.model.disable_adapter():  # type: ignore[operator]
                yield
            return
        if not self.keeps_copy:
            yield
            return
        self.keep()
        self._reshard()
        own: list[tuple[nn.Parameter, Tensor]] = []
        try:
            for name, parameter in self._trainable():
                own.append((parameter, _swap(parameter, self._copy[name])))
            yield
        finally:
            self._reshard()  # what was gathered is the teacher's
            for parameter, data in own:
                _swap(parameter, data)

    @torch.no_grad()
    def after_step(self, step: int) -> None:
        """To be called when the student has made its optimisation step number `step`, counted from 1."""
        self._reshard()
        if self.kind == "ema":
            for name, parameter in self._trainable():
                self._copy[name].lerp_(parameter.to(self._copy[name].dtype), self.ema_rate)
        elif self.kind == "snapshot" and step % self.sync_steps == 0:
            for name, parameter in self._trainable():
                self._copy[name].copy_(parameter)

    def state_dict(self) -> dict[str, Tensor]:
        """What a checkpoint keeps, whole, on every process; empty where there is nothing to keep."""
        return {name: copy.full_tensor() if isinstance(copy, DTensor) else copy for name, copy in self._copy.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Raises ValueError where `state` belongs to another model or kind."""
        self.keep()
        if state.keys() != self._copy.keys():
            missing = sorted(state.keys() ^ self._copy.keys())
            raise ValueError(
                f"the checkpoint's teacher is another model's: it differs in {missing[0]} and {len(missing) - 1} more"
            )
        for name, tensor in state.items():
            copy = self._copy[name]
            if isinstance(copy, DTensor):  # each process has the whole, and takes its shard
                tensor = distribute_tensor(tensor.to(copy.device), copy.device_mesh, copy.placements, src_data_rank=None)
            copy.copy_(tensor)

    def _reshard(self) -> None:
        """FSDP2: gathered parameters are dropped, so that the shards are what the next pass reads."""
        for module in self.model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def _trainable(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((name, parameter) for name, parameter in self.model.named_parameters() if parameter.requires_grad)


def refuse_sharded_copy(kind: str) -> None:
    """Where ZeRO-3 shards the model: raises ValueError for a kind that keeps a copy."""
    if kind in KEEPS_COPY:
        raise ValueError(
            f"teacher weights {kind!r} keep a copy, and DeepSpeed ZeRO-3 shards the model: use 'live', 'adapter_off', FSDP2 or "
            "ZeRO-2"
        )


def _keep(parameter: nn.Parameter, in_float32: bool) -> Tensor:
    """A copy; of bfloat16 in float32 where small updates must not be rounded away."""
    return parameter.detach().to(torch.float32 if in_float32 else parameter.dtype, copy=True)


@torch.no_grad()
def _swap(parameter: nn.Parameter, values: Tensor) -> Tensor:
    """Gives the parameter these values and returns those it had."""
    if isinstance(parameter, DTensor):  # FSDP gathers from this very storage
        before = parameter.detach().clone()
        parameter.copy_(values)
        return before
    before, parameter.data = parameter.data, values.to(parameter.dtype)
    return before
