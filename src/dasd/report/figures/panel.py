"""What is a figure on a page? A drawing, its key and a sentence on how to read it; and what every drawing over steps shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from dasd.report.data.curves import binned, smooth
from dasd.report.data.inputs import Series
from dasd.report.data.metrics import MINUS
from dasd.report.parts.svg import COLORS, SMALL, draw

FEW = 60  # points that are drawn as dots too


@dataclass(frozen=True)
class Key:
    """One entry of a legend. `mark` is line, dash, area or a shape of SHAPES."""

    label: str
    color: str
    mark: str = "line"


# What tells sides apart, the same in every figure of a page: colour, and shape for those who do not see colours.
SIDE_COLORS = ("before", "accent", "attract", "repel", "violet", "rose")
SHAPES = {"dot": "o", "square": "s", "diamond": "D", "up": "^", "down": "v", "plus": "P", "cross": "X"}


def side_keys(labels: Sequence[str]) -> tuple[Key, ...]:
    """A colour and a shape for each side, in their order. A side that stands alone has the accent's."""
    start, shapes = (1 if len(labels) == 1 else 0), list(SHAPES)
    places = range(start, start + len(labels))
    return tuple(
        Key(label, SIDE_COLORS[place % len(SIDE_COLORS)], shapes[place % len(shapes)])
        for label, place in zip(labels, places, strict=True)
    )


@dataclass(frozen=True)
class Panel:
    title: str
    caption: str
    svg: Markup
    keys: tuple[Key, ...] = ()


def curves(
    series: Series, title: str, lines: Sequence[tuple[str, Key]], caption: str, *,
    rate: bool = False, zero: bool = False, size: tuple[int, int] = SMALL,
) -> Panel | None:  # fmt: skip
    """None where none of the metrics was logged."""
    present = [(name, key) for name, key in lines if name in series]
    if not present:
        return None

    def paint(axes: Axes) -> None:
        scale = 100 if rate else 1
        for name, key in present:
            line(axes, series["step"], series[name] * scale, key)
        if zero:
            axes.axhline(0, color=COLORS["muted"], linewidth=0.9)
        if rate:
            axes.set_ylim(bottom=0)
            axes.yaxis.set_major_formatter(FuncFormatter(percent))
        step_axis(axes, series["step"])

    name = "curve-" + present[0][0].replace("/", "-").replace("_", "-")
    return Panel(title, caption, draw(name, f"{title} over training steps", paint, size), tuple(key for _, key in present))


def line(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], key: Key) -> None:
    """Thin: as logged, with a dot a point where there are few. Thick: running mean."""
    steps, values = binned(steps, values)
    color, few = COLORS[key.color], len(steps) <= FEW
    if len(steps) > 1:
        axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.4, marker="o" if few else "", markersize=2.6)
    marker = "o" if np.isfinite(values).sum() < 2 else ""
    dash = "--" if key.mark == "dash" else "-"
    axes.plot(steps, smooth(values), color=color, linewidth=2, linestyle=dash, marker=marker, markersize=4)


def step_axis(axes: Axes, steps: NDArray[np.float64]) -> None:
    axes.set_xlabel("step")
    if len(steps) == 1:
        axes.set_xticks(steps, [f"{steps[0]:.0f}"])
        return
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlim(steps[0], steps[-1])


def percent(value: float, position: int | None = None) -> str:
    return f"{value:.3g} %".replace("-", MINUS)
