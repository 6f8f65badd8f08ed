"""What came of it? Before against after, or one run against another: dots with their intervals, and Pass@k over k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dasd.report.data.metrics import RATE
from dasd.report.data.results import Row, Value
from dasd.report.figures.panel import Key, Panel, percent
from dasd.report.parts.svg import COLORS, WIDE, draw


def comparison_panels(rows: Sequence[Row]) -> list[Panel]:
    """Before against after with 95 % intervals: shares on one axis, counts each on its own."""
    shares = [row for row in rows if row.unit is RATE and (row.before.known or row.after.known)]
    counts = [row for row in rows if row.unit is not RATE and row.meaning and (row.before.known or row.after.known)]
    keys = (Key("before", "before", "dot"), Key("after", "accent", "dot"))
    panels = []
    if shares:
        svg = draw("shares", "Shares before and after training", lambda axes: _dumbbells(axes, shares), WIDE)
        panels.append(
            Panel("Shares", "Dots are means, bars 95 % intervals; the number is after minus before, in points.", svg, keys)
        )
    if counts:
        svg = draw("counts", "Counts before and after training", lambda *axes: _strips(axes, counts), WIDE, rows=len(counts))
        panels.append(
            Panel("Counts", "Each row has its own axis; bars are 95 % intervals, the number is after minus before.", svg, keys)
        )
    return panels


def pass_at_k_panel(
    rows: Sequence[tuple[int, Row]], sides: tuple[str, str] = ("before", "after"), title: str = "Pass@k",
    caption: str = "", name: str = "pass-at-k",
) -> Panel | None:  # fmt: skip
    """Pass@k over k for both sides, or the one that is known; None with fewer than two values of k."""
    if len(rows) < 2:
        return None

    def paint(axes: Axes) -> None:
        ks = np.array([k for k, _ in rows], dtype=float)
        marked = [index for index, (k, _) in enumerate(rows) if k & (k - 1) == 0 or index == len(rows) - 1]
        for side, color, marker in (("before", "before", "o"), ("after", "accent", "s")):
            values: list[Value] = [getattr(row, side) for _, row in rows]
            mean, low, high = (100 * np.array([getattr(v, part) for v in values]) for part in ("mean", "low", "high"))
            axes.fill_between(ks, low, high, color=COLORS[color], alpha=0.22, linewidth=0)
            axes.plot(ks, mean, color=COLORS[color], linewidth=2, marker=marker, markersize=6, markevery=marked,
                      markeredgecolor=COLORS["card"])  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks[marked], [f"{k:,.0f}" for k in ks[marked]])
        axes.minorticks_off()
        axes.set_xlabel("k, samples a problem")
        axes.set_ylim(max(axes.get_ylim()[0], 0), max(axes.get_ylim()[1], 1))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))

    caption = caption or (
        "Problems solved by at least one of k samples; bands are 95 % intervals; curves that meet at large k suggest a surer "
        "model, not a more able one."
    )
    keys = tuple(Key(side, color) for side, color in zip(sides, ("before", "accent"), strict=True)) if _both_known(rows) else ()
    return Panel(title, caption, draw(name, f"{title} over k", paint, WIDE), keys)


def _both_known(rows: Sequence[tuple[int, Row]]) -> bool:
    return all(any(getattr(row, side).known for _, row in rows) for side in ("before", "after"))


def _dumbbells(axes: Axes, rows: Sequence[Row]) -> None:
    places = np.arange(len(rows))[::-1]
    for place, row in zip(places, rows, strict=True):
        pair_of_dots(axes, place, row, row.unit.scale)
        axes.annotate(row.unit.write(row.difference.mean, sign=True), (1.02, place), xycoords=("axes fraction", "data"),
                      va="center", annotation_clip=False)  # fmt: skip
    axes.set_yticks(places, [row.label for row in rows])
    axes.set_ylim(-0.6, len(rows) - 0.4)
    axes.set_xlim(0, 100)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=COLORS["ink"])
    axes.xaxis.set_major_formatter(FuncFormatter(percent))


def _strips(all_axes: Sequence[Axes], rows: Sequence[Row]) -> None:
    for axes, row in zip(all_axes, rows, strict=True):
        pair_of_dots(axes, 0, row, row.unit.scale)
        axes.annotate(row.unit.write(row.difference.mean, sign=True), (1.02, 0.5), xycoords="axes fraction",
                      va="center", annotation_clip=False)  # fmt: skip
        axes.set_yticks([0], [row.label])
        axes.set_ylim(-0.6, 0.6)
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=COLORS["ink"])


def pair_of_dots(axes: Axes, place: float, row: Row, scale: float) -> None:
    for side, color, marker, offset in (("before", "before", "o", 0.13), ("after", "accent", "s", -0.13)):
        value: Value = getattr(row, side)
        if value.bounded:
            axes.plot([value.low * scale, value.high * scale], [place + offset] * 2, color=COLORS[color], linewidth=2.2)
        if value.known:
            axes.plot(
                [value.mean * scale],
                [place + offset],
                marker,
                color=COLORS[color],
                markersize=7,
                markeredgecolor=COLORS["card"],
                clip_on=False,
            )
