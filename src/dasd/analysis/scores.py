"""What do student and teacher think of a completion? Plain transformers, one completion at a time, by its token ids.

Hidden states are projected to logits a few tokens at a time: no (T, V) tensor, however long the completion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dasd.models import LanguageModelHead

CHUNK_ELEMENTS = 2**24  # logits at a time


def chunks(head: LanguageModelHead, *rows: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """Rows of tensors of the same length, a few at a time: so many that their logits are at most CHUNK_ELEMENTS."""
    size = max(1, CHUNK_ELEMENTS // head.weight.shape[0])
    return zip(*(tensor.split(size) for tensor in rows), strict=True)


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
    parts = []
    for here, ids in chunks(head, states, tokens):
        logps = head(here).log_softmax(-1)
        chosen = logps.gather(-1, ids[:, None])[:, 0]
        parts.append(torch.stack([chosen, -(logps.exp() * logps).sum(-1)]))
    chosen, entropies = torch.cat(parts, dim=1)
    return chosen, entropies


@torch.inference_mode()
def squared_probs(model: Any, states: Tensor, temperature: float = 1.0) -> Tensor:
    """(T,) sum over the vocabulary of the squared probabilities at each place, from (T, d) hidden states."""
    head = LanguageModelHead.of(model, temperature)
    return torch.cat([head(here).softmax(-1).square().sum(-1) for (here,) in chunks(head, states)])


@torch.inference_mode()
def top_tokens(model: Any, states: Tensor, count: int, temperature: float = 1.0) -> tuple[Tensor, Tensor]:
    """(T, count) most likely tokens at each place, likeliest first, and their probabilities."""
    head = LanguageModelHead.of(model, temperature)
    count = min(count, head.weight.shape[0])
    parts = [head(here).softmax(-1).topk(count, dim=-1) for (here,) in chunks(head, states)]
    return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])
