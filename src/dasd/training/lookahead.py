"""What would one more step of the verifier alone do? Its gradient's memory, as Adam has it, and where that leads."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import TrainerCallback

from dasd.training.batches import policy_moves

BETAS, EPS = (0.9, 0.99), 1e-8
MEMORY_FILE, EVIDENCE_FILE = "lookahead.safetensors", "evidence.json"


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
                    weight.add_((mean / (rms + EPS)).to(weight.dtype), alpha=self.learning_rate)
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


class LooksAhead(TrainerCallback):
    """Evidence of a trainer's method, which has `every`, `look`, `update` and `directions` (`dasd.credit.lookahead`).

    Raises ValueError where the policy moves between rollouts and loss, and where weights are sharded.
    """

    def __init__(self, trainer: Any) -> None:
        args = trainer.args
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError("a method that looks ahead moves all trained weights at once: train without FSDP and DeepSpeed")
        if args.use_vllm or policy_moves(args):
            raise ValueError(
                "a method that looks ahead takes its gradient where the policy has not moved: leave vLLM out, and make the "
                f"passes of an optimisation step ({args.gradient_accumulation_steps}) a multiple of steps_per_generation x "
                f"num_iterations ({args.steps_per_generation} x {args.num_iterations})"
            )
        self.trainer = trainer
        self.evidence: Mapping[str, Any] | None = None
        self.memory = VerifierMemory(trainer.accelerator.unwrap_model(trainer.model), args.learning_rate)

    def look(self, batch: Mapping[str, Any]) -> None:
        """Brings the evidence up to date: what would one more of the verifier's steps do to these rollouts' tokens?"""
        trainer, method = self.trainer, self.trainer.method_now
        if not self.memory.is_ready or trainer.state.global_step % method.every:
            return
        score = partial(trainer.score, batch["prompt_ids"], batch["prompt_mask"], batch)
        here = score()
        with self.memory.ahead():
            there = score()
        signals = trainer._signals(batch, here.logps, here.entropies)
        found = trainer.accelerator.gather(method.look(signals, there.logps - here.logps))
        # A group's rollouts stand next to each other, perhaps on two processes.
        self.evidence = method.update(self.evidence, found.unflatten(0, (-1, trainer.group_size)).sum(1))

    @property
    def metrics(self) -> dict[str, float]:
        """`direction/decile_1` to `_10`: omega by entropy decile, in [-1, 1], > 0 attracts."""
        omegas = enumerate(self.trainer.method_now.directions(self.evidence), start=1)
        return {f"direction/decile_{decile}": omega for decile, omega in omegas}

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.memory.remember(lambda slope: self.trainer.accelerator.reduce(slope, reduction="sum"))

    def save(self, folder: Path) -> None:
        save_file(self.memory.state_dict(), folder / MEMORY_FILE)
        (folder / EVIDENCE_FILE).write_text(json.dumps(self.evidence))

    def load(self, folder: Path) -> None:
        if not (folder / MEMORY_FILE).exists():
            raise ValueError(f"{folder} has no {MEMORY_FILE}: its method did not look ahead")
        self.memory.load_state_dict(load_file(folder / MEMORY_FILE))
        self.evidence = json.loads((folder / EVIDENCE_FILE).read_text())
