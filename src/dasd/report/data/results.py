"""What changed from before to after? `summary.json` as rows of figures with 95 % intervals, and how each is written."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

from dasd.report.data.inputs import mapping, number
from dasd.report.data.metrics import UNKNOWN, Unit, describe, in_order


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
    """One figure of two evaluations (before and after training, or runs A and B); `difference` is paired by problem."""

    name: str
    before: Value
    after: Value
    difference: Value
    p_value: float = math.nan

    @property
    def label(self) -> str:
        return describe(self.name).label

    @property
    def meaning(self) -> str:
        return describe(self.name).meaning

    @property
    def unit(self) -> Unit:
        return describe(self.name).unit

    @property
    def card(self) -> bool:
        return describe(self.name).main

    @property
    def change_class(self) -> str:
        """How the change is shown: nothing where its interval has 0 in it."""
        if not self.difference.excludes_zero:
            return ""
        direction = describe(self.name).better * self.difference.mean
        return "clear better" if direction > 0 else "clear worse" if direction < 0 else "clear"

    @property
    def p(self) -> str:
        return UNKNOWN if math.isnan(self.p_value) else f"{self.p_value:.4f}" if self.p_value >= 0.0001 else "<0.0001"

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
        if not math.isnan(number(value)) and not name.startswith("num_")  # sizes are no figures
    ]
    return [_row(summary, name) for name in without_lower_ks(list(dict.fromkeys(names)))]


def without_lower_ks(names: list[str]) -> list[str]:
    """The figures in the table's order; of Pass@k and Maj@k only that of the largest k."""
    over_k: dict[str, list[int]] = {}
    for name in names:
        if (match := re.fullmatch(r"(pass_at_|maj_at_)(\d{1,9})", name)) is not None:
            over_k.setdefault(match[1], []).append(int(match[2]))
    last = {f"{prefix}{max(ks)}" for prefix, ks in over_k.items()}
    return [name for name in in_order(names) if name in last or not re.fullmatch(r"(pass|maj)_at_\d{1,9}", name)]


def pass_at_k_rows(summary: dict[str, Any]) -> list[tuple[int, Row]]:
    """(k, figure) for every k of `pass_at_k`, ascending."""
    curves = [mapping(mapping(summary.get(side)).get("pass_at_k")) for side in ("before", "after")]
    ks = {
        int(k)
        for curve in curves
        for k, value in curve.items()
        if re.fullmatch(r"\d{1,9}", k) and not math.isnan(number(value))
    }
    return [(k, _row(summary, f"pass_at_{k}")) for k in sorted(ks)]


def comparison_row(name: str, values: dict[str, Any]) -> Row:
    """One figure of `dasd compare`: run A before, run B after. A single run has `b` alone."""
    before, after, difference = (
        Value(*(number(mapping(values.get(side)).get(end)) for end in ("mean", "low", "high")))
        for side in ("a", "b", "difference")
    )
    return Row(name, before, after, difference, number(values.get("p_value")))


def main_figures(names: list[str]) -> list[str]:
    """What a reader looks for first: of the figures over k Avg@k (or Pass@1, which is the same) and the largest k."""
    first = [] if any(name.startswith("avg_at_") for name in names) else [name for name in names if name == "pass_at_1"]
    return first + [name for name in without_lower_ks(names) if describe(name).main and name not in first]


def _row(summary: dict[str, Any], name: str) -> Row:
    before, after = (_value(mapping(summary.get(side)), name) for side in ("before", "after"))
    difference = mapping(mapping(summary.get("difference")).get(name))
    mean = number(difference.get("mean"))
    if math.isnan(mean):
        mean = after.mean - before.mean
    return Row(name, before, after, Value(mean, *_bounds(difference.get("ci95"))))


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
