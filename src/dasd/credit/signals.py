"""What does credit assignment see, and what does it return?

`TokenSignals` holds the few tensors every method needs, checked once; `Credit` holds one number a token, and for methods that
compare whole distributions the weights of that comparison. The statistics here are per rollout (one row), in float32, over
valid tokens only: padding, batch order and micro-batch splits change nothing (up to rounding).
Imports torch only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from dasd.credit.divergence import Divergence

_CONTRASTS = ("contrast_logps", "has_contrast")  # W wrong contexts come first
_LARGEST = 1e30  # values are clamped here, so that sums over a rollout stay finite in float32
_LOGIT = 32.0  # a usual large logit; its rounding is at most half an eps of it
_SUMS = 512.0  # rounding of a logit that comes from the order of sums, in eps of float32
_CEILING = 3.0  # rounding has not been seen to reach this many noise floors, among thousands of tokens
_SINGLE = torch.finfo(torch.float32).eps


class NotFinite(ValueError):
    """A signal is NaN or infinite where it counts."""


@dataclass(frozen=True, eq=False)
class TokenSignals:
    """The scores of a batch of completions, B rollouts of at most T tokens. Read as constants: no gradient flows through them.

    student_logps     (B, T) nats  log p_student(y_t | x, y_<t), the student sees the problem alone
    teacher_logps     (B, T) nats  log p_teacher(y_t | x, c, y_<t), the teacher sees privileged context c too
    entropies         (B, T) nats  full-vocabulary entropy of the student at step t
    completion_mask   (B, T)       1 = counts, 0 = padding; bool, integer or float
    advantages        (B,)         verifier advantage of each rollout, > 0 better than its group

    Read by some methods only (their `needs` names them); those raise ValueError where it is None:

    correct           (B,) bool    the verifier accepts the rollout. By reward, never by `advantages > 0`
    teacher_entropies (B, T) nats  full-vocabulary entropy of the teacher at step t
    contrast_logps    (W, B, T) nats  log p_teacher(y_t | x, c', y_<t) under W wrong contexts c'
    has_contrast      (W, B) bool  the rollout has this wrong context; None: all have
    ratio             (B, T)       p_student now over p_student at sampling time; None: the policy has not moved
    has_teacher       (B,) bool    the rollout has a privileged context; None: all have
    attention_entropies (B, T) nats  entropy of the student's attention at step t, mean over heads and layers
    sum_squared_probs (B, T)       sum over the vocabulary of the student's squared probabilities at step t, in (0, 1]
    token_frequencies (B, T)       how often this token id occurs in the batch of rollouts, over all its tokens, in (0, 1]
    teacher_entropy_history        median teacher entropy of each optimisation step so far, nats, the present one last
    batch_totals                   what a method's own `batch_totals` gives, summed over the batch that these rollouts are
                                   part of; None: they are all of it. In training it is asked for before the student is scored:
                                   it may read masks, verdicts and the teacher's part, no gap and no entropy of the student
    evidence                       what a method's own `look` found in earlier batches and this one, as its `update` keeps it
    computed_in                    dtype that the model computes in, from which `noise_floor` follows

    What stands at masked positions never matters, NaN included. Raises ValueError, naming the tensor and the first bad index,
    for a wrong shape or dtype and for a non-finite value at a valid position.
    """

    student_logps: Tensor
    teacher_logps: Tensor
    entropies: Tensor
    completion_mask: Tensor
    advantages: Tensor
    correct: Tensor | None = None
    teacher_entropies: Tensor | None = None
    contrast_logps: Tensor | None = None
    has_contrast: Tensor | None = None
    ratio: Tensor | None = None
    has_teacher: Tensor | None = None
    attention_entropies: Tensor | None = None
    sum_squared_probs: Tensor | None = None
    token_frequencies: Tensor | None = None
    teacher_entropy_history: Sequence[float] | None = None
    batch_totals: Mapping[str, float] | None = None
    evidence: Mapping[str, Sequence[float]] | None = None
    computed_in: torch.dtype = torch.float32

    def __post_init__(self) -> None:
        tensors = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in _NO_TENSORS}
        tensors = {name: tensor for name, tensor in tensors.items() if tensor is not None or name in _REQUIRED}
        for name, tensor in tensors.items():
            if not isinstance(tensor, Tensor):
                raise ValueError(f"{name} must be a torch.Tensor, got {type(tensor).__name__}")
        shape = self.student_logps.shape
        if len(shape) != 2:
            raise ValueError(f"student_logps must have shape (B, T), got {tuple(shape)}")
        for name, tensor in tensors.items():
            per_rollout = name in ("advantages", "correct", "has_teacher", "has_contrast")
            expected = shape[:1] if per_rollout else shape
            got = tensor.shape[1:] if name in _CONTRASTS else tensor.shape
            if got != expected:
                wanted = f"(W, {', '.join(map(str, expected))})" if name in _CONTRASTS else str(tuple(expected))
                raise ValueError(f"{name} must have shape {wanted} to match student_logps, got {tuple(tensor.shape)}")
            if name in ("correct", "has_teacher", "has_contrast"):
                if tensor.dtype != torch.bool:
                    raise ValueError(f"{name} must be bool, got {tensor.dtype}")
            elif name == "completion_mask":
                if tensor.is_complex():
                    raise ValueError(f"completion_mask must hold 0 and 1, got dtype {tensor.dtype}")
                _refuse_first((tensor != 0) & (tensor != 1), name, tensor, "expected 0 or 1")
            elif not tensor.is_floating_point():
                raise ValueError(f"{name} must be floating point, got {tensor.dtype}")
        given = [len(tensors[name]) for name in _CONTRASTS if name in tensors]
        if len(set(given)) > 1:
            raise ValueError(f"contrast_logps has {given[0]} wrong contexts and has_contrast {given[1]}: these must agree")
        for name, tensor in tensors.items():
            if tensor.is_floating_point() and name != "completion_mask":
                counts = torch.ones_like(tensor, dtype=torch.bool) if name == "advantages" else self.valid
                where = "" if name == "advantages" else " where the mask is 1"
                _refuse_first(~torch.isfinite(tensor) & counts, name, tensor, f"expected a finite value{where}", NotFinite)

    @cached_property
    def valid(self) -> Tensor:
        """(B, T) bool, the mask."""
        return self.completion_mask != 0

    @cached_property
    def raw_gap(self) -> Tensor:
        """(B, T) float32 nats, `teacher_logps - student_logps` as computed, rounding included. 0 where untaught."""
        return (self._clean(self.teacher_logps) - self._clean(self.student_logps)).masked_fill(~self.taught, 0.0)

    @cached_property
    def gap(self) -> Tensor:
        """(B, T) float32 nats, `raw_gap` where that is evidence, else 0; > 0: the teacher prefers this token more.

        Evidence is above `noise_floor`, in a rollout where something is above three times that: some rounding passes one
        floor, and a floor that none passes would leave out a quarter of what a teacher says in bfloat16.
        """
        size = self.raw_gap.abs()
        has_evidence = (size > _CEILING * self.noise_floor).any(-1, keepdim=True)
        return self.raw_gap.masked_fill(~has_evidence | (size <= self.noise_floor), 0.0)

    @cached_property
    def noise_floor(self) -> Tensor:
        """(B, T) float32 nats: how large a gap rounding makes, seldom more: `(16 eps + 512 eps32) (1 - p) + 32 eps32`.

        A logit z is known to eps/2 |z|, that is 16 eps at 32; sums over thousands of terms, taken in float32 whatever the
        dtype and in another order in another batch, add 512 eps32. The log-prob's derivative by the logits is onehot - p, so
        what reaches it fades as the token's p, the smaller one of student and teacher, comes near 1. The log-softmax is taken
        in float32: the logit and the logarithm of the sum are each rounded to 16 eps32. Measured: LOG.md, 2026-11-26.
        """
        eps = max(torch.finfo(self.computed_in).eps, _SINGLE)
        least = torch.minimum(self._clean(self.student_logps), self._clean(self.teacher_logps)).clamp(max=0.0)
        return (_LOGIT / 2 * eps + _SUMS * _SINGLE) * -torch.expm1(least) + _LOGIT * _SINGLE

    @cached_property
    def entropy(self) -> Tensor:
        """(B, T) float32 nats, `entropies` with 0 where masked."""
        return self._clean(self.entropies)

    @cached_property
    def rollout_advantages(self) -> Tensor:
        """(B, T) float32, each rollout's verifier advantage at each of its tokens. 0 where masked."""
        return self._clean(self.advantages[:, None].expand_as(self.student_logps))

    @cached_property
    def taught(self) -> Tensor:
        """(B, T) bool, valid tokens of the rollouts that have a teacher."""
        return self.valid if self.has_teacher is None else self.valid & self.has_teacher[:, None]

    def require(self, name: str) -> Tensor:
        """An optional tensor by name, (..., T) as float32 with 0 where masked. Raises ValueError where it was not given."""
        tensor = getattr(self, name)
        if tensor is None:
            raise ValueError(f"this method needs {name}, which was not given to TokenSignals")
        return tensor if tensor.dtype == torch.bool else self._clean(tensor)

    def totals(self, of: Callable[[TokenSignals], Mapping[str, Tensor]]) -> dict[str, float]:
        """Sums over the whole batch: `batch_totals` where it was given, else `of` these rollouts."""
        return dict(self.batch_totals) if self.batch_totals is not None else {k: float(v) for k, v in of(self).items()}

    def _clean(self, tensor: Tensor) -> Tensor:
        return tensor.detach().float().masked_fill(~self.valid, 0.0).clamp(-_LARGEST, _LARGEST)


@dataclass(frozen=True, eq=False)
class DivergenceTerm:
    """A part of the loss that compares whole distributions: sum over tokens of `weights * divergence(student, teacher)`, over
    a number of the whole optimisation step.

    divergence     how two distributions over the vocabulary are compared
    weights        (B, T) float32, detached, 0 where nothing is compared; > 0 attracts to the teacher, < 0 repels
    student_share  (B, T) float32 in [0, 1] or None: the target is that share of the (detached) student and the rest teacher
    average        that number: all `tokens`, `taught` tokens, or taught `rollouts` that are not empty
    """

    divergence: Divergence
    weights: Tensor
    student_share: Tensor | None = None
    average: Literal["tokens", "taught", "rollouts"] = "tokens"


@dataclass(frozen=True, eq=False)
class Credit:
    """One number a token, and what can be said of the batch.

    advantages  (B, T) float32, detached, 0 where the mask is 0
    omega       (B, T) float32 in [-1, 1], > 0 attract to the teacher, < 0 repel; None for methods without direction
    totals      sums over tokens behind `metrics`; they add up over micro-batches and processes
    terms       what is added to the policy loss, for methods that compare distributions
    loss_weights (B, T) float32 >= 0 or None: how much each token counts in the mean of the policy loss; None: once
    """

    advantages: Tensor
    omega: Tensor | None = None
    totals: Mapping[str, Tensor] = field(default_factory=dict)
    terms: tuple[DivergenceTerm, ...] = ()
    loss_weights: Tensor | None = None

    @property
    def loss_advantages(self) -> Tensor:
        """(B, T) `advantages` for a policy loss that counts every token once: one that counts twice has twice the advantage."""
        return self.advantages if self.loss_weights is None else self.advantages * self.loss_weights

    @property
    def metrics(self) -> dict[str, float]:
        """Ratios of `totals`; a ratio without any token behind it is left out."""
        return ratios({name: float(total) for name, total in self.totals.items()})


def masked_mean(values: Tensor, valid: Tensor) -> Tensor:
    """(B,) mean of each row's valid values; 0 for a row without any."""
    return values.masked_fill(~valid, 0.0).sum(-1) / valid.sum(-1).clamp(min=1)


def masked_quantile(values: Tensor, valid: Tensor, q: float) -> Tensor:
    """(B,) quantile of each row's valid values, linearly interpolated as in `numpy.quantile`; 0 for a row without any.

    Sorts instead of calling `torch.quantile`, which refuses more than 2**24 elements.
    """
    if values.shape[-1] == 0:
        return values.new_zeros(values.shape[0])
    ordered = values.masked_fill(~valid, torch.inf).sort(-1).values
    count = valid.sum(-1)
    position = q * (count - 1).clamp(min=0).to(torch.float64)  # float32 cannot count past 2**24
    lower = position.floor().long()
    upper = position.ceil().long()
    low, high = (ordered.gather(-1, index[:, None])[:, 0] for index in (lower, upper))
    quantile = torch.lerp(low, high, (position - lower).to(values.dtype))
    return torch.where(count > 0, quantile, 0.0)


def masked_deviation(values: Tensor, valid: Tensor, center: Tensor) -> Tensor:
    """(B,) mean absolute deviation of each row's valid values from its `center` (B,)."""
    return masked_mean((values - center[:, None]).abs(), valid)


def entropy_deciles(signals: TokenSignals) -> Tensor:
    """(B, T) long, 0 (lowest) to 9: the decile of each valid token's entropy among its rollout's tokens; -1 where masked."""
    ranks = signals.entropy.masked_fill(~signals.valid, torch.inf).argsort(dim=-1, stable=True).argsort(dim=-1)
    count = signals.valid.sum(-1, keepdim=True).clamp(min=1)
    return (10 * ranks // count).masked_fill(~signals.valid, -1)


def high_entropy(signals: TokenSignals, rho: float) -> Tensor:
    """(B, T) bool: the tokens of each rollout above its entropy quantile `rho`, about the share `1 - rho` of them."""
    return signals.valid & (signals.entropy > masked_quantile(signals.entropy, signals.valid, rho)[:, None])


def tally(signals: TokenSignals, term: Tensor, omega: Tensor | None, rho: float = 0.8) -> dict[str, Tensor]:
    """Sums for `Credit.totals`; `term` (B, T) was added to the verifier's advantage; high: above the entropy quantile `rho`."""
    valid, gap, before = signals.valid, signals.gap, signals.rollout_advantages
    after, size = before + term, term.abs()
    high = high_entropy(signals, rho)
    low = valid & ~high
    deciles = entropy_deciles(signals)[valid]
    totals = {
        "tokens": valid.sum(),
        "gap_abs": gap.abs().sum(),
        "high": high.sum(),
        "gap_high": (gap * high).sum(),
        "low": low.sum(),
        "gap_low": (gap * low).sum(),
        "term": size.sum(),
        "verifier": before.abs().sum(),
        "flipped": (before * after < 0).sum(),
    }
    counts = gap.new_zeros(10).index_add_(0, deciles, torch.ones_like(gap[valid]))
    sums = gap.new_zeros(10).index_add_(0, deciles, gap[valid])
    for decile in range(10):
        totals[f"decile_{decile + 1}"], totals[f"gap_decile_{decile + 1}"] = counts[decile], sums[decile]
    if omega is not None:
        for side, chosen in (("attracted", omega > 0), ("repelled", omega < 0)):
            totals[f"{side}"], totals[f"term_{side}"] = chosen.sum(), (size * chosen).sum()
    return totals


def credit_with(signals: TokenSignals, advantages: Tensor, *terms: DivergenceTerm, omega: Tensor | None = None) -> Credit:
    """Credit of (B, T) advantages, tallied by what they add to the verifier's."""
    return Credit(advantages, omega, tally(signals, advantages - signals.rollout_advantages, omega), terms)


def ratios(totals: Mapping[str, float]) -> dict[str, float]:
    """Metrics from summed `totals`: shares in [0, 1], gaps in nats.

    tokens/attracted, tokens/repelled   share of tokens with omega > 0, < 0
    credit/attracted, credit/repelled   share of the summed |term| on each side
    credit/teacher                      summed |term| over summed |term| + |verifier advantage|
    credit/sign_flips                   share of tokens whose advantage changes sign by the term
    gap/abs, gap/high, gap/low          mean |gap|, 0 where rounding; mean gap of the tokens above and not above tau
    gap/decile_1 ... gap/decile_10      mean gap by entropy decile within the rollout
    """
    both = totals.get("term", 0.0) + totals.get("verifier", 0.0)
    pairs = {
        "tokens/attracted": ("attracted", totals.get("tokens")),
        "tokens/repelled": ("repelled", totals.get("tokens")),
        "credit/attracted": ("term_attracted", totals.get("term")),
        "credit/repelled": ("term_repelled", totals.get("term")),
        "credit/teacher": ("term", both),
        "credit/sign_flips": ("flipped", totals.get("tokens")),
        "gap/abs": ("gap_abs", totals.get("tokens")),
        "gap/high": ("gap_high", totals.get("high")),
        "gap/low": ("gap_low", totals.get("low")),
        **{f"gap/decile_{d}": (f"gap_decile_{d}", totals.get(f"decile_{d}")) for d in range(1, 11)},
    }
    return {name: totals[part] / whole for name, (part, whole) in pairs.items() if part in totals and whole}


_REQUIRED = ("student_logps", "teacher_logps", "entropies", "completion_mask", "advantages")
_NO_TENSORS = ("teacher_entropy_history", "batch_totals", "evidence", "computed_in")


def _refuse_first(bad: Tensor, name: str, tensor: Tensor, expected: str, kind: type[ValueError] = ValueError) -> None:
    if bad.any():
        index = tuple(bad.nonzero()[0].tolist())
        raise kind(f"{name}{list(index)} is {tensor[index].item()}, {expected} ({int(bad.sum())} such values)")
