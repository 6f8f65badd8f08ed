"""How far are two distributions over the vocabulary apart? With gradient to the student, and never a whole batch of logits.

    forward_kl  KL(teacher || student) = sum_v T_v (log T_v - log S_v)      covers what the teacher would say
    reverse_kl  KL(student || teacher) = sum_v S_v (log S_v - log T_v)      drops what the teacher would not say
    jsd         b KL(T || M) + (1 - b) KL(S || M),  M = b T + (1 - b) S     between 0 and log 2, so safe to maximise

`chunked_divergence` projects hidden states to logits a few tokens at a time and does so again in the backward pass: memory is
bounded by a chunk, whatever the number of tokens and the vocabulary. Imports torch only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

_NEVER = -1e4  # a log-prob whose probability is 0 in float32
CHUNK_ELEMENTS = 2**24  # logits of one chunk; a float32 chunk of one model is 64 MiB


@dataclass(frozen=True)
class Divergence:
    """A divergence of the student from the teacher, by its settings.

    kind          forward_kl, reverse_kl or jsd, see above
    mixture       jsd: the teacher's share b of the mixture
    summand_cap   each vocabulary entry's summand is cut to at most this before the sum, which may then be negative (2601.18734)
    top_k         compare on this many entries only, None: the whole vocabulary
    support       whose most likely entries these are
    tail          the rest: `bucket` lumps it into one more entry, `renormalise` leaves it out of both, `drop` leaves out its
                  summands and nothing else, so that the sum may be negative

    Raises ValueError for settings out of range.
    """

    kind: Literal["forward_kl", "reverse_kl", "jsd"] = "forward_kl"
    mixture: float = 0.5
    summand_cap: float | None = None
    top_k: int | None = None
    support: Literal["student", "teacher"] = "student"
    tail: Literal["bucket", "renormalise", "drop"] = "bucket"

    def __post_init__(self) -> None:
        for name, choices in (
            ("kind", _KINDS),
            ("support", ("student", "teacher")),
            ("tail", ("bucket", "renormalise", "drop")),
        ):
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if not 0 < self.mixture < 1:
            raise ValueError(f"mixture must lie between 0 and 1, got {self.mixture}; at its ends are forward_kl and reverse_kl")
        if self.summand_cap is not None and not self.summand_cap > 0:
            raise ValueError(f"summand_cap must be above 0, got {self.summand_cap}; null for no cap")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k must be at least 1, got {self.top_k}; null for the whole vocabulary")

    @property
    def is_plain(self) -> bool:
        """Whether this is the divergence alone, over the whole vocabulary: what fused kernels know."""
        return self.summand_cap is None and self.top_k is None

    def __call__(self, student_logits: Tensor, teacher_logits: Tensor, student_share: Tensor | None = None) -> Tensor:
        """(N,) nats, float32, from (N, V) logits; gradient flows to `student_logits` alone.

        `student_share` (N,) in [0, 1] replaces the teacher by `share * student + (1 - share) * teacher`, detached.
        """
        student = student_logits.float().log_softmax(-1)
        teacher = teacher_logits.detach().float().log_softmax(-1)
        if student_share is not None:
            share = student_share[:, None].clamp(0.0, 1.0)
            teacher = torch.logaddexp(student.detach() + share.log(), teacher + (1.0 - share).log())
        if self.top_k is not None:
            student, teacher = self._on_support(student, teacher)
        summands = _KINDS[self.kind](student, teacher, self.mixture)
        if self.summand_cap is not None:
            summands = summands.clamp(max=self.summand_cap)
        return summands.sum(-1)

    def _on_support(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        whose = student if self.support == "student" else teacher
        entries = whose.detach().topk(min(self.top_k or 0, whose.shape[-1]), dim=-1).indices
        student, teacher = student.gather(-1, entries), teacher.gather(-1, entries)
        if self.tail == "bucket":
            return _with_tail(student), _with_tail(teacher)
        if self.tail == "drop":
            return student, teacher
        return student.log_softmax(-1), teacher.log_softmax(-1)


def _with_tail(logps: Tensor) -> Tensor:
    """Log-probs with one more entry for the mass that is left; at least 1e-7 of it, so that its logarithm is finite."""
    mass = logps.logsumexp(-1, keepdim=True).clamp(max=-1e-7)
    return torch.cat([logps, torch.log(-torch.expm1(mass))], dim=-1)


def _forward_kl(student: Tensor, teacher: Tensor, mixture: float) -> Tensor:
    return _times(teacher.exp(), teacher - student)


def _reverse_kl(student: Tensor, teacher: Tensor, mixture: float) -> Tensor:
    return _times(student.exp(), student - teacher)


def _jsd(student: Tensor, teacher: Tensor, mixture: float) -> Tensor:
    share = torch.tensor(mixture, dtype=student.dtype, device=student.device)
    impossible = (student == -torch.inf) & (teacher == -torch.inf)  # logaddexp of two -inf has a NaN gradient
    student, teacher = student.masked_fill(impossible, _NEVER), teacher.masked_fill(impossible, _NEVER)
    middle = torch.logaddexp(teacher + share.log(), student + (1 - share).log())
    return share * _times(teacher.exp(), teacher - middle) + (1 - share) * _times(student.exp(), student - middle)


def _times(probs: Tensor, log_ratio: Tensor) -> Tensor:
    """probs * log_ratio, and 0 where the probability is 0, whatever the logarithm."""
    impossible = probs == 0
    return probs * log_ratio.masked_fill(impossible, 0.0)


_KINDS = {"forward_kl": _forward_kl, "reverse_kl": _reverse_kl, "jsd": _jsd}
Head = Callable[[Tensor], Tensor]  # (n, d) hidden states to (n, V) logits, at the sampling temperature


def chunked_divergence(
    divergence: Divergence, student_hidden: Tensor, student_head: Head, teacher_hidden: Tensor, teacher_head: Head,
    vocab_size: int, student_share: Tensor | None = None, chunk_elements: int = CHUNK_ELEMENTS,
) -> Tensor:  # fmt: skip
    """(N,) nats: `divergence` of each token from (N, d) hidden states, at most `chunk_elements` logits of a model at a time.

    Gradient flows to `student_hidden` and to the parameters of `student_head`; the teacher is a constant.
    """

    def one_chunk(hidden: Tensor, other: Tensor, share: Tensor | None) -> Tensor:
        with torch.no_grad():
            teacher_logits = teacher_head(other)
        return divergence(student_head(hidden), teacher_logits, share)

    size = max(1, chunk_elements // vocab_size)
    parts = [
        checkpoint(
            one_chunk,
            student_hidden[start : start + size],
            teacher_hidden[start : start + size].detach(),
            None if student_share is None else student_share[start : start + size],
            use_reentrant=False,
        )
        for start in range(0, len(student_hidden), size)
    ]
    return torch.cat(parts) if parts else student_hidden.sum(-1).float()  # (0,), still part of the graph
