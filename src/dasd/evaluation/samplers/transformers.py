"""Sampling with transformers, each completion with random numbers of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache

from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers.base import Request, Sampled, SamplingParams
from dasd.evaluation.sampling import _end_tokens, _warpers
from dasd.models import load_model, model_path
from dasd.teacher.context import tokenize_prompt


class TransformersSampler:
    deterministic = True

    def __init__(self, config: SamplerConfig, model: ModelConfig) -> None:
        self.model, self.tokenizer = load_model(model)
        self.path = model_path(model)
        self.batch_size = config.batch_size
        self.context_length: int | None = getattr(self.model.config, "max_position_embeddings", None)

    def longest_prompt(self, prompts: Sequence[list[dict[str, Any]]]) -> int | None:
        return max(len(tokenize_prompt(self.tokenizer, prompt)) for prompt in prompts)

    def describe(self) -> dict[str, Any]:
        return {"engine": "transformers", "model": self.path}

    def close(self) -> None:
        pass

    @torch.inference_mode()
    def sample(self, requests: Sequence[Request], params: SamplingParams) -> list[Sampled]:
        prompts = [tokenize_prompt(self.tokenizer, request.prompt) for request in requests]
        draws = torch.stack([
            torch.rand(params.max_completion_length, generator=torch.Generator().manual_seed(request.seed), dtype=torch.float64)
            for request in requests
        ])  # fmt: skip
        ends = _end_tokens(self.model, self.tokenizer)
        width = max(map(len, prompts))
        input_ids = torch.full((len(prompts), width), self.tokenizer.pad_token_id)
        mask = torch.zeros_like(input_ids)
        for row, prompt in enumerate(prompts):
            input_ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        written: list[list[int]] = [[] for _ in prompts]
        rows = list(range(len(prompts)))
        cache, positions, warp = DynamicCache(config=self.model.config), (mask.cumsum(-1) - 1).clamp(min=0), _warpers(params)  # type: ignore[arg-type]
        for step in range(params.max_completion_length):
            past = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
            output = self.model(input_ids=input_ids, attention_mask=mask, position_ids=positions, **past)
            logits = warp(input_ids, output.logits[:, -1].float())
            if params.temperature > 0:
                cumulated = logits.double().softmax(-1).cumsum(-1)
                tokens = torch.searchsorted(cumulated, draws[rows, step][:, None] * cumulated[:, -1:]).squeeze(-1)
            else:
                tokens = logits.argmax(-1)
            for row, token in zip(rows, tokens.tolist(), strict=True):
                written[row].append(token)
            writing = torch.tensor([token not in ends for token in tokens.tolist()])
            if not writing.any():
                break
            if not writing.all():
                cache.batch_select_indices(writing.nonzero()[:, 0])
                rows = [row for row, going in zip(rows, writing.tolist(), strict=True) if going]
                tokens, mask, positions = tokens[writing], mask[writing], positions[writing]
            input_ids = tokens[:, None]
            mask = torch.cat([mask, mask.new_ones(len(rows), 1)], dim=1)
            positions = positions[:, -1:] + 1
        return [
            Sampled(ids, self.tokenizer.decode(ids, skip_special_tokens=True), "stop" if ids[-1] in ends else "length")
            for ids in written
        ]
