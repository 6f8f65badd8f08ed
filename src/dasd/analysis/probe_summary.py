"""What does a probe say? Effects of conforming to the teacher and of deviating from it, against the student's own draw.

Every effect is paired at its position (forced token minus resampled one, the same rollout up to there) and its interval is
clustered by problem. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from dasd.evaluation.estimators import Estimate, ratio_of_sums

Record = dict[str, Any]
Outcome = Mapping[str, Sequence[float]]

FORCED = ("conform", "deviate")
CONTROL = "resample"
SIDES = {"uncertain": True, "sure": False}
# What is measured after an intervention: a value from the continuations of one position, None where it is undefined.
MEASURES: dict[str, Callable[[Outcome], float | None]] = {
    "correct": lambda o: float(np.mean(o["correct"])),
    "pass_at_m": lambda o: float(max(o["correct"])),
    "step_accuracy": lambda o: sum(o["steps_right"]) / checked if (checked := sum(o["steps_checked"])) else None,
    "epistemic": lambda o: float(np.mean(o["epistemic"])),
    "length": lambda o: float(np.mean(o["length"])),
}
RHOS = tuple(round(1.0 - 0.1 * i, 1) for i in range(11))  # deviating in the top 0, 1, ... 10 deciles


def summarize_probe(records: Sequence[Record], seed: int = 0) -> dict[str, Any]:
    """By context: the 2 x 2 table of effects, the same by entropy decile, the rho that the data suggest, a verdict in words."""
    contexts = list(dict.fromkeys(record["context"] for record in records))
    return {context: _of_context([r for r in records if r["context"] == context], seed) for context in contexts}


def _of_context(records: Sequence[Record], seed: int) -> dict[str, Any]:
    table = {
        side: {action: {m: _cell(_effects(records, action, m, _on_side(flag)), seed) for m in MEASURES} for action in FORCED}
        for side, flag in SIDES.items()
    }
    deciles = [
        {action: _cell(_effects(records, action, "correct", _in_decile(decile)), seed) for action in FORCED}
        for decile in range(10)
    ]
    suggested = suggest_rho(records, seed)
    return {
        "rollouts": len(records),
        "positions": sum(len(record["positions"]) for record in records),
        "baseline": {side: {m: _baseline(records, m, flag) for m in MEASURES} for side, flag in SIDES.items()},
        "agreement": {side: _agreement(records, flag) for side, flag in SIDES.items()},
        "effects": table,
        "deciles": deciles,
        "rho": suggested,
        "verdict": verdict(table, suggested),
    }


def suggest_rho(records: Sequence[Record], seed: int = 0, draws: int = 2000) -> dict[str, Any]:
    """The entropy quantile above which deviating does better than conforming, by correctness; 1.0: nowhere.

    `rho` maximises the mean effect of "deviate above the threshold, conform below it" over entropy deciles, which count alike;
    `support` is the share of bootstrap draws of the problems that choose each rho.
    """
    advantage = np.full((len(records), 10), np.nan)  # deviate minus conform, mean over a problem's positions in a decile
    for row, record in enumerate(records):
        for decile in range(10):
            values = [d - c for c, d in zip(*(_values(record, a, "correct", _in_decile(decile)) for a in FORCED), strict=True)]
            if values:
                advantage[row, decile] = np.mean(values)
    weights = np.random.default_rng(seed).multinomial(len(records), np.full(len(records), 1 / max(len(records), 1)), size=draws)
    known = np.isfinite(advantage)
    means = (weights @ np.nan_to_num(advantage)) / np.maximum(weights @ known, 1)
    chosen = np.argmax(_gains(means), axis=-1)
    best = int(np.argmax(_gains(np.nan_to_num(advantage).sum(0) / np.maximum(known.sum(0), 1))))
    support = {str(rho): round(float(np.mean(chosen == i)), 3) for i, rho in enumerate(RHOS) if (chosen == i).any()}
    return {"rho": RHOS[best], "support": support}


def _gains(by_decile: np.ndarray) -> np.ndarray:
    """(..., 11) what deviating in the top 0, 1, ... 10 deciles gains over conforming everywhere."""
    from_top = np.cumsum(by_decile[..., ::-1], axis=-1)
    return np.concatenate([np.zeros((*from_top.shape[:-1], 1)), from_top], axis=-1)


def verdict(table: Mapping[str, Any], suggested: Mapping[str, Any]) -> list[str]:
    """One sentence for each cell of the table, and one for rho."""
    said = []
    for side in SIDES:
        for action in FORCED:
            effect = table[side][action]["correct"]
            verb = {"conform": "Conforming to the teacher", "deviate": "Deviating from the teacher"}[action]
            if not np.isfinite(effect["mean"]):
                said.append(f"{verb} at {side} tokens was not measured.")
                continue
            word = "helps" if effect["low"] > 0 else "hurts" if effect["high"] < 0 else "has no clear effect"
            interval = f"{effect['mean']:+.3f} [{effect['low']:+.3f}, {effect['high']:+.3f}]"
            said.append(f"{verb} at {side} tokens {word}: correctness {interval}.")
    rho, share = suggested["rho"], suggested["support"].get(str(suggested["rho"]), 0.0)
    where = "nowhere (conform everywhere)" if rho == 1 else f"at the {1 - rho:.0%} most uncertain tokens"
    said.append(f"By correctness it pays to deviate {where}; {share:.0%} of bootstrap draws agree.")
    return said


def probe_tables(summary: Mapping[str, Any]) -> list[Any]:
    """One rich table for each context: effects of both actions at uncertain and sure tokens."""
    from rich.table import Table

    tables = []
    for context, found in summary.items():
        title = f"context {context}: {found['rollouts']} rollouts, {found['positions']} positions, effects against the own draw"
        table = Table(title=title)
        columns = [(side, action) for side in SIDES for action in FORCED]
        for heading in ("", *(f"{action} at {side}" for side, action in columns)):
            table.add_column(heading, justify="right" if heading else "left")
        for measure in MEASURES:
            cells = [found["effects"][side][action][measure] for side, action in columns]
            table.add_row(measure, *(f"{c['mean']:+.3f} [{c['low']:+.3f}, {c['high']:+.3f}]" for c in cells))
        tables.append(table)
    return tables


def _effects(records: Sequence[Record], action: str, measure: str, where: Callable[[Record], bool]) -> list[list[float]]:
    """For each record the effects at its positions."""
    return [_values(record, action, measure, where) for record in records]


def _values(record: Record, action: str, measure: str, where: Callable[[Record], bool]) -> list[float]:
    found = []
    for position in filter(where, record["positions"]):
        forced, control = (MEASURES[measure](position["outcomes"][a]) for a in (action, CONTROL))
        if forced is not None and control is not None:
            found.append(forced - control)
    return found


def _cell(effects: Sequence[Sequence[float]], seed: int) -> dict[str, float]:
    estimate: Estimate = ratio_of_sums([sum(e) for e in effects], [len(e) for e in effects], seed)
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, "positions": sum(map(len, effects))}


def _baseline(records: Sequence[Record], measure: str, flag: bool) -> float | None:
    values = [
        value
        for record in records
        for position in filter(_on_side(flag), record["positions"])
        if (value := MEASURES[measure](position["outcomes"][CONTROL])) is not None
    ]
    return float(np.mean(values)) if values else None


def _agreement(records: Sequence[Record], flag: bool) -> float | None:
    """Share of positions at which the rollout's own token is the teacher's most likely one."""
    same = [
        record["token_ids"][position["index"]] == position["forced"]["conform"]
        for record in records
        for position in filter(_on_side(flag), record["positions"])
    ]
    return float(np.mean(same)) if same else None


def _on_side(flag: bool) -> Callable[[Record], bool]:
    return lambda position: position["uncertain"] is flag


def _in_decile(decile: int) -> Callable[[Record], bool]:
    return lambda position: min(int(10 * position["rank"]), 9) == decile
