"""What are the figures, and how do they differ? Summaries as rows of figures with 95 % intervals, and how each is written."""

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


@dataclass(frozen=True)
class Difference(Value):
    """From the first side, paired by problem. `p_value` as tested; `p_holm` corrected for the number of sides."""

    p_value: float = math.nan
    p_holm: float = math.nan

    @property
    def p_used(self) -> float:
        return self.p_value if math.isnan(self.p_holm) else self.p_holm

    @property
    def clear(self) -> bool:
        """The interval leaves out 0, and so does the test where there is one (p below 0.05)."""
        return self.bounded and (self.low > 0 or self.high < 0) and not self.p_used >= 0.05

    @property
    def p(self) -> str:
        p = self.p_used
        return UNKNOWN if math.isnan(p) else f"{p:.4f}" if p >= 0.0001 else "<0.0001"


@dataclass(frozen=True)
class Row:
    """One figure of one or more sides (before and after training, or runs): their values, and how all but the first differ."""

    name: str
    values: tuple[Value, ...]
    differences: tuple[Difference, ...] = ()

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
    def difference(self) -> Difference:
        """Of the second side; unknown where there is none."""
        return self.differences[0] if self.differences else Difference(math.nan, math.nan, math.nan)

    def change_class(self, index: int = 0) -> str:
        """How a change is shown: nothing where it is not clear."""
        difference = self.differences[index]
        if not difference.clear:
            return ""
        direction = describe(self.name).better * difference.mean
        return "clear better" if direction > 0 else "clear worse" if direction < 0 else "clear"

    def plain(self, side: int = -1) -> str:
        value = self.values[side]
        return self.unit.write(value.mean) + (self.unit.suffix if value.known else "")

    def interval(self, side: int = -1) -> str:
        return self._ends(self.values[side], sign=False)

    def change(self, index: int = 0) -> str:
        mean = self.differences[index].mean
        return self.unit.write(mean, sign=True) + ("" if math.isnan(mean) else self.unit.difference_suffix)

    def change_interval(self, index: int = 0) -> str:
        return self._ends(self.differences[index], sign=True)

    def _ends(self, value: Value, sign: bool) -> str:
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


def rival_rows(summary: dict[str, Any]) -> list[Row]:
    """The run that this one is compared with, as `before`, and this one as `after`; empty where there is none."""
    rival = mapping(summary.get("rival"))
    if not rival:
        return []
    return result_rows({"before": rival.get("after"), "after": summary.get("after"), "difference": rival.get("difference")})


def without_lower_ks(names: list[str]) -> list[str]:
    """The figures in the table's order; of Pass@k and Maj@k only that of the largest k."""
    over_k: dict[str, list[int]] = {}
    for name in names:
        if (match := re.fullmatch(r"(pass_at_|maj_at_)(\d{1,9})", name)) is not None:
            over_k.setdefault(match[1], []).append(int(match[2]))
    last = {f"{prefix}{max(ks)}" for prefix, ks in over_k.items()}
    return [name for name in in_order(names) if name in last or not re.fullmatch(r"(pass|maj)_at_\d{1,9}", name)]


def over_k_rows(summary: dict[str, Any], prefix: str) -> list[tuple[int, Row]]:
    """(k, figure) for every k of `pass_at_k` or `maj_at_k`, ascending."""
    curves = [mapping(mapping(summary.get(side)).get(f"{prefix}k")) for side in ("before", "after")]
    ks = {
        int(k)
        for curve in curves
        for k, value in curve.items()
        if re.fullmatch(r"\d{1,9}", k) and not math.isnan(number(value))
    }
    return [(k, _row(summary, f"{prefix}{k}")) for k in sorted(ks)]


def comparison_row(name: str, entry: dict[str, Any]) -> Row:
    """One figure of `dasd compare`: `values` of the runs, `differences` of all but the first from it."""
    values = tuple(Value(*_known(value)) for value in entry.get("values") or [])
    differences = tuple(
        Difference(*_known(each), number(mapping(each).get("p_value")), number(mapping(each).get("p_holm")))
        for each in entry.get("differences") or []
    )
    return Row(name, values, differences)


def _known(value: Any) -> tuple[float, float, float]:
    mean, low, high = (number(mapping(value).get(end)) for end in ("mean", "low", "high"))
    return mean, low, high


def main_figures(names: list[str]) -> list[str]:
    """What a reader looks for first: of the figures over k Avg@k (or Pass@1, which is the same) and the largest k."""
    first = [] if any(name.startswith("avg_at_") for name in names) else [name for name in names if name == "pass_at_1"]
    twice = {"pass_at_1"} if "avg_at_1" in names else set()  # of one sample a problem they are the same
    kept = [name for name in without_lower_ks(names) if name not in twice]
    return first + [name for name in kept if describe(name).main and name not in first]


def _row(summary: dict[str, Any], name: str) -> Row:
    before, after = (_value(mapping(summary.get(side)), name) for side in ("before", "after"))
    difference = mapping(mapping(summary.get("difference")).get(name))
    mean = number(difference.get("mean"))
    if math.isnan(mean):
        mean = after.mean - before.mean
    p_value = number(difference.get("p_value"))
    return Row(name, (before, after), (Difference(mean, *_bounds(difference.get("ci95")), p_value),))


def _value(side: dict[str, Any], name: str) -> Value:
    curve, _, k = name.rpartition("_")
    mean, ci95 = number(side.get(name)), mapping(side.get("ci95")).get(name)
    if math.isnan(mean):
        mean = number(mapping(side.get(f"{curve}_k")).get(k))
    if ci95 is None:
        ci95 = mapping(side.get(f"{curve}_k_ci95")).get(k)
    return Value(mean, *_bounds(ci95))


def _bounds(ci95: Any) -> tuple[float, float]:
    return (number(ci95[0]), number(ci95[1])) if isinstance(ci95, list) and len(ci95) == 2 else (math.nan, math.nan)
