"""Where does the teacher press? Its gap by entropy decile over the run, and gap and credit by class of token."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter

from dasd.report.data.curves import binned, edges, mean, smooth
from dasd.report.data.inputs import Series
from dasd.report.data.metrics import COUNT, RATE, UNKNOWN, Unit
from dasd.report.figures.panel import Key, Panel, curves, line, percent, step_axis
from dasd.report.parts.svg import COLORS, WIDE, draw

DECILES = [f"gap/decile_{decile}" for decile in range(1, 11)]
# Of dasd.analysis.token_classes; which this layer cannot import.
CLASSES = {
    "digits": Key("digits", "violet"),
    "operators": Key("operators", "accent"),
    "epistemic": Key("words of doubt", "rose"),
    "words": Key("other words", "before"),
    "other": Key("punctuation and the rest", "ink", "dash"),
}
CELLS = 40  # columns of the decile map
_NATS = Unit(1, 3, "", "")


@dataclass(frozen=True)
class ClassRow:
    """One class of tokens over the first and the last tenth of the run, as text."""

    label: str
    tokens: str
    credit: tuple[str, str]
    gap: tuple[str, str]


def gap_panels(series: Series) -> list[Panel]:
    """The teacher-student gap by entropy decile, early against late, and over the run."""
    drawn = [
        _gap_by_decile(series),
        curves(series, "Gap over the run",
                [("gap/low", Key("low entropy", "attract")), ("gap/high", Key("high entropy", "repel")),
                 ("gap/abs", Key("mean size, all tokens", "muted", "dash"))],
                "Below 0 the teacher likes the sampled tokens less than the student does, above 0 more.", zero=True, size=WIDE),
    ]  # fmt: skip
    return [panel for panel in drawn if panel is not None]


def pressure_panels(series: Series) -> list[Panel]:
    drawn = [_decile_map(series), _credit_by_class(series), _gap_by_class(series)]
    return [panel for panel in drawn if panel is not None]


def class_rows(series: Series) -> list[ClassRow]:
    first, last = edges(len(series["step"]))

    def written(name: str, unit: Unit, sign: bool = False) -> tuple[str, str]:
        values = series.get(name)
        if values is None:
            return UNKNOWN, UNKNOWN
        numbers = [mean(values[part]) for part in (first, last)]
        early, late = (unit.write(value, sign) + (unit.suffix if value == value else "") for value in numbers)
        return early, late

    return [
        ClassRow(
            key.label,
            RATE.write(mean(series[f"class/{name}/tokens"])) + RATE.suffix,
            written(f"class/{name}/credit", RATE),
            written(f"class/{name}/gap", _NATS, sign=True),
        )
        for name, key in CLASSES.items()
        if f"class/{name}/tokens" in series
    ]


def _decile_map(series: Series) -> Panel | None:
    """A cell for each decile and stretch of steps; None where fewer than two steps logged the gap."""
    present = [name for name in DECILES if name in series]
    if not present or len(series["step"]) < 2:
        return None
    width = math.ceil(len(series["step"]) / CELLS)
    starts = range(0, len(series["step"]), width)
    cells = np.array(
        [[mean(series[name][start : start + width]) if name in series else math.nan for start in starts] for name in DECILES]
    )
    largest = float(np.nanmax(np.abs(cells))) if np.isfinite(cells).any() else 0.0

    def paint(axes: Axes) -> None:
        steps = series["step"]
        ends = [float(steps[start]) for start in starts] + [float(steps[-1]) + 1]
        for row, values in enumerate(cells):
            for column, value in enumerate(values):
                if math.isfinite(value) and largest > 0 and abs(value) > 0.02 * largest:
                    color = COLORS["attract" if value > 0 else "repel"]
                    left, right = ends[column], ends[column + 1]
                    alpha = round(abs(value) / largest, 2)
                    axes.add_patch(Rectangle((left, row + 0.54), right - left, 0.92, facecolor=color, alpha=alpha, linewidth=0))
        axes.set_ylim(0.5, 10.5)
        axes.set_yticks([1, 5, 10])
        axes.set_ylabel("entropy decile")
        axes.grid(False)
        step_axis(axes, steps)
        axes.set_xlim(ends[0], ends[-1])

    keys = (Key("teacher likes the token more", "attract", "area"), Key("less", "repel", "area"))
    caption = f"Decile 1 holds the surest tokens, 10 the least sure; full colour at {COUNT.write(largest)} nats."
    svg = draw("decile-map", "Gap by entropy decile over training steps", paint, WIDE)
    return Panel("Gap by entropy, over the run", caption, svg, keys)


def _credit_by_class(series: Series) -> Panel | None:
    present = {name: key for name, key in CLASSES.items() if f"class/{name}/credit" in series}
    if not present:
        return None

    def paint(axes: Axes) -> None:
        steps = binned(series["step"], series["step"])[0]
        copies = 1 if len(steps) > 1 else 2  # a single step is drawn as a bar one step wide
        x = steps if copies == 1 else steps + np.array([-0.5, 0.5])
        floor = np.zeros(len(x))
        for name, key in present.items():
            share = np.repeat(np.nan_to_num(100 * smooth(binned(series["step"], series[f"class/{name}/credit"])[1])), copies)
            axes.fill_between(x, floor, floor + share, color=COLORS[key.color], alpha=0.75, linewidth=0)
            floor = floor + share
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        step_axis(axes, series["step"])

    keys = tuple(Key(key.label, key.color, "area") for key in present.values())
    caption = "Share of what the teacher adds to the verifier's advantage; compare with each class's share of tokens below."
    return Panel("Credit by class of token", caption, draw("class-credit", "Credit by class of token", paint, WIDE), keys)


def _gap_by_class(series: Series) -> Panel | None:
    present = {name: key for name, key in CLASSES.items() if f"class/{name}/gap" in series}
    if not present:
        return None

    def paint(axes: Axes) -> None:
        axes.axhline(0, color=COLORS["muted"], linewidth=0.9)
        for name, key in present.items():
            line(axes, series["step"], series[f"class/{name}/gap"], key)
        axes.set_ylabel("gap, nats")
        step_axis(axes, series["step"])

    caption = "Above 0 the teacher likes the sampled tokens of a class more than the student does, below 0 less."
    svg = draw("class-gap", "Gap by class of token", paint, WIDE)
    return Panel("Gap by class of token", caption, svg, tuple(present.values()))


def _gap_by_decile(series: Series) -> Panel | None:
    if not any(name in series for name in DECILES):
        return None
    empty = np.full_like(series["step"], math.nan)
    gaps = np.array([series.get(name, empty) for name in DECILES])
    first, last = edges(len(series["step"]))
    lines = [("all steps", "accent", "o", slice(None))]
    if len(series["step"]) >= 4:
        lines = [(_span(series, first, "first"), "before", "o", first), (_span(series, last, "last"), "accent", "s", last)]

    def paint(axes: Axes) -> None:
        deciles = np.arange(1, 11)
        axes.axhline(0, color=COLORS["muted"], linewidth=0.9)
        for _, color, marker, part in lines:
            values = np.array([mean(row[part]) for row in gaps])
            axes.plot(
                deciles, values, color=COLORS[color], linewidth=2, marker=marker, markersize=6, markeredgecolor=COLORS["card"]
            )
        axes.set_xticks(deciles)
        axes.set_xlabel("entropy decile: 1 = surest tokens, 10 = least sure")
        axes.set_ylabel("gap, nats")

    caption = "Above 0 the teacher prefers the sampled token more than the student does, below 0 less."
    svg = draw("gap-deciles", "Teacher-student gap by entropy decile", paint, WIDE)
    return Panel("Gap by entropy decile", caption, svg, tuple(Key(label, color) for label, color, _, _ in lines))


def _span(series: Series, part: slice, word: str) -> str:
    steps = series["step"][part]
    return f"{word} steps, {steps[0]:.0f} to {steps[-1]:.0f}" if len(steps) > 1 else f"{word} step, {steps[0]:.0f}"
