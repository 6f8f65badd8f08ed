"""What does it cost to pull whole distributions? The loss term of methods that compare them, from hidden states.

On a GPU plain divergences go to TRL's fused kernel, everything else through `dasd.credit.chunked_divergence`. Neither holds the
logits of a batch. (Without Triton TRL's kernel works on tiles as wide as 32,768 entries, however small the vocabulary.)
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from trl.kernels.chunked_divergence import ChunkedDivergenceFunction

from dasd.credit import Divergence, DivergenceTerm, chunked_divergence
from dasd.models import LanguageModelHead


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
    fits_kernel = divergence.is_plain and student_share is None and len(student_hidden) > 0
    if not (fits_kernel and has_fused_kernel(student_hidden)):
        vocab_size = student_head.weight.shape[0]
        return chunked_divergence(
            divergence, student_hidden, student_head, teacher_hidden, teacher_head, vocab_size, student_share
        )
    trl_beta = {"forward_kl": 0.0, "reverse_kl": 1.0, "jsd": divergence.mixture}[divergence.kind]
    with student_head.precision(student_hidden):
        values, _ = ChunkedDivergenceFunction.apply(
            student_head.take(student_hidden), student_head.weight, student_head.bias,
            teacher_head.take(teacher_hidden), teacher_head.weight, teacher_head.bias,
            trl_beta, student_head.temperature,
            student_head.scale, student_head.softcap, teacher_head.scale, teacher_head.softcap,
        )  # fmt: skip
    return values


def has_fused_kernel(hidden: Tensor) -> bool:
    return hidden.is_cuda
