"""What does a probe say? Effects of conforming to the teacher and of deviating from it, against doing nothing at the same
place.

Every effect is paired at its place (forced token minus the student's own draws, the same rollout up to there) and its
interval is clustered by problem: exact where all problems agree, NaN where nothing was measured. Takes the records of
`probe_file.assemble`; imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from dasd.analysis.correlation import spearman
from dasd.analysis.positions import KINDS
from dasd.analysis.predictions import every_rule, predictions, recommendation
from dasd.analysis.probe_file import ACTIONS, Record
from dasd.evaluation.estimators import Draws, draws_of

Outcome = Mapping[str, Sequence[float]]
Where = Callable[[Record], bool]

# What is measured after an intervention: a value from the continuations of one place, None where it is undefined; and how far
# differences of it can go, NaN where nobody can say.
MEASURES: dict[str, tuple[Callable[[Outcome], float | None], float]] = {
    "correct": (lambda o: float(np.mean(o["correct"])), 1.0),
    "pass_at_m": (lambda o: float(max(o["correct"])), 1.0),
    "step_accuracy": (lambda o: sum(o["steps_right"]) / checked if (checked := sum(o["steps_checked"])) else None, 1.0),
    "epistemic": (lambda o: float(np.mean(o["epistemic"])), np.nan),
    "length": (lambda o: float(np.mean(o["length"])), np.nan),
}
DECILES = 10


def summarize_probe(records: Sequence[Record], contexts: Sequence[str], rho: float, seed: int = 0) -> dict[str, Any]:
    """Everything the page shows, as JSON-able data.

    `rollouts`, `baseline`   how many, and what they and the student's own continuations reach (by kind of place, by decile)
    `revisions`              what follows the rollouts' own revisions when they are kept, suppressed, handed to the teacher
    `contexts`               context -> `positions`, `agreement`, `effects` (kind -> action -> measure), `deciles`, `tokens`
                             (Spearman, TV, shift), `predictions`, `recommendation`, `rules`
    A figure is `mean`, `low`, `high`, `n` (places) and `problems`.
    """
    return {
        "rollouts": len(records),
        "rho": rho,
        "baseline": {
            "rollouts": {
                m: figure([_values([MEASURES[m][0](_own(r))]) for r in records], seed, 0, MEASURES[m][1]) for m in MEASURES
            },
            **{kind: {m: _baseline(records, m, _is(kind), seed) for m in MEASURES} for kind in KINDS},
            "deciles": [_baseline(records, "correct", _in_decile(decile), seed) for decile in range(DECILES)],
        },
        "revisions": _revisions(records, contexts, seed),
        "contexts": {context: _of_context(records, context, rho, seed) for context in contexts},
    }


def _of_context(records: Sequence[Record], context: str, rho: float, seed: int) -> dict[str, Any]:
    probed = [[p for p in record["positions"] if context in p["contexts"]] for record in records]

    def effect(action: str, measure: str, where: Where) -> list[list[float]]:
        return [_effects(positions, context, action, measure, where) for positions in probed]

    by_decile = {action: [effect(action, "correct", _in_decile(d)) for d in range(DECILES)] for action in ACTIONS}
    return {
        "positions": sum(map(len, probed)),
        "problems": sum(map(bool, probed)),
        "agreement": {kind: _agreement(records, probed, context, kind, seed) for kind in KINDS},
        "effects": {
            kind: {a: {m: figure(effect(a, m, _is(kind)), seed, *_range(m)) for m in MEASURES} for a in ACTIONS}
            for kind in KINDS
        },
        "deciles": [{a: figure(by_decile[a][d], seed, -1, 1) for a in ACTIONS} for d in range(DECILES)],
        "tokens": _tokens(records, context, seed),
        "predictions": predictions(by_decile, rho, seed),
        "recommendation": recommendation(by_decile, seed),
        "rules": every_rule(by_decile, seed),
    }


def figure(values: Sequence[Sequence[float]], seed: int, least: float, most: float) -> dict[str, float]:
    """A mean over the values of all problems, one list a problem, that lie in [least, most]."""
    drawn = draws_of({"": ([sum(v) for v in values], [len(v) for v in values])}, seed)[""] if values else None
    if drawn is None:
        return {"mean": np.nan, "low": np.nan, "high": np.nan, "n": 0, "problems": 0}
    estimate = Draws(drawn.value, drawn.draws, max(drawn.problems, 1), (least, most)).estimate
    sizes = {"n": sum(map(len, values)), "problems": sum(map(bool, values))}
    return {"mean": estimate.mean, "low": estimate.low, "high": estimate.high, **sizes}


def _tokens(records: Sequence[Record], context: str, seed: int) -> dict[str, Any]:
    """Over all tokens of the rollouts: rank correlations with the entropy; by entropy decile the total variation between
    student and teacher, and to first order how a step of each method changes it."""
    read = [(np.asarray(r["entropies"]), r["readings"][context], r) for r in records if context in r["readings"]]
    gaps = [np.asarray(reading["teacher_logps"]) - np.asarray(r["student_logps"]) for _, reading, r in read]
    entropies = [entropy for entropy, _, _ in read]
    tv = [np.asarray(reading["tv"]) for _, reading, _ in read]
    deciles = [_deciles_of(entropy) for entropy in entropies]

    def by_decile(values: Sequence[np.ndarray], least: float, most: float) -> list[dict[str, float]]:
        return [
            figure([v[d == decile].tolist() for v, d in zip(values, deciles, strict=True)], seed, least, most)
            for decile in range(DECILES)
        ]

    methods = read[0][1]["terms"] if read else {}
    shifts = {m: [np.asarray(reading["terms"][m]) * np.asarray(reading["slope"]) for _, reading, _ in read] for m in methods}
    return {
        "n": sum(map(len, entropies)),
        "spearman": {
            "gap": spearman(gaps, entropies, seed),
            "abs_gap": spearman([np.abs(gap) for gap in gaps], entropies, seed),
            "tv": spearman(tv, entropies, seed),
        },
        "tv": by_decile(tv, 0, 1),
        "gap": by_decile(gaps, np.nan, np.nan),
        "abs_gap": by_decile([np.abs(gap) for gap in gaps], np.nan, np.nan),
        "shift": {method: by_decile(values, np.nan, np.nan) for method, values in shifts.items()},
    }


def _deciles_of(entropies: np.ndarray) -> np.ndarray:
    ranks = np.empty(len(entropies), dtype=int)
    ranks[np.argsort(entropies, kind="stable")] = np.arange(len(entropies))
    return ranks * DECILES // max(len(entropies), 1)


def _revisions(records: Sequence[Record], contexts: Sequence[str], seed: int) -> dict[str, Any]:
    def of(value: Callable[[Record], Outcome | None]) -> list[list[float]]:
        told = [[value(revision) for revision in record["revisions"]] for record in records]
        return [[float(np.mean(outcome["correct"])) for outcome in outcomes if outcome is not None] for outcomes in told]

    def minus(first: Callable[[Record], Outcome | None], second: Callable[[Record], Outcome | None]) -> dict[str, float]:
        pairs = [[(first(each), second(each)) for each in record["revisions"]] for record in records]
        values = [[float(np.mean(a["correct"]) - np.mean(b["correct"])) for a, b in of_one if a and b] for of_one in pairs]
        return figure(values, seed, -1, 1)

    def preserve(revision: Record) -> Outcome:
        return revision["preserve"]

    def suppress(revision: Record) -> Outcome:
        return revision["suppress"]

    def teacher(context: str) -> Callable[[Record], Outcome | None]:
        return lambda revision: revision["teacher"].get(context)

    return {
        "rollouts": sum(bool(record["revisions"]) for record in records),
        "preserve": figure(of(preserve), seed, 0, 1),
        "suppress": figure(of(suppress), seed, 0, 1),
        "preserve_minus_suppress": minus(preserve, suppress),
        "teacher": {context: figure(of(teacher(context)), seed, 0, 1) for context in contexts},
        "teacher_minus_preserve": {context: minus(teacher(context), preserve) for context in contexts},
    }


def _effects(positions: Iterable[Record], context: str, action: str, measure: str, where: Where) -> list[float]:
    found = []
    for position in filter(where, positions):
        forced, control = (
            MEASURES[measure][0](o) for o in (position["contexts"][context]["outcomes"][action], position["control"])
        )
        if forced is not None and control is not None:
            found.append(forced - control)
    return found


def _baseline(records: Sequence[Record], measure: str, where: Where, seed: int) -> dict[str, float]:
    values = [_values(MEASURES[measure][0](p["control"]) for p in filter(where, record["positions"])) for record in records]
    return figure(values, seed, 0, MEASURES[measure][1])


def _values(values: Iterable[float | None]) -> list[float]:
    return [value for value in values if value is not None]


def _own(record: Record) -> dict[str, list[float]]:
    return {name: [record[name]] for name in ("correct", "steps_right", "steps_checked", "epistemic", "length")}


def _agreement(
    records: Sequence[Record], probed: Sequence[Sequence[Record]], context: str, kind: str, seed: int
) -> dict[str, float]:
    """Share of places at which the rollout's own token is the teacher's most likely one."""
    values = [
        [float(r["token_ids"][p["index"]] == p["contexts"][context]["forced"]["conform"]) for p in filter(_is(kind), positions)]
        for r, positions in zip(records, probed, strict=True)
    ]
    return figure(values, seed, 0, 1)


def _range(measure: str) -> tuple[float, float]:
    most = MEASURES[measure][1]
    return -most, most


def _is(kind: str) -> Where:
    return lambda position: kind in position["kinds"]


def _in_decile(decile: int) -> Where:
    return lambda position: min(int(DECILES * position["rank"]), DECILES - 1) == decile
