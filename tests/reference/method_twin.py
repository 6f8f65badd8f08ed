"""What should the compared methods return? Slow NumPy twins of method.md section 3, one token at a time, float64.

Written from the formulas, to be read next to them. Shares no code with `dasd.credit`. DASD and its ablations: `credit_twin.py`.

A twin takes a rollout (the list of its valid tokens, with what the verifier said) and its settings, and gives each token
(advantage, weights of its divergence terms, the student's share in the target).
"""

import math
from dataclasses import dataclass

import numpy as np

from reference import credit_twin


@dataclass
class Token:
    """One valid token: its place in the row, log-probs of student, teacher and wrong hints, entropies, importance ratio."""

    at: int
    s: float
    t: float
    h: float
    h_teacher: float
    wrong: list
    ratio: float

    @property
    def u(self):
        return self.t - self.s


@dataclass
class Rollout:
    a: float
    correct: bool
    taught: bool
    tokens: list


def run(twin, batch, **settings):
    """Arrays (B, T): advantages, a list of weights, the student's share."""
    shape = batch["completion_mask"].shape
    advantages, weights, share = np.zeros(shape), [np.zeros(shape), np.zeros(shape)], np.zeros(shape)
    for b, rollout in enumerate(read(batch)):
        for token, (a, w, s) in zip(rollout.tokens, twin(rollout, **settings), strict=True):
            advantages[b, token.at], share[b, token.at] = a, s
            for index, one in enumerate(w):
                weights[index][b, token.at] = one
    return advantages, weights, share


def read(batch):
    """A rollout without a teacher: the teacher says what the student says."""
    found = []
    for b in range(len(batch["advantages"])):
        taught, tokens = bool(batch["has_teacher"][b]), []
        for t in range(batch["completion_mask"].shape[1]):
            if batch["completion_mask"][b, t]:
                S = float(batch["student_logps"][b, t])
                T = float(batch["teacher_logps"][b, t]) if taught else S
                wrong = [float(layer[b, t]) for layer in batch["contrast_logps"]]
                H, H_T, ratio = (float(batch[name][b, t]) for name in ("entropies", "teacher_entropies", "ratio"))
                tokens.append(Token(t, S, T, H, H_T, wrong, ratio))
        found.append(Rollout(float(batch["advantages"][b]), bool(batch["correct"][b]), taught, tokens))
    return found


def sign(number):
    return (number > 0) - (number < 0)


def clip(number, low, high):
    return max(low, min(high, number))


def sigmoid(number):
    return 1 / (1 + math.exp(-number))


def uncertain_tokens(rollout, share):
    """Places of the tokens above the rollout's entropy quantile 1 - share."""
    if not rollout.tokens:
        return set()
    tau = np.quantile([token.h for token in rollout.tokens], 1 - share)
    return {token.at for token in rollout.tokens if token.h > tau}


def grpo(rollout):
    return [(rollout.a, [], 0) for _ in rollout.tokens]


def forking(rollout, rho=0.2):
    forks = uncertain_tokens(rollout, rho)
    return [(rollout.a if token.at in forks else 0.0, [], 0) for token in rollout.tokens]


def forking_batch(batch, rho=0.2):
    """One threshold for the whole batch: the tokens at least as uncertain as the one that `1 - rho` of them lie below."""
    rollouts = read(batch)
    everything = sorted(token.h for rollout in rollouts for token in rollout.tokens)
    advantages = np.zeros(batch["completion_mask"].shape)
    for b, rollout in enumerate(rollouts):
        for token in rollout.tokens:
            below = sum(h < token.h for h in everything)
            # the token, or one that equals it, stands at rank floor((1 - rho) n) or above
            last_equal = below + sum(h == token.h for h in everything) - 1
            advantages[b, token.at] = rollout.a * (last_equal >= math.floor((1 - rho) * len(everything)))
    return advantages


def rlsd(rollout, lam=0.5, low=0.8, high=1.2):
    return [
        (rollout.a * ((1 - lam) + lam * clip(math.exp(sign(rollout.a) * token.u), low, high)), [], 0)
        for token in rollout.tokens
    ]


def rlrt(rollout, lam=0.5, low=0.0, high=2.0):
    if not rollout.correct:
        return grpo(rollout)
    return [
        (rollout.a * ((1 - lam) + lam * clip(math.exp(-sign(rollout.a) * token.u), low, high)), [], 0)
        for token in rollout.tokens
    ]


def antisd(rollout, lam=0.5):
    return [(rollout.a - lam * 0.5 * (math.log(1 + math.exp(token.u)) - math.log(2)), [], 0) for token in rollout.tokens]


def rlcsd(rollout, scale=0.5, width=0.02):
    found = []
    for token in rollout.tokens:
        evidence = token.t - sum(token.wrong) / len(token.wrong) if rollout.taught else 0.0
        moved = rollout.a + scale * math.tanh(evidence / width)
        found.append((moved if sign(moved) == sign(rollout.a) else 0.0, [], 0))
    return found


def opsd_sampled(rollout):
    return [(token.u, [], 0) for token in rollout.tokens]


def opsd(rollout, strength=1.0):
    return [(0.0, [strength * rollout.taught], 0) for _ in rollout.tokens]


def pw_opsd(rollout):
    last, found = max(1, len(rollout.tokens) - 1), []
    for index, _ in enumerate(rollout.tokens):
        found.append((0.0, [(0.25 + 0.75 * sigmoid((index / last - 0.30) / 0.10)) * rollout.taught], 0))
    return found


def ad_opsd(rollout, anchor=0.2):
    forks, largest = uncertain_tokens(rollout, anchor), max((token.h for token in rollout.tokens), default=0)
    return [(0.0, [1.0 * rollout.taught], token.h / largest if token.at in forks else 0) for token in rollout.tokens]


def sdpo(rollout, cap=2.0):
    return [(0.0, [min(token.ratio, cap) * rollout.taught], 0) for token in rollout.tokens]


def eopd(rollout, threshold=0.8, gap_clip=5.0):
    return [
        (clip(token.u, -gap_clip, gap_clip), [1.0 if token.h_teacher > threshold and rollout.taught else 0.0], 0)
        for token in rollout.tokens
    ]


def srpo(rollout, cap=2.0):
    if rollout.correct or not rollout.taught:
        return [(rollout.a, [0.0], 0) for _ in rollout.tokens]
    mean = np.mean([math.exp(-token.h_teacher) for token in rollout.tokens]) if rollout.tokens else 1.0
    return [(0.0, [math.exp(-token.h_teacher) / mean * min(token.ratio, cap)], 0) for token in rollout.tokens]


def dasd_vocab(rollout, beta=0.1, **settings):
    if not rollout.tokens:
        return []
    found = []
    columns = [[getattr(token, name) for token in rollout.tokens] for name in ("s", "t", "h")]
    _, omega, _ = credit_twin.direction_adaptive(
        *([column] for column in columns), [[1] * len(columns[0])], [rollout.a], beta=beta, **settings
    )
    for one in omega[0]:
        weight = beta * one * rollout.taught
        found.append((rollout.a, [max(weight, 0.0), min(weight, 0.0)], 0))
    return found
