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
    wrong: list  # under the wrong hints that this rollout has
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
                layers = zip(batch["contrast_logps"], batch["has_contrast"], strict=True)
                wrong = [float(layer[b, t]) for layer, has in layers if has[b]]
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


def hepo(rollout):
    return forking(rollout)


def opsa(batch, share=0.2, least=0.5, most=1.0):
    """The least likely tokens of the whole batch, and what each token counts for in the loss."""
    rollouts = read(batch)
    everything = [(b, token) for b, rollout in enumerate(rollouts) for token in rollout.tokens]
    advantages, counts = np.zeros(batch["completion_mask"].shape), np.zeros(batch["completion_mask"].shape)
    if not everything:
        return advantages, counts
    chosen = sorted(everything, key=lambda pair: pair[1].s)[: max(1, math.floor(share * len(everything)))]
    entropies = [token.h for _, token in chosen]
    for b, token in chosen:
        spread = max(entropies) - min(entropies)
        place = (token.h - min(entropies)) / spread if spread > 0 else 1.0
        advantages[b, token.at] = -least - (most - least) * place
        counts[b, token.at] = len(everything) / len(chosen)
    return advantages, counts


def egrsd(rollout, gamma=1.0, floor=0.1, ratio_cap=math.inf):
    if not rollout.taught:
        return grpo(rollout)
    largest = max((token.h_teacher for token in rollout.tokens), default=0.0)
    found = []
    for token in rollout.tokens:
        confidence = clip(1 - gamma * (token.h_teacher / largest if largest else 0.0), floor, 1.0)
        found.append((sign(rollout.a) * min(math.exp(token.u), ratio_cap) * confidence, [], 0))
    return found


def distilled_rl(rollout, largest=3.0):
    if rollout.a <= 0:
        return grpo(rollout)
    weights = [clip(math.exp(token.u), 1 / largest, largest) for token in rollout.tokens]
    middle = math.prod(weights) ** (1 / len(weights)) if weights else 1.0
    return [(rollout.a * weight / middle, [], 0) for weight in weights]


def rlrt(rollout, lam=0.5, low=0.0, high=2.0):
    if not rollout.correct:
        return grpo(rollout)
    return [
        (rollout.a * ((1 - lam) + lam * clip(math.exp(-sign(rollout.a) * token.u), low, high)), [], 0)
        for token in rollout.tokens
    ]


def antisd(rollout, lam=0.5):
    return [(rollout.a - lam * 0.5 * (math.log(1 + math.exp(token.u)) - math.log(2)), [], 0) for token in rollout.tokens]


def evidence(rollout, token):
    """The log-prob under the right hint less the logarithm of the mean probability under the wrong ones."""
    if not rollout.taught or not token.wrong:
        return 0.0
    return token.t - math.log(sum(math.exp(wrong) for wrong in token.wrong) / len(token.wrong))


def residual(rollout, token, scale=0.5, width=0.02, threshold=0.02):
    r = scale * math.tanh(evidence(rollout, token) / width)
    return r if abs(r) > threshold else 0.0


def rlcsd(rollout, **settings):
    found = []
    for token in rollout.tokens:
        moved = rollout.a + residual(rollout, token, **settings)
        found.append((moved if sign(moved) == sign(rollout.a) else 0.0, [], 0))
    return found


def sipo(rollout, kappa=0.1, clip_at=0.2):
    found = []
    for token in rollout.tokens:
        moved = rollout.a + kappa * clip(evidence(rollout, token), -clip_at, clip_at)
        found.append((moved if rollout.a == 0 or sign(moved) == sign(rollout.a) else 0.0, [], 0))
    return found


def opsd_sampled(rollout):
    return [(token.u, [], 0) for token in rollout.tokens]


def opsd(rollout, strength=1.0):
    return [(0.0, [strength * rollout.taught], 0) for _ in rollout.tokens]


def pw_opsd(rollout):
    n, found = len(rollout.tokens), []
    for t, _ in enumerate(rollout.tokens, start=1):
        found.append((0.0, [(0.25 + 0.75 * sigmoid(((t - 0.5) / n - 0.30) / 0.10)) * rollout.taught / n], 0))
    return found


def ad_opsd(rollout, anchor=0.2, anchor_width=1.0):
    forks, found = uncertain_tokens(rollout, anchor), []
    for token in rollout.tokens:
        U = sigmoid(math.exp(token.s) * (token.s - token.t) / anchor_width)
        found.append((0.0, [1.0 * rollout.taught], U if token.at in forks else 0))
    return found


def sdpo(rollout, cap=2.0):
    return [(0.0, [min(token.ratio, cap) * rollout.taught], 0) for token in rollout.tokens]


def eopd(rollout, threshold=0.8, gap_clip=math.inf):
    return [
        (clip(token.u, -gap_clip, gap_clip), [1.0 if token.h_teacher > threshold and rollout.taught else 0.0], 0)
        for token in rollout.tokens
    ]


def srpo(rollout, mean, cap=2.0, sharpness=1.0):
    """`mean` is that of the certainties of the batch's distilled tokens."""
    if rollout.correct or not rollout.taught:
        return [(rollout.a, [0.0], 0) for _ in rollout.tokens]
    return [(0.0, [math.exp(-sharpness * token.h_teacher) / mean * min(token.ratio, cap)], 0) for token in rollout.tokens]


def mean_certainty(batch, sharpness=1.0):
    routed = [rollout for rollout in read(batch) if rollout.taught and not rollout.correct]
    certainties = [math.exp(-sharpness * token.h_teacher) for rollout in routed for token in rollout.tokens]
    return float(np.mean(certainties)) if certainties else 1.0


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
