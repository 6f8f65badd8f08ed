"""Who writes the samples? Batched generation with transformers, which lets go of finished completions.

`model.generate` computes every row until the longest is done; completions differ much in length, so here rows leave the batch
and the KV cache when they end. Each batch has its own generator, seeded by the caller: a batch sampled again after a kill gives
the same tokens (on the same machine, library versions and number of threads).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

SHRINK_AT = 0.85  # the batch is cut down when less than this share of its rows is still writing


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


@torch.inference_mode()
def sample_batch(model: Any, tokenizer: Any, prompts: Sequence[list[int]], params: SamplingParams, seed: int) -> list[Sampled]:
    """One completion for each prompt (token ids), in order."""
    device = model.device
    generator = torch.Generator(device).manual_seed(seed)
    warp = _warpers(params)
    ends = _end_tokens(model, tokenizer)
    end_ids = torch.tensor(sorted(ends), device=device)
    width = max(map(len, prompts))
    input_ids = torch.full((len(prompts), width), tokenizer.pad_token_id, device=device)
    mask = torch.zeros_like(input_ids)
    for row, prompt in enumerate(prompts):  # left padding
        input_ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[row, width - len(prompt) :] = 1

    written = torch.full((len(prompts), params.max_completion_length), -1, device=device)
    rows = torch.arange(len(prompts), device=device)  # the completion that each row of the batch writes
    writing = torch.ones_like(rows, dtype=torch.bool)
    cache = DynamicCache(config=model.config)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    for step in range(params.max_completion_length):
        past = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
        output = model(input_ids=input_ids, attention_mask=mask, position_ids=positions, **past)
        logits = warp(input_ids, output.logits[:, -1].float())
        if params.temperature > 0:
            tokens = torch.multinomial(logits.softmax(-1), 1, generator=generator)[:, 0]
        else:
            tokens = logits.argmax(-1)
        written[rows[writing], step] = tokens[writing]
        writing &= ~torch.isin(tokens, end_ids)
        alive = int(writing.sum())
        if alive == 0:
            break
        if alive < SHRINK_AT * len(rows):
            cache.batch_select_indices(writing.nonzero()[:, 0])
            rows, tokens, mask, positions = rows[writing], tokens[writing], mask[writing], positions[writing]
            writing = writing[writing]
        input_ids = tokens[:, None]
        mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
        positions = positions[:, -1:] + 1

    completions = []
    for ids in written.tolist():
        token_ids = ids[: ids.index(-1)] if -1 in ids else ids
        text = tokenizer.decode(token_ids, skip_special_tokens=True)
        completions.append(Sampled(token_ids, text, "stop" if token_ids[-1] in ends else "length"))
    return completions


def _warpers(params: SamplingParams) -> LogitsProcessorList:
    warpers = LogitsProcessorList()
    if params.temperature not in (0.0, 1.0):
        warpers.append(TemperatureLogitsWarper(params.temperature))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(params.top_p))
    return warpers


def _end_tokens(model: Any, tokenizer: Any) -> set[int]:
    ends = model.generation_config.eos_token_id
    return {token for token in [*(ends if isinstance(ends, list) else [ends]), tokenizer.eos_token_id] if token is not None}
