"""What do student and teacher think of a completion? Plain transformers, one completion at a time, by its token ids.

Hidden states are projected to logits a few tokens at a time: no (T, V) tensor, however long the completion.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dasd.models import LanguageModelHead

CHUNK_ELEMENTS = 2**24  # logits at a time


@torch.inference_mode()
def hidden_states(model: Any, prompt: list[int], completion: list[int]) -> Tensor:
    """(T, d) states that predict the completion's tokens."""
    ids = torch.tensor([prompt + completion], device=model.device)
    return model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0, len(prompt) - 1 : -1]


@torch.inference_mode()
def score_completion(model: Any, prompt: list[int], completion: list[int], temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(T,) log-probs of the completion's tokens and (T,) full-vocabulary entropies, nats, float32."""
    return score_states(model, hidden_states(model, prompt, completion), completion, temperature)


@torch.inference_mode()
def score_states(model: Any, states: Tensor, completion: list[int], temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """As `score_completion`, from (T, d) hidden states."""
    tokens, head = torch.tensor(completion, device=states.device), LanguageModelHead.of(model, temperature)
    size = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    parts = []
    for start in range(0, len(completion), size):
        logps = head(states[start : start + size]).log_softmax(-1)
        chosen = logps.gather(-1, tokens[start : start + size, None])[:, 0]
        parts.append(torch.stack([chosen, -(logps.exp() * logps).sum(-1)]))
    chosen, entropies = torch.cat(parts, dim=1)
    return chosen, entropies


@torch.inference_mode()
def squared_probs(model: Any, states: Tensor, temperature: float = 1.0) -> Tensor:
    """(T,) sum over the vocabulary of the squared probabilities at each place, from (T, d) hidden states."""
    head = LanguageModelHead.of(model, temperature)
    size = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    return torch.cat([head(chunk).softmax(-1).square().sum(-1) for chunk in states.split(size)])


@torch.inference_mode()
def top_tokens(model: Any, states: Tensor, count: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(T, count) most likely tokens at each place, likeliest first, and their probabilities."""
    head = LanguageModelHead.of(model, temperature)
    size = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    parts = [head(chunk).softmax(-1).topk(min(count, head.weight.shape[0]), dim=-1) for chunk in states.split(size)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
