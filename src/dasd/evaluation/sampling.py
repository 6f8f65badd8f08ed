"""Who writes the samples? Batched generation with transformers.

Each batch has its own seed, drawn from the run's seed and the batch's number, so a batch sampled again after a kill gives the
same tokens (on the same machine, library versions and number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import GenerationConfig


@dataclass(frozen=True)
class Sampled:
    """One completion: its token ids with the end token, its text without special tokens, why it ended."""

    token_ids: list[int]
    text: str
    finish_reason: str  # "stop" (end token) or "length"


@dataclass(frozen=True)
class SamplingParams:
    max_completion_length: int
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0


@torch.no_grad()
def sample_batch(model: Any, tokenizer: Any, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> list[Sampled]:
    """One completion for each prompt (token ids), in order."""
    torch.manual_seed(seed)
    device = model.device
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends]) | {tokenizer.eos_token_id}
    choice = {"temperature": params.temperature, "top_p": params.top_p, "top_k": 0} if params.temperature > 0 else {}
    config = GenerationConfig(
        max_new_tokens=params.max_completion_length,
        do_sample=params.temperature > 0,
        eos_token_id=sorted(ends - {None}),
        pad_token_id=tokenizer.pad_token_id,
        **choice,
    )
    output = model.generate(input_ids=ids.to(device), attention_mask=mask.to(device), generation_config=config)
    completions = []
    for row in output[:, width:].tolist():
        end = next((i for i, token in enumerate(row) if token in ends), None)
        token_ids = row if end is None else row[: end + 1]
        text = tokenizer.decode(token_ids, skip_special_tokens=True)
        completions.append(Sampled(token_ids, text, "length" if end is None else "stop"))
    return completions
