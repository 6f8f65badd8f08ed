"""How widely does the student look around when it writes a token? Entropy of its attention, from one pass without gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def refuse_hidden_attention(model: Any) -> None:
    """Raises ValueError for a language model whose attention implementation does not give its weights."""
    if (found := model.config.get_text_config()._attn_implementation) != "eager":
        raise ValueError(
            f"signal attention_entropy needs the attention's weights, which only the eager implementation gives, and this "
            f"model uses {found}: load it with attn_implementation='eager' (--model.attn_implementation eager), or "
            "take another signal"
        )


@torch.no_grad()
def attention_entropies(model: Any, prompt: Sequence[int], completion: Sequence[int], called: Any = None) -> Tensor:
    """(T,) float32 nats: entropy of the attention where each token of the completion is predicted, mean over heads and layers.

    called  the model as it is to be called, where that is a wrapper of `model`

    Weights are read layer by layer and dropped. Raises ValueError as `refuse_hidden_attention`, and where no layer has any.
    """
    refuse_hidden_attention(model)
    found: list[Tensor] = []

    def keep(module: Any, args: Any, output: Any) -> None:
        weights = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if isinstance(weights, Tensor) and weights.dim() == 4:  # (1, heads, from, to)
            rows = weights[0, :, len(prompt) - 1 : -1].float()
            found.append(torch.special.entr(rows).sum(-1).mean(0))

    layers = [module for module in model.modules() if type(module).__name__.endswith("Attention")]
    handles = [layer.register_forward_hook(keep) for layer in layers]
    try:
        ids = torch.tensor([[*prompt, *completion]], device=model.device)
        (model if called is None else called)(input_ids=ids, use_cache=False, logits_to_keep=1)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise ValueError(f"signal attention_entropy finds no attention in {type(model).__name__}: take another signal")
    return torch.stack(found).mean(0)
