"""Where do a student's rarer signals come from? What `needs` may name beside log-probs and entropies, computed only then.

sum_squared_probs    in the same pass as the log-probs: one more output of TRL's fused head
token_frequencies    counted over all processes' rollouts of a batch
attention_entropies  one more pass, with an attention that gives its weights (analysis/attention.py)
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from trl.trainer.utils import add_fused_lm_head


def add_outputs(model: Any, temperature: float, in_float32: bool, squares: list[Tensor] | None) -> None:
    """`model(..., fused_lm_head=True, is_top1=True)` also tells whether each token is the most likely one, which costs more.

    squares  where every pass without `is_top1` leaves the sum of squared probabilities of its tokens (b, L); None: nowhere
    """
    if squares is not None:
        add_fused_lm_head(model, temperature, in_float32, ("log_probs", "entropy", "log_sum_sq_probs"))
    plain = model.forward
    add_fused_lm_head(model, temperature, in_float32, ("log_probs", "entropy", "is_top1"))
    telling = model.forward

    @wraps(plain)
    def forward(*args: Any, is_top1: bool = False, **kwargs: Any) -> Any:
        output = (telling if is_top1 else plain)(*args, **kwargs)
        if squares is not None and getattr(output, "log_sum_sq_probs", None) is not None:
            squares.append(output.log_sum_sq_probs.detach().float().exp())
        return output

    model.forward = forward


def token_frequencies(ids: Tensor, mask: Tensor, vocab_size: int, summed: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, T) share of all tokens that count which have the id that stands here; `summed` adds a tensor over the processes."""
    counts = summed(torch.bincount(ids[mask.bool()], minlength=vocab_size).double())
    return (counts / counts.sum().clamp(min=1.0))[ids].float()
