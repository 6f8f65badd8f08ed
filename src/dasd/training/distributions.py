"""What does it cost to pull whole distributions? The loss term of methods that compare them, from hidden states.

On a GPU plain divergences go to TRL's fused kernel, everything else through `dasd.credit.chunked_divergence`. Neither holds the
logits of a batch. (Without Triton TRL's kernel works on tiles as wide as 32,768 entries, however small the vocabulary.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from dasd.credit import Divergence, DivergenceTerm, chunked_divergence


@dataclass(frozen=True)
class LanguageModelHead:
    """The last layer: (n, d) hidden states to (n, V) logits at the sampling temperature."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    temperature: float

    @classmethod
    def of(cls, model: Any, temperature: float) -> LanguageModelHead:
        """The head of a transformers language model, with the factors its config knows."""
        layer: Any = model.get_output_embeddings()
        config = model.config.get_text_config()
        factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
        scale = next((factor for factor in factors if factor is not None), 1.0)
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            scale = divisor if config.model_type == "hyperclovax" else 1.0 / divisor
        weight, bias = _whole(layer.weight), getattr(layer, "bias", None)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(weight, None if bias is None else _whole(bias), scale, softcap, temperature)

    def detached(self) -> LanguageModelHead:
        return replace(self, weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def __call__(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        logits = torch.nn.functional.linear(hidden, self.weight.to(hidden.dtype), bias).float() * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits / self.temperature


def _whole(parameter: Any) -> Tensor:
    """A parameter that is sharded over processes, gathered."""
    return parameter.full_tensor() if hasattr(parameter, "full_tensor") else parameter


def divergence_loss(
    terms: Sequence[DivergenceTerm], student_hidden: Tensor, student_head: LanguageModelHead,
    teacher_hidden: Tensor, teacher_head: LanguageModelHead,
) -> Tensor:  # fmt: skip
    """Sum over terms and tokens of weight times divergence; only tokens whose weight is not 0 are projected."""
    total = student_hidden.sum() * 0.0  # part of the graph even where no token is compared
    for term in terms:
        chosen = term.weights != 0
        share = None if term.student_share is None else term.student_share[chosen]
        values = token_divergences(
            term.divergence, student_hidden[chosen], student_head, teacher_hidden[chosen], teacher_head, share
        )
        total = total + (term.weights[chosen] * values).sum()
    return total


def token_divergences(
    divergence: Divergence, student_hidden: Tensor, student_head: LanguageModelHead,
    teacher_hidden: Tensor, teacher_head: LanguageModelHead, student_share: Tensor | None = None,
) -> Tensor:  # fmt: skip
    """(N,) nats from (N, d) hidden states, with gradient to the student's."""
    fits_kernel = divergence.is_plain and student_share is None and student_hidden.is_cuda
    if not fits_kernel or not len(student_hidden):
        vocab_size = student_head.weight.shape[0]
        return chunked_divergence(
            divergence, student_hidden, student_head, teacher_hidden, teacher_head, vocab_size, student_share
        )
    trl_beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": divergence.mixture}[divergence.kind]
    values, _ = ChunkedDivergenceFunction.apply(
        student_hidden, student_head.weight, student_head.bias,
        teacher_hidden, teacher_head.weight, teacher_head.bias,
        trl_beta, student_head.temperature,
        student_head.scale, student_head.softcap, teacher_head.scale, teacher_head.softcap,
    )  # fmt: skip
    return values
