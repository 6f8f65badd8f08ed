"""What changed from before to after? `summary.json` as rows of figures with 95 % intervals, and how each is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from dasd.report.inputs import mapping, number

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class Unit:
    """How values are written: `scale` times the value, with `decimals` and a suffix; differences have their own suffix."""

    scale: float
    decimals: int
    suffix: str
    difference_suffix: str

    def write(self, value: float, sign: bool = False) -> str:
        """The bare number, with a true minus; never a negative zero."""
        if math.isnan(value):
            return UNKNOWN
        shown = round(value * self.scale, self.decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
        return f"{shown:{'+' if sign else ''},.{self.decimals}f}".replace("-", MINUS)


RATE = Unit(100, 1, " %", " points")
COUNT = Unit(1, 2, "", "")
TOKENS = Unit(1, 1, "", " tokens")

# Figures of which more is better, or less; of the others neither can be said.
_BETTER = {"avg_at": 1, "pass_at": 1, "step_accuracy": 1, "claims_true": 1, "truncated": -1}

# Pattern of the key, label, unit, meaning, shown as a card; in the order of the page.
_KNOWN = (
    (r"avg_at_(\d+)", r"Avg@\1", RATE, r"samples that are right", True),
    (r"pass_at_(\d+)", r"Pass@\1", RATE, r"problems solved by at least one of \1 samples", True),
    ("step_accuracy", "Step accuracy", RATE, "checkable steps that are right", True),
    ("claims_true", "Answers that hold", RATE, "given answers that are right", False),
    ("epistemic_per_response", "E(y) per response", COUNT, "words of doubt: wait, perhaps, check, …", True),
    ("epistemic_per_100_words", "E(y) per 100 words", COUNT, "words of doubt among 100 words", False),
    ("backtracks_per_response", "Backtracks per response", COUNT, "turns such as “wait” and “alternatively”", False),
    ("mean_length", "Mean length", TOKENS, "tokens per response", True),
    ("truncated", "Truncated", RATE, "responses that ran out of tokens", False),
)


@dataclass(frozen=True)
class Value:
    """A figure and its 95 % interval; NaN where it is not known."""

    mean: float
    low: float
    high: float

    @property
    def known(self) -> bool:
        return not math.isnan(self.mean)

    @property
    def bounded(self) -> bool:
        return self.known and not math.isnan(self.low) and not math.isnan(self.high)

    @property
    def excludes_zero(self) -> bool:
        return self.bounded and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Row:
    """One figure of the evaluation, before and after training; `difference` is paired by problem."""

    label: str
    meaning: str
    unit: Unit
    card: bool
    before: Value
    after: Value
    difference: Value
    better: int = 0  # +1: more is better, -1: less is, 0: neither

    @property
    def change_class(self) -> str:
        """How the change is shown: nothing where its interval has 0 in it."""
        if not self.difference.excludes_zero:
            return ""
        direction = self.better * self.difference.mean
        return "clear better" if direction > 0 else "clear worse" if direction < 0 else "clear"

    def plain(self, side: str) -> str:
        value = getattr(self, side)
        return self.unit.write(value.mean) + (self.unit.suffix if value.known else "")

    def change(self) -> str:
        return self.unit.write(self.difference.mean, sign=True) + (self.unit.difference_suffix if self.difference.known else "")

    def interval(self, side: str) -> str:
        value, sign = getattr(self, side), side == "difference"
        return f"[{self.unit.write(value.low, sign)}, {self.unit.write(value.high, sign)}]" if value.bounded else ""


def result_rows(summary: dict[str, Any]) -> list[Row]:
    """The figures known here in their fixed order, then any other number of the summary under its own name."""
    names = [
        name
        for side in ("before", "after")
        for name, value in mapping(summary.get(side)).items()
        if not math.isnan(number(value))
    ]
    names = list(dict.fromkeys(names))
    largest = max((int(name.removeprefix("pass_at_")) for name in names if re.fullmatch(r"pass_at_\d+", name)), default=0)
    rows, used = [], set()
    for pattern, label, unit, meaning, card in _KNOWN:
        for name in names:
            match = re.fullmatch(pattern, name)
            if match is None:
                continue
            used.add(name)
            if not name.startswith("pass_at_") or name == f"pass_at_{largest}":
                rows.append(_row(summary, name, match.expand(label), match.expand(meaning), unit, card))
    return rows + [_row(summary, name, name, "", COUNT, False) for name in names if name not in used]


def pass_at_k_rows(summary: dict[str, Any]) -> list[tuple[int, Row]]:
    """(k, figure) for every k of `pass_at_k`, ascending."""
    curves = [mapping(mapping(summary.get(side)).get("pass_at_k")) for side in ("before", "after")]
    ks = {
        int(k)
        for curve in curves
        for k, value in curve.items()
        if re.fullmatch(r"\d{1,9}", k) and not math.isnan(number(value))
    }
    return [(k, _row(summary, f"pass_at_{k}", f"Pass@{k}", "", RATE, False)) for k in sorted(ks)]


def _row(summary: dict[str, Any], name: str, label: str, meaning: str, unit: Unit, card: bool) -> Row:
    before, after = (_value(mapping(summary.get(side)), name) for side in ("before", "after"))
    difference = mapping(mapping(summary.get("difference")).get(name))
    mean = number(difference.get("mean"))
    if math.isnan(mean):
        mean = after.mean - before.mean
    better = next((sign for prefix, sign in _BETTER.items() if name.startswith(prefix)), 0)
    return Row(label, meaning, unit, card, before, after, Value(mean, *_bounds(difference.get("ci95"))), better)


def _value(side: dict[str, Any], name: str) -> Value:
    k = name.removeprefix("pass_at_")
    mean, ci95 = number(side.get(name)), mapping(side.get("ci95")).get(name)
    if math.isnan(mean) and k != name:
        mean = number(mapping(side.get("pass_at_k")).get(k))
    if ci95 is None and k != name:
        ci95 = mapping(side.get("pass_at_k_ci95")).get(k)
    return Value(mean, *_bounds(ci95))


def _bounds(ci95: Any) -> tuple[float, float]:
    return (number(ci95[0]), number(ci95[1])) if isinstance(ci95, list) and len(ci95) == 2 else (math.nan, math.nan)
