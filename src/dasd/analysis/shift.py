"""How far is the student from the teacher at each token, and which way would a step of training move it?

Distance is the total variation `TV = 1/2 sum_v |p_v - q_v|` between the student's p and the teacher's q, over the vocabulary.

A policy-gradient step of rate eta on the token credit `a` of the sampled token y moves the logits by `eta a (e_y - p)`. To
first order that changes the student's probabilities by `dp = eta a p (e_y - p - p_y + p.p)`, entry by entry, and

    dTV = eta a slope,    slope = 1/2 (s_y p_y - sum s p^2 - (p_y - sum p^2) sum s p),    s = sign(p - q)

Negative: toward the teacher; positive: away from it. Ours, the paper (2605.22263) shows such a shift by entropy without telling
how it is computed. It takes the logits for free parameters: what weights that are shared between places do, it cannot say.
Imports torch only.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dasd.analysis.scores import chunks
from dasd.credit import METHODS, TokenSignals
from dasd.models import LanguageModelHead

TERMS = ("conformity", "dasd", "dasd_paper", "novelty")  # methods whose teacher's term is recorded


@torch.inference_mode()
def compare(head: LanguageModelHead, student: Tensor, teacher: Tensor, completion: Tensor) -> dict[str, Tensor]:
    """`teacher_logps`, `tv` and `slope`, each (T,) float32, from (T, d) hidden states of both and (T,) token ids."""
    parts = []
    for here, there, tokens in chunks(head, student, teacher, completion):
        logp, logq = (head(states).log_softmax(-1) for states in (here, there))
        parts.append(torch.stack(_of_logps(logp, logq, tokens)))
    return dict(zip(("teacher_logps", "tv", "slope"), torch.cat(parts, dim=1), strict=True))


def _of_logps(logp: Tensor, logq: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    p, q = logp.exp(), logq.exp()
    sign, square = (p - q).sign(), p.square()
    own = tokens[:, None]
    p_own, s_own = p.gather(-1, own)[:, 0], sign.gather(-1, own)[:, 0]
    slope = s_own * p_own - (sign * square).sum(-1) - (p_own - square.sum(-1)) * (sign * p).sum(-1)
    return logq.gather(-1, own)[:, 0], 0.5 * (p - q).abs().sum(-1), 0.5 * slope


def teacher_terms(
    student_logps: Tensor, teacher_logps: Tensor, entropies: Tensor, computed_in: torch.dtype = torch.float32
) -> dict[str, Tensor]:
    """Of each method in TERMS what the teacher adds to the advantage of each token: (T,), from (T,) nats."""
    signals = TokenSignals(
        student_logps=student_logps[None],
        teacher_logps=teacher_logps[None],
        entropies=entropies[None],
        completion_mask=torch.ones_like(student_logps)[None],
        advantages=torch.zeros(1),
        computed_in=computed_in,
    )
    return {name: METHODS[name](signals).advantages[0] for name in TERMS}
