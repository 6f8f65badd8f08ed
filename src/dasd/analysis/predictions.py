"""What would training do, judged by forced tokens? A prediction for each method, and whether a quantile can be recommended.

A method is a rule of what to do below and above an entropy quantile: conform, deviate, nothing. Its prediction is the mean
change of correctness over a rollout's tokens if the rule were followed at one of them: the mean effect of each entropy
decile, deciles counting alike. Doing nothing changes nothing, by definition. These are predictions, not results: a forced
token is more than a gradient step makes of it, and where training was compared with them, it was undecided whether their order
holds (docs/findings.md).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from dasd.credit import METHODS
from dasd.evaluation.estimators import Draws, draws_of
from dasd.report.data.metrics import signed

MIN_POSITIONS = 50  # of every action that a rule takes, on its side of the quantile
MIN_PROBLEMS = 20
RHOS = tuple(round(0.1 * i, 1) for i in range(1, 10))
PAPER_RHO: float = METHODS["dasd_paper"].rho  # type: ignore[attr-defined]

ByDecile = Mapping[str, Sequence[Sequence[Sequence[float]]]]  # action -> decile -> problem -> effects at its places
Rule = tuple[str | None, str | None, float]  # what is done below and above the quantile


def rules(rho: float) -> dict[str, Rule]:
    """The methods of training that are such a rule. `opsd` pulls whole distributions, `opsd_sampled` sampled tokens: both
    conform.
    """
    return {
        "conformity": ("conform", "conform", 1.0),
        "opsd": ("conform", "conform", 1.0),
        "dasd": ("conform", "deviate", rho),
        "dasd, paper's printed quantile": ("conform", "deviate", PAPER_RHO),
        "scaffold_only": ("conform", None, rho),
        "fork_only": (None, "deviate", rho),
        "novelty": ("deviate", "deviate", 0.0),
    }


def predictions(by_decile: ByDecile, rho: float, seed: int = 0) -> dict[str, dict[str, Any]]:
    """For each method `mean`, `low`, `high` of the change, `n`, `problems`, `word` (raise, lower, undecided) and a
    `sentence`.
    """
    effects = _effects(by_decile, seed)
    found = {name: _predicted(rule, by_decile, effects) for name, rule in rules(rho).items()}
    nothing = "No teacher, so nothing to predict: its change is 0 by definition, and all others are measured against it."
    return {"grpo": {"mean": 0.0, "low": 0.0, "high": 0.0, "n": 0, "problems": 0, "word": "none", "sentence": nothing}, **found}


def every_rule(by_decile: ByDecile, seed: int = 0) -> list[dict[str, Any]]:
    """The prediction of every rule there is: `below`, `above`, `rho` (tenths; None where both sides do the same), `mean`,
    `low`, `high`, and `enough`, whether there are places enough to believe it.

    A study looks up here what was predicted of an arm (`dasd.study.predicted`).
    """
    actions: tuple[str | None, ...] = (*by_decile, None)
    pairs = [(below, above) for below in actions for above in actions if below != above]
    rules: list[Rule] = [(below, above, rho) for below, above in pairs for rho in RHOS]
    rules += [(action, action, 1.0) for action in by_decile]
    effects = _effects(by_decile, seed)
    found = []
    for below, above, rho in rules:
        estimate, turn = _value((below, above, rho), effects).estimate, None if below == above else rho
        ends = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high}
        enough = not _lacking((below, above, rho), by_decile, effects)
        found.append({"below": below, "above": above, "rho": turn, **ends, "enough": enough})
    return found


def recommendation(by_decile: ByDecile, seed: int = 0) -> dict[str, Any]:
    """The rule that does best, if it does better than nothing beyond doubt: `rule`, `rho`, `sentence`; rule None is undecided.

    Beyond doubt: enough places, and an interval above 0 that holds for all rules that were tried at once (Bonferroni).
    """
    tried: dict[str, Rule] = {f"dasd with rho {rho:.1f}": ("conform", "deviate", rho) for rho in RHOS}
    tried |= {name: rule for name, rule in rules(0.8).items() if name in ("conformity", "novelty")}
    tried |= {f"{name} with rho {rho:.1f}": rules(rho)[name] for name in ("scaffold_only", "fork_only") for rho in RHOS}
    effects = _effects(by_decile, seed)
    enough = {name: rule for name, rule in tried.items() if not _lacking(rule, by_decile, effects)}
    if not enough:
        lacking = _lacking(tried["dasd with rho 0.8"], by_decile, effects)
        return {"rule": None, "rho": None, "sentence": f"Undecided which rule is best: {lacking}."}
    values = {name: _value(rule, effects) for name, rule in enough.items()}
    best = max(values, key=lambda name: values[name].value)
    if values[best].value <= 0:
        sentence = f"Undecided: none of the {len(tried)} rules tried does better than doing nothing here."
        return {"rule": None, "rho": None, "sentence": sentence}
    draws = values[best].draws[np.isfinite(values[best].draws)]
    least = float(np.quantile(draws, 0.025 / len(tried))) if np.ptp(draws) > 0 else values[best].estimate.low
    change = f"{signed(values[best].value)} a token, at least {signed(least)} allowing for all {len(tried)} rules tried"
    if least <= 0:
        sentence = f"Undecided: the best rule is {best} ({change}), which cannot be told from doing nothing."
        return {"rule": None, "rho": None, "sentence": sentence}
    others = [n for n, v in values.items() if n != best and (values[best] - v).estimate.low <= 0]
    told = f"{len(others)} of the others cannot be told from it" if others else "it does better than every other"
    sentence = f"Best by forced tokens: {best} ({change}); {told}. Not validated by training."
    return {"rule": best, "rho": enough[best][2], "sentence": sentence}


def _predicted(rule: Rule, by_decile: ByDecile, effects: Mapping[str, Sequence[Draws]]) -> dict[str, Any]:
    drawn = _value(rule, effects)
    estimate = drawn.estimate
    n = min((_count(by_decile, action, deciles) for action, deciles in _sides(rule)), default=0)
    lacking = _lacking(rule, by_decile, effects)
    word = "undecided" if lacking else "raise" if estimate.low > 0 else "lower" if estimate.high < 0 else "undecided"
    change = f"{signed(estimate.mean)} [{signed(estimate.low)}, {signed(estimate.high)}] a token, n {n:,} places"
    said = {
        "raise": f"Predicted to raise correctness: {change}.",
        "lower": f"Predicted to lower correctness: {change}.",
        "undecided": f"Undecided: {lacking or f'{change}, which has 0 in it'}.",
    }[word]
    facts = {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "n": n, "problems": drawn.problems}
    return {**facts, "word": word, "sentence": said}


def _effects(by_decile: ByDecile, seed: int) -> dict[str, list[Draws]]:
    """The mean effect of each action in each decile, all over the same draws of the problems."""
    pairs = {
        (action, decile): ([sum(v) for v in values], [len(v) for v in values])
        for action, deciles in by_decile.items()
        for decile, values in enumerate(deciles)
    }
    drawn = draws_of(pairs, seed)
    return {action: [_filled(drawn[action, decile]) for decile in range(len(deciles))] for action, deciles in by_decile.items()}


def _filled(drawn: Draws) -> Draws:
    """In a draw without any place in the decile, its mean stands for it."""
    return replace(drawn, draws=np.where(np.isfinite(drawn.draws), drawn.draws, drawn.value), range=(-1.0, 1.0))


def _sides(rule: Rule) -> list[tuple[str, range]]:
    """(action, the deciles it is taken in)."""
    below, above, rho = rule
    turn = round(10 * rho)
    return [(action, deciles) for action, deciles in ((below, range(turn)), (above, range(turn, 10))) if action and deciles]


def _value(rule: Rule, effects: Mapping[str, Sequence[Draws]]) -> Draws:
    parts = [effects[action][decile] for action, deciles in _sides(rule) for decile in deciles]
    known = [part for part in parts if np.isfinite(part.value)]
    if not known:
        return Draws(np.nan, np.full(1, np.nan), 0, (-1.0, 1.0))
    share = len(parts) / 10 / len(known)  # deciles without a place: as the others of the rule
    value, draws = share * sum(part.value for part in known), share * np.sum([part.draws for part in known], axis=0)
    return Draws(float(value), draws, max(part.problems for part in known), (-1.0, 1.0))


def _count(by_decile: ByDecile, action: str, deciles: range) -> int:
    return sum(len(effects) for decile in deciles for effects in by_decile[action][decile])


def _lacking(rule: Rule, by_decile: ByDecile, effects: Mapping[str, Sequence[Draws]]) -> str:
    """What is missing for a verdict on this rule; empty where nothing is."""
    for action, deciles in _sides(rule):
        n = _count(by_decile, action, deciles)
        if n < MIN_POSITIONS:
            return f"{n} places to {action} at, and {MIN_POSITIONS} are the least"
        problems = len({i for decile in deciles for i, e in enumerate(by_decile[action][decile]) if e})
        if problems < MIN_PROBLEMS:
            return f"places of {problems} problems, and {MIN_PROBLEMS} are the least"
        empty = sum(not np.isfinite(effects[action][decile].value) for decile in deciles)
        if empty > len(deciles) // 2:
            return f"{empty} of the {len(deciles)} entropy deciles to {action} in hold no place"
    return ""
