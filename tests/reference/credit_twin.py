"""What should the credit core return? A slow NumPy twin of method.md section 2: one rollout and one token at a time, float64.

Written from the formulas, to be read next to them. It shares no code with `dasd.credit` and is not fast.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np


def direction_adaptive(
    student_logps,
    teacher_logps,
    entropies,
    completion_mask,
    advantages,
    *,
    beta=0.1,
    rho=0.8,
    route="tanh",
    gate=True,
    gap_scale="median_abs",
    gap_clip=5.0,
    sigma_center="mean",
    eps=2.0**-23,
):
    """(A_t, omega_t, metrics): two (B, T) float64 arrays, 0 where masked, and the metrics of the whole batch."""
    advantage = np.zeros(np.shape(completion_mask))
    omega = np.zeros(np.shape(completion_mask))
    sums = defaultdict(float)
    for b in range(advantage.shape[0]):
        tokens = [t for t in range(advantage.shape[1]) if completion_mask[b][t]]
        if not tokens:
            continue
        gap = {t: float(teacher_logps[b][t]) - float(student_logps[b][t]) for t in tokens}
        entropy = {t: float(entropies[b][t]) for t in tokens}
        verifier = float(advantages[b])

        tau = float(np.quantile([entropy[t] for t in tokens], rho))
        sigma = spread_of_entropy(list(entropy.values()), tau, sigma_center)
        unit = typical_gap(list(gap.values()), gap_scale)
        floors = [noise_floor(float(student_logps[b][t]), float(teacher_logps[b][t]), eps) for t in tokens]
        said = any(abs(gap[t]) > 3 * floor for t, floor in zip(tokens, floors, strict=True))
        for t in tokens:
            noise = noise_floor(float(student_logps[b][t]), float(teacher_logps[b][t]), eps)
            if abs(gap[t]) <= noise or not said:
                gap[t] = 0.0
            gap_bar = min(max(gap[t] / max(unit, noise), -gap_clip), gap_clip)
            omega[b, t] = direction(route, entropy[t], tau, sigma)
            if gate:
                omega[b, t] *= 1 / (1 + math.exp(-(abs(gap_bar) - 1)))
            term = beta * omega[b, t] * gap_bar
            advantage[b, t] = verifier + term
            count_token(sums, verifier, term, omega[b, t], gap[t])
            side = "high" if entropy[t] > tau else "low"
            sums[f"n/{side}"] += 1
            sums[f"gap/{side}"] += gap[t]
        for rank, t in enumerate(sorted(tokens, key=lambda t: entropy[t])):  # ties: the earlier token ranks lower
            decile = math.floor(10 * rank / len(tokens)) + 1
            sums[f"n/decile_{decile}"] += 1
            sums[f"gap/decile_{decile}"] += gap[t]
    return advantage, omega, metrics_of(sums)


def noise_floor(student, teacher, eps):
    """What rounding makes of a gap: 16 eps of the computing dtype and 512 of float32, times 1 - p, and 32 of float32."""
    p = math.exp(min(student, teacher, 0.0))
    return (16 * eps + 512 * 2.0**-23) * (1 - p) + 32 * 2.0**-23


def spread_of_entropy(entropies, tau, center):
    """sigma_H: the mean absolute deviation of a rollout's entropies from the chosen center."""
    middle = {"mean": sum(entropies) / len(entropies), "median": float(np.quantile(entropies, 0.5)), "quantile": tau}[center]
    return sum(abs(h - middle) for h in entropies) / len(entropies)


def typical_gap(gaps, gap_scale):
    """The unit of gap_bar in a rollout."""
    if gap_scale == "median_abs":
        return float(np.median(np.abs(gaps)))
    if gap_scale == "mean_abs":
        return sum(abs(d) for d in gaps) / len(gaps)
    if gap_scale == "std":
        mean = sum(gaps) / len(gaps)
        return math.sqrt(sum((d - mean) ** 2 for d in gaps) / len(gaps))
    assert gap_scale == "none"
    return 1.0


def direction(route, entropy, tau, sigma):
    """The route of one token: positive attracts, negative repels."""
    if route == "tanh":
        return 0.0 if sigma == 0 else math.tanh((tau - entropy) / sigma)
    if route == "hard":
        return 1.0 if entropy < tau else -1.0 if entropy > tau else 0.0
    if route == "fork_only":
        return -1.0 if entropy > tau else 0.0
    if route == "scaffold_only":
        return 1.0 if entropy <= tau else 0.0
    return {"attract": 1.0, "repel": -1.0}[route]


def count_token(sums, verifier, term, omega, gap):
    sums["n"] += 1
    sums["gap"] += abs(gap)
    sums["term"] += abs(term)
    sums["verifier"] += abs(verifier)
    if (verifier > 0 and verifier + term < 0) or (verifier < 0 and verifier + term > 0):
        sums["flips"] += 1
    if omega > 0:
        sums["n/attracted"] += 1
        sums["term/attracted"] += abs(term)
    if omega < 0:
        sums["n/repelled"] += 1
        sums["term/repelled"] += abs(term)


def metrics_of(sums):
    """The metrics by name; one without anything to divide by is left out."""
    metrics = {}

    def ratio(name, part, whole):
        if whole != 0:
            metrics[name] = part / whole

    for side in ("attracted", "repelled"):
        ratio(f"tokens/{side}", sums[f"n/{side}"], sums["n"])
        ratio(f"credit/{side}", sums[f"term/{side}"], sums["term"])
    ratio("credit/teacher", sums["term"], sums["term"] + sums["verifier"])
    ratio("credit/sign_flips", sums["flips"], sums["n"])
    ratio("gap/abs", sums["gap"], sums["n"])
    for part in ("high", "low", *(f"decile_{d}" for d in range(1, 11))):
        ratio(f"gap/{part}", sums[f"gap/{part}"], sums[f"n/{part}"])
    return metrics
