"""How do the teacher's scores come to stand beside the student's? The same ids behind other prompts, in verl's layout.

In a `DataProto` prompts are left-padded to P and responses right-padded to T: `input_ids`, `attention_mask` and `position_ids`
are (B, P + T), `responses` and `response_mask` (B, T). The response mask is 0 where a tool wrote, the attention mask is not.
verl's workers take rows without padding, `unpadded`; `verl.workers.utils.padding.no_padding_2_padding` brings what they return
back to (B, T). Pure functions: no Ray, no queue.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tensordict import TensorDict
from torch import Tensor
from verl import DataProto

from dasd.credit import Credit, Method, TokenSignals, assign_credit


def behind_prompts(data: DataProto, prompts: Sequence[Sequence[int]], pad: int) -> DataProto:
    """The responses of `data` behind these prompts (B of them, of any lengths), in the same layout.

    `data` has `responses`, `response_mask` and `attention_mask`, whose last T columns are the responses'. Raises ValueError
    for another number of prompts and for an empty one.
    """
    responses, response_mask = data.batch["responses"], data.batch["response_mask"]
    if len(prompts) != len(responses):
        raise ValueError(f"{len(responses)} responses need as many prompts, got {len(prompts)}")
    if not all(map(len, prompts)):
        raise ValueError("a prompt without tokens cannot predict a response's first token")
    width, device = max(map(len, prompts)), responses.device
    ids = torch.full((len(prompts), width), pad, device=device, dtype=responses.dtype)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(list(prompt), device=device, dtype=ids.dtype)
        mask[row, width - len(prompt) :] = 1
    of_response = data.batch["attention_mask"][:, -responses.shape[1] :].to(mask.dtype)
    attention = torch.cat([mask, of_response], dim=1)
    tensors = {
        "prompts": ids,
        "responses": responses,
        "response_mask": response_mask,
        "input_ids": torch.cat([ids, responses], dim=1),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(1) - 1).clamp(min=0),
    }
    return DataProto.from_dict(tensors=tensors)


def unpadded(data: DataProto) -> TensorDict:
    """The same rows as verl's workers take them: nested tensors without padding."""
    keep, length = data.batch["attention_mask"].bool(), data.batch["responses"].shape[1]
    of_prompt, of_response = keep[:, :-length], keep[:, -length:]
    masks = {
        "prompts": of_prompt, "responses": of_response, "response_mask": of_response, "input_ids": keep, "position_ids": keep,
    }  # fmt: skip
    rows = {
        name: torch.nested.as_nested_tensor(
            [row[kept] for row, kept in zip(data.batch[name], mask, strict=True)], layout=torch.jagged
        )
        for name, mask in masks.items()
    }
    return TensorDict(rows | {"loss_mask": rows["response_mask"]}, batch_size=len(keep))


def rollout_advantages(advantages: Tensor, mask: Tensor) -> Tensor:
    """(B,) the advantage that every counted token of a rollout shares, from verl's (B, T); 0 where none counts.

    Raises ValueError where tokens of one rollout differ: an estimator that tells tokens apart leaves no room for credit.
    """
    counted = mask.bool()
    first = counted.float().argmax(1, keepdim=True)
    shared = advantages.gather(1, first)[:, 0] * counted.any(1)
    differs = (((advantages - shared[:, None]).abs() > 1e-6 * (1 + shared.abs()[:, None])) & counted).any(1)
    if differs.any():
        raise ValueError(
            f"rollout {int(differs.nonzero()[0])} has advantages that differ from token to token: take an "
            "algorithm.adv_estimator that gives one to a rollout, such as grpo"
        )
    return shared


def credit(data: DataProto, method: Method, success_threshold: float = 1.0, step: int = 0) -> Credit:
    """Every token's credit. Reads (B, T) fields, nats where they are scores:

    response_mask, old_log_probs, entropy          the student's, by the actor's own pass
    advantages, rm_scores                          the verifier's: one advantage to a rollout, rewards where they were given
    teacher_log_probs, teacher_entropy, (B,) has_teacher    where the method has a teacher

    Raises ValueError as `TokenSignals` and `rollout_advantages` do.
    """
    batch = data.batch
    student = batch["old_log_probs"].float()
    has_teacher = batch["has_teacher"].bool() if "has_teacher" in batch.keys() else None  # noqa: SIM118 (a TensorDict)
    teacher = student if has_teacher is None else torch.where(has_teacher[:, None], batch["teacher_log_probs"].float(), student)
    signals = TokenSignals(
        student_logps=student,
        teacher_logps=teacher,
        entropies=batch["entropy"].float(),
        completion_mask=batch["response_mask"],
        advantages=rollout_advantages(batch["advantages"].float(), batch["response_mask"]),
        correct=batch["rm_scores"].sum(1) >= success_threshold,
        teacher_entropies=batch["teacher_entropy"].float() if has_teacher is not None else None,
        has_teacher=has_teacher,
    )
    return assign_credit(signals, method, step)
