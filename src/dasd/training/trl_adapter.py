"""How does token credit reach TRL's loss? The only file that touches private names of `trl.GRPOTrainer`.

TRL generates, scores rewards and normalises them in the group; its loss accepts advantages of shape (B, T). Credit needs the
student's log-probs and entropies of the same tokens. TRL computes them in one of two places, and credit is assigned there, so
the student is never scored twice:

* with the rollouts, where the policy will have moved before the loss (`num_iterations > 1`, several optimisation steps a
  batch, vLLM's correction): that pass is recorded, with entropies;
* in the loss itself, where it has not: the training pass has the very numbers, and advantages are read only after it.

`tests/training/test_trl_adapter.py` pins the signatures used here.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer
from trl.trainer.utils import pad

Batch = dict[str, Any]


class TokenCreditTrainer(GRPOTrainer):
    """`GRPOTrainer` whose subclass decides each token's advantage.

    A subclass defines `score_rollouts` (once per generated batch, may add (B, ...) tensors to it) and `token_advantages`.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._recorded_passes: list[tuple[Tensor, Tensor]] | None = None
        self._batch_awaiting_credit: Batch | None = None
        self._totals: defaultdict[str, float | Tensor] = defaultdict(float)
        super().__init__(*args, **kwargs)

    # Hooks

    def score_rollouts(self, rows: Sequence[Mapping[str, Any]], batch: Batch) -> Batch:
        """Tensors with first dimension B to carry beside the batch, e.g. the teacher's scores of `batch["completion_ids"]`."""
        raise NotImplementedError

    def token_advantages(self, batch: Batch, student_logps: Tensor, entropies: Tensor) -> Tensor:
        """(B, T) advantages from (B, T) detached log-probs and entropies of the student, in nats."""
        raise NotImplementedError

    # What subclasses may use

    def score(self, prompts: list[list[int]], completion_ids: Tensor, completion_mask: Tensor) -> Tensor:
        """(B, T) nats: log-probs of the completions after these prompts, by TRL's fused head at the sampling temperature.

        The live policy in evaluation mode, without gradient.
        """
        ids = [torch.tensor(prompt, device=completion_ids.device) for prompt in prompts]
        prompt_ids = pad(ids, padding_value=self._tokenizer.pad_token_id, padding_side="left")
        prompt_mask = pad([torch.ones_like(row) for row in ids], padding_value=0, padding_side="left")
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.no_grad():
                logps, _, _ = super()._get_per_token_logps_and_entropies(
                    self.model,
                    torch.cat([prompt_ids, completion_ids], dim=1),
                    torch.cat([prompt_mask, completion_mask], dim=1),
                    completion_ids.size(1),
                    batch_size=self.args.per_device_train_batch_size,
                )
        finally:
            self.model.train(was_training)
        return logps

    def add_totals(self, totals: Mapping[str, Tensor]) -> None:
        """Sums to be added up over micro-batches and processes until the next log."""
        if self.model.training:
            for name, total in totals.items():
                self._totals[name] += total.detach().double()

    def take_totals(self) -> dict[str, float]:
        """The sums since the last call, over all processes."""
        names = sorted(self._totals)
        if not names:
            return {}
        values = torch.stack([torch.as_tensor(self._totals[name], device=self.accelerator.device) for name in names])
        self._totals.clear()
        return dict(zip(names, self.accelerator.reduce(values, reduction="sum").tolist(), strict=True))

    @staticmethod
    def loss_mask(batch: Batch) -> Tensor:
        """(B, T), 1 where a token counts in the loss: tool outputs do not."""
        mask = batch["completion_mask"]
        return mask * batch["tool_mask"] if "tool_mask" in batch else mask

    # TRL's private methods

    def _generate_and_score_completions(self, inputs: list[dict[str, Any]]) -> Batch:
        with self._recording() as passes:
            batch = super()._generate_and_score_completions(inputs)
        batch |= self.score_rollouts(inputs, batch)
        if "old_per_token_logps" in batch:  # the policy's own pass comes first, a reference model's after it
            batch["advantages"] = self.token_advantages(batch, *passes[0])
        return batch

    def _compute_loss(self, model: torch.nn.Module, inputs: Batch) -> Tensor:
        if inputs["advantages"].dim() == 1:
            self._batch_awaiting_credit = inputs
        return super()._compute_loss(model, inputs)

    def _get_per_token_logps_and_entropies(self, *args: Any, compute_entropy: bool = False, **kwargs: Any) -> tuple:
        passes = self._recorded_passes
        needs_entropy = compute_entropy or passes is not None
        scores = super()._get_per_token_logps_and_entropies(*args, compute_entropy=needs_entropy, **kwargs)
        if passes is not None:
            passes.append((scores[0], scores[1]))
        elif self._batch_awaiting_credit is not None:
            batch, self._batch_awaiting_credit = self._batch_awaiting_credit, None
            batch["advantages"] = self.token_advantages(batch, scores[0].detach(), scores[1].detach())
        return scores

    @contextmanager
    def _recording(self) -> Iterator[list[tuple[Tensor, Tensor]]]:
        passes: list[tuple[Tensor, Tensor]] = []
        self._recorded_passes = passes
        try:
            yield passes
        finally:
            self._recorded_passes = None
