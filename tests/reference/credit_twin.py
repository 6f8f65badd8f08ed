"""What should the credit core return? A slow NumPy twin of method.md section 2: one rollout and one token at a time, float64.

Written from the formulas, to be read next to them. It shares no code with `dasd.credit` and is not fast.
"""

from __future__ import annotations

import math
from collections import defaultdict

import numpy as np


def as_printed(student_logps, teacher_logps, entropies, advantage, *, beta, rho=0.20, read_from="below"):
    """A_t of one rollout without masked tokens, as 2605.22263 prints it: no clip, the median as scale. (T,) each.

    read_from  "below": rho is the quantile, the lower fifth; "above": the same number counted from the top
    """
    delta = np.asarray(teacher_logps, dtype=np.float64) - np.asarray(student_logps, dtype=np.float64)
    h = np.asarray(entropies, dtype=np.float64)
    delta_bar = delta / np.median(np.abs(delta))
    tau = np.quantile(h, rho if read_from == "below" else 1 - rho)
    sigma = np.mean(np.abs(h - np.mean(h)))
    omega = np.tanh((tau - h) / sigma) / (1 + np.exp(-(np.abs(delta_bar) - 1)))
    return advantage + beta * omega * delta_bar


def direction_adaptive(
    student_logps,
    teacher_logps,
    entropies,
    completion_mask,
    advantages,
    *,
    beta=0.1,
    rho=0.8,
    signal="student_entropy",
    map="tanh",
    arm="both",
    flip="none",
    gate="gap",
    gate_threshold=1.0,
    gap_scale="median_abs",
    gap_units="one",
    gap_clip=5.0,
    sigma="one",
    sigma_center="mean",
    rank=False,
    baseline="none",
    eps=2.0**-23,
    **others,
):
    """(A_t, omega_t, metrics): two (B, T) float64 arrays, 0 where masked, and the metrics of the whole batch."""
    advantage = np.zeros(np.shape(completion_mask))
    omega = np.zeros(np.shape(completion_mask))
    sums = defaultdict(float)
    for b in range(advantage.shape[0]):
        tokens = [t for t in range(advantage.shape[1]) if completion_mask[b][t]]
        if not tokens:
            continue
        raw = {t: float(teacher_logps[b][t]) - float(student_logps[b][t]) for t in tokens}
        entropy = {t: float(entropies[b][t]) for t in tokens}
        verifier = float(advantages[b])

        x = unsureness(signal, tokens, b, student_logps, entropy, others)
        if rank:
            x = mean_ranks(x)
        tau = float(np.quantile(list(x.values()), rho))
        low, high = [t for t in tokens if x[t] <= tau], [t for t in tokens if x[t] > tau]
        tau_h = float(np.quantile(list(entropy.values()), rho))
        floor = {t: noise_floor(float(student_logps[b][t]), float(teacher_logps[b][t]), eps) for t in tokens}
        said, gap, pull = any(abs(raw[t]) > 3 * floor[t] for t in tokens), {}, {}
        for t in tokens:
            noise = floor[t]
            gap[t] = raw[t] if said and abs(raw[t]) > noise else 0.0
            among = tokens if gap_units == "one" else low if t in low else high
            unit = max(typical_gap([raw[i] for i in among], gap_scale), noise)
            gap_bar = min(max(gap[t] / unit, -gap_clip), gap_clip)
            omega[b, t] = direction(map, x[t], tau, spread(x, tau, t, sigma, sigma_center))
            if arm != "both" and t not in (low if arm == "low" else high):
                omega[b, t] = 0.0
            if flip != "none" and t in (low if flip == "low" else high):
                omega[b, t] = -omega[b, t]
            omega[b, t] *= gate_factor(gate, abs(gap_bar), gate_threshold)
            pull[t] = beta * omega[b, t] * gap_bar
        for t in tokens:
            term = pull[t] - usual_pull(baseline, t, pull, {"low": [low], "high": [high], "both": [low, high]}[arm])
            advantage[b, t] = verifier + term
            count_token(sums, verifier, term, omega[b, t], gap[t])
            side = "high" if entropy[t] > tau_h else "low"
            sums[f"n/{side}"] += 1
            sums[f"gap/{side}"] += gap[t]
        for place, t in enumerate(sorted(tokens, key=lambda t: entropy[t])):  # ties: the earlier token ranks lower
            decile = math.floor(10 * place / len(tokens)) + 1
            sums[f"n/decile_{decile}"] += 1
            sums[f"gap/decile_{decile}"] += gap[t]
    return advantage, omega, metrics_of(sums)


def unsureness(signal, tokens, b, student_logps, entropy, others):
    """The signal of each token: high is unsure."""
    if signal == "student_entropy":
        return dict(entropy)
    if signal == "position":
        last = max(len(tokens) - 1, 1)
        return {t: 1 - index / last for index, t in enumerate(tokens)}
    if signal == "token_frequency":
        return {t: -math.log(float(others["token_frequencies"][b][t])) for t in tokens}
    if signal == "gradient_norm":
        p = {t: math.exp(min(float(student_logps[b][t]), 0.0)) for t in tokens}
        return {t: math.sqrt(max(1 - 2 * p[t] + float(others["sum_squared_probs"][b][t]), 0.0)) for t in tokens}
    return {t: float(others[{"teacher_entropy": "teacher_entropies"}.get(signal, "attention_entropies")][b][t]) for t in tokens}


def mean_ranks(x):
    """From 0 to 1: of the other tokens, the share below, ties counting half."""
    others = max(len(x) - 1, 1)
    below = {t: sum(v < x[t] for v in x.values()) for t in x}
    ties = {t: sum(v == x[t] for v in x.values()) - 1 for t in x}
    return {t: (below[t] + ties[t] / 2) / others for t in x}


def noise_floor(student, teacher, eps):
    """What rounding makes of a gap: 16 eps of the computing dtype and 512 of float32, times 1 - p, and 32 of float32."""
    p = math.exp(min(student, teacher, 0.0))
    return (16 * eps + 512 * 2.0**-23) * (1 - p) + 32 * 2.0**-23


def spread(x, tau, t, sigma, center):
    """The typical distance from tau: of all tokens, about their center, or of those on the token's own side."""
    if sigma == "side":
        side = [abs(v - tau) for v in x.values() if (v < tau if x[t] < tau else v > tau)]
        return sum(side) / len(side) if side else 0.0
    values = list(x.values())
    middle = {"mean": sum(values) / len(values), "median": float(np.quantile(values, 0.5)), "quantile": tau}[center]
    return sum(abs(v - middle) for v in values) / len(values)


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


def direction(map, x, tau, sigma):
    """The direction of one token: positive attracts, negative repels."""
    if map == "tanh":
        return 0.0 if sigma == 0 else math.tanh((tau - x) / sigma)
    if map == "linear":
        return 0.0 if sigma == 0 else min(max((tau - x) / sigma, -1.0), 1.0)
    if map == "hard":
        return 1.0 if x < tau else -1.0 if x > tau else 0.0
    return {"attract": 1.0, "repel": -1.0}[map]


def usual_pull(baseline, t, pull, sides):
    """What the term of one token is less; `sides` are the tokens that have a direction, by their side of tau."""
    if baseline == "none" or not any(t in side for side in sides):
        return 0.0
    among = [i for side in sides if baseline == "rollout" or t in side for i in side]
    return math.fsum(pull[i] for i in among) / len(among)


def gate_factor(gate, size, threshold):
    return {
        "gap": 1 / (1 + math.exp(-(size - 1))) if gate == "gap" else None,
        "none": 1.0,
        "threshold": 1.0 if size > threshold else 0.0,
        "magnitude": min(size, 1.0),
    }[gate]


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
