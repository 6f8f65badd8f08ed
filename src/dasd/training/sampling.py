"""How does our own sampler write a training batch's rollouts as TRL's settings say?

TRL hands the batch to `generate`, which reads a prompt once for each of its rollouts and computes every row until the longest
is done. The sampler of evaluations reads a prompt once, and rows leave when they end. Which tokens may be drawn, and with which
weight, is what transformers' own processors say, so that only the random numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from inspect import signature
from typing import Any

import torch
from torch import Tensor
from transformers import (
    ExponentialDecayLengthPenalty,
    GenerationConfig,
    LogitsProcessorList,
    MinNewTokensLengthLogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    SuppressTokensLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import Warp, uniforms, write
from dasd.model_fit import token_ids

# What a forward pass must take to be called by the sampler.
ARGUMENTS = {"input_ids", "attention_mask", "position_ids", "past_key_values", "use_cache", "logits_to_keep"}
HONOURED = {
    "do_sample", "temperature", "top_k", "top_p", "min_p", "repetition_penalty", "min_new_tokens", "suppress_tokens",
    "exponential_decay_length_penalty", "max_new_tokens", "eos_token_id",
}  # fmt: skip
IDLE = {
    "pad_token_id",
    "bos_token_id",
    "max_length",
    "use_cache",
    "disable_compile",
    "transformers_version",
    "_from_model_config",
}
TOP_K = 50  # transformers' own where it is None


def reason_against(model: Any, settings: GenerationConfig, ends: Sequence[int]) -> str | None:
    """Why the sampler cannot write this model's rollouts with these settings and end tokens; None where it can."""
    if missing := sorted(ARGUMENTS - set(signature(type(model).forward).parameters)):
        return f"{type(model).__name__} takes no {missing[0]}"
    settings = filled(settings, model)
    others = {name: value for name, value in vars(settings).items() if value is not None and value is not False}
    for name, value in others.items():
        if name not in HONOURED | IDLE:
            return f"{name} {value!r} is a setting of transformers' generate alone"
    if set(token_ids(settings.eos_token_id)) != set(ends):
        return f"eos_token_id {settings.eos_token_id} are not the end tokens of the run ({', '.join(map(str, ends))})"
    return None


def filled(settings: GenerationConfig, model: Any) -> GenerationConfig:
    """The settings as `model.generate` understands them: what they leave open, the model's own say."""
    settings = deepcopy(settings)
    settings.update(**model.generation_config.to_dict(), defaults_only=True, allow_custom_entries=True)
    return settings


def write_rollouts(
    model: Any, prompt_ids: Sequence[Sequence[int]], settings: GenerationConfig, seeds: Sequence[Sequence[int]],
    ends: Sequence[int], pad: int,
) -> list[list[int]]:  # fmt: skip
    """Token ids of one completion for each prompt, the end token included; equal prompts are read once.

    `settings` are `filled`, and `reason_against` knows nothing against them. Raises BadInput where logits are not numbers.
    """
    places: dict[tuple[int, ...], int] = {}
    rows = [places.setdefault(tuple(ids), len(places)) for ids in prompt_ids]
    prompts = [list(ids) for ids in places]
    params = SamplingParams(settings.max_new_tokens, temperature=1.0 if settings.do_sample else 0.0)
    warp = warp_of(settings, max(map(len, prompts)))
    return write(model, prompts, rows, uniforms(seeds, settings.max_new_tokens), params, list(ends), pad, warp=warp)


def warp_of(settings: GenerationConfig, width: int) -> Warp:
    """What `generate` does to logits under `filled` settings, in its order, after prompts that are padded to `width`."""

    def warp(ids: Tensor, mask: Tensor, logits: Tensor) -> Tensor:
        ends = torch.tensor(sorted(set(token_ids(settings.eos_token_id))), device=ids.device)
        steps = LogitsProcessorList()
        if settings.repetition_penalty not in (None, 1.0):
            padding = mask.int().argmax(1)
            steps.append(RepetitionPenaltyLogitsProcessor(settings.repetition_penalty, prompt_ignore_length=padding))
        if settings.min_new_tokens:
            steps.append(MinNewTokensLengthLogitsProcessor(width, settings.min_new_tokens, ends, device=ids.device))
        if settings.exponential_decay_length_penalty is not None:
            steps.append(ExponentialDecayLengthPenalty(settings.exponential_decay_length_penalty, ends, width))
        if settings.suppress_tokens is not None:
            steps.append(SuppressTokensLogitsProcessor(settings.suppress_tokens, device=ids.device))
        if settings.do_sample:
            if settings.temperature not in (None, 1.0):
                steps.append(TemperatureLogitsWarper(settings.temperature))
            if (top_k := TOP_K if settings.top_k is None else settings.top_k) > 0:
                steps.append(TopKLogitsWarper(top_k))
            if settings.top_p is not None and settings.top_p < 1.0:
                steps.append(TopPLogitsWarper(settings.top_p))
            if settings.min_p is not None:
                steps.append(MinPLogitsWarper(settings.min_p))
        return steps(ids, logits)

    return warp
