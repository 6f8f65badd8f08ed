"""What would one more step of the verifier alone do? Its gradient's memory, as Adam has it, and the weights that it leads to."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

BETAS, EPS = (0.9, 0.99), 1e-8
FILE = "lookahead.safetensors"


class VerifierMemory:
    """First and second moments of the verifier's own gradient, over the trained weights of a model that is not sharded."""

    def __init__(self, model: nn.Module, learning_rate: float) -> None:
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self.learning_rate = learning_rate
        self._pending: list[Tensor] | None = None
        self._first = [torch.zeros_like(weight, dtype=torch.float32) for weight in self.weights]
        self._second = [torch.zeros_like(weight, dtype=torch.float32) for weight in self.weights]
        self._steps = 0

    @property
    def is_ready(self) -> bool:
        return self._steps > 0

    def watch(self, logps: Tensor, advantages: Tensor, mask: Tensor) -> None:
        """Adds the gradient of sum(advantage * log-prob) over a part of a batch; `logps` (B, T) with its graph, `advantages`
        (B,) the verifier's."""
        objective = (advantages[:, None] * logps * mask).sum()
        slopes = torch.autograd.grad(objective, self.weights, retain_graph=True, allow_unused=True)
        found = [torch.zeros_like(w) if s is None else s for w, s in zip(self.weights, slopes, strict=True)]
        if self._pending is None:
            self._pending = [part.float() for part in found]
        else:
            for total, part in zip(self._pending, found, strict=True):
                total += part

    def remember(self, reduce: Callable[[Tensor], Tensor]) -> None:
        """Ends a step: what was watched, over all processes, becomes memory."""
        if self._pending is None:
            return
        self._steps += 1
        for first, second, part in zip(self._first, self._second, self._pending, strict=True):
            slope = reduce(part)
            first.lerp_(slope, 1 - BETAS[0])
            second.lerp_(slope.square(), 1 - BETAS[1])
        self._pending = None

    @contextmanager
    def ahead(self) -> Iterator[None]:
        """The model one step of Adam ahead, by the verifier's memory alone; afterwards it is what it was, bit for bit."""
        before = [weight.detach().clone() for weight in self.weights]
        try:
            with torch.no_grad():
                for weight, first, second in zip(self.weights, self._first, self._second, strict=True):
                    mean = first / (1 - BETAS[0] ** self._steps)
                    rms = (second / (1 - BETAS[1] ** self._steps)).sqrt()
                    weight += self.learning_rate * (mean / (rms + EPS)).to(weight.dtype)
            yield
        finally:
            with torch.no_grad():
                for weight, old in zip(self.weights, before, strict=True):
                    weight.copy_(old)

    def state_dict(self) -> dict[str, Tensor]:
        found = {f"first.{place}": part for place, part in enumerate(self._first)}
        found |= {f"second.{place}": part for place, part in enumerate(self._second)}
        return found | {"steps": torch.tensor(self._steps)}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        for place, (first, second) in enumerate(zip(self._first, self._second, strict=True)):
            first.copy_(state[f"first.{place}"])
            second.copy_(state[f"second.{place}"])
        self._steps = int(state["steps"])
