"""How far are two distributions apart? Slow twin of `dasd.credit.divergence`, one token and one vocabulary entry at a time."""

import math


def distribution(logits):
    largest = max(logits)
    weights = [math.exp(logit - largest) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def summand(p, q):
    """One entry of KL(p || q)."""
    if p == 0:
        return 0.0
    return math.inf if q == 0 else p * (math.log(p) - math.log(q))


def divergence(
    student_logits, teacher_logits, kind="forward_kl", mixture=0.5, summand_cap=None, top_k=None, support="student",
    tail="bucket", student_share=None,
):  # fmt: skip
    """Nats, for the logits of one token."""
    S, T = distribution(student_logits), distribution(teacher_logits)
    if student_share is not None:
        T = [student_share * s + (1 - student_share) * t for s, t in zip(S, T, strict=True)]
    if top_k is not None:
        whose = S if support == "student" else T
        entries = sorted(range(len(S)), key=lambda v: -whose[v])[:top_k]
        S, T = ([probs[v] for v in entries] for probs in (S, T))
        if tail == "bucket":
            S, T = ([*probs, max(1 - sum(probs), 1e-7)] for probs in (S, T))
        elif tail == "renormalise":
            S, T = ([p / sum(probs) for p in probs] for probs in (S, T))
    total = 0.0
    for s, t in zip(S, T, strict=True):
        if kind == "forward_kl":
            part = summand(t, s)
        elif kind == "reverse_kl":
            part = summand(s, t)
        else:
            middle = mixture * t + (1 - mixture) * s
            part = mixture * summand(t, middle) + (1 - mixture) * summand(s, middle)
        total += part if summand_cap is None else min(part, summand_cap)
    return total
