"""How do two evaluations, or one, look benchmark by benchmark? Bars of Avg@k, and a small panel for each health figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dasd.report.data.metrics import RATE
from dasd.report.data.results import Row
from dasd.report.figures.panel import Key, Panel, percent
from dasd.report.figures.results import pair_of_dots
from dasd.report.parts.svg import COLORS, SMALL, WIDE, draw

Named = Sequence[tuple[str, Row]]  # benchmark, its figure
SIDES = (("before", "before"), ("after", "accent"))  # side of a Row, its colour
LONGEST_NAME = 26


def bars_panel(rows: Named, keys: tuple[Key, ...]) -> Panel:
    """Avg@k of every benchmark with its interval, and their mean where there are several."""
    sides = [side for side in SIDES if any(getattr(row, side[0]).known for _, row in rows)]
    height = 0.74 / len(sides)

    def paint(axes: Axes) -> None:
        for index, (_, row) in enumerate(rows):
            for number, (side, color) in enumerate(sides):
                value, place = getattr(row, side), index + (number - (len(sides) - 1) / 2) * height
                if not value.known:
                    continue
                axes.barh(place, 100 * value.mean, height * 0.92, color=COLORS[color], alpha=0.85)
                if value.bounded:
                    axes.plot([100 * value.low, 100 * value.high], [place, place], color=COLORS["ink"], linewidth=1.4)
        axes.set_xlim(left=0)
        _benchmark_axis(axes, rows)
        axes.xaxis.set_major_formatter(FuncFormatter(percent))

    size = (WIDE[0] * 2, 60 + (22 + 12 * len(sides)) * len(rows))
    return Panel(
        "Avg@k by benchmark", "Samples that are right; dark lines are 95 % intervals over problems.",
        draw("avg", "Avg@k by benchmark", paint, size), keys,
    )  # fmt: skip


def small_multiple(rows: Named, keys: tuple[Key, ...], index: int) -> Panel:
    """One figure over the benchmarks: dots, intervals, and the paired difference in figures."""
    row = rows[0][1]

    def paint(axes: Axes) -> None:
        for place, (_, each) in enumerate(rows):
            pair_of_dots(axes, place, each, each.unit.scale)
            if each.difference.known:
                axes.annotate(
                    each.unit.write(each.difference.mean, sign=True), (1.02, place), xycoords=("axes fraction", "data"),
                    va="center", annotation_clip=False, color=COLORS[_color(each)],
                )  # fmt: skip
        axes.margins(x=0.1)
        _benchmark_axis(axes, rows)
        low, high = axes.get_xlim()
        axes.set_xlim(max(low, -0.04 * high), high)  # nothing here is negative
        axes.xaxis.set_major_locator(MaxNLocator(3))
        if row.unit is RATE:
            axes.xaxis.set_major_formatter(FuncFormatter(percent))

    svg = draw(f"health-{index}", f"{row.label} by benchmark", paint, (SMALL[0], 58 + 24 * len(rows)))
    return Panel(row.label, f"{row.meaning[:1].upper()}{row.meaning[1:]}".rstrip("…, ") + ".", svg, keys)


def silent(rows: Named) -> bool:
    """Nothing to draw: zero, or unknown, for every benchmark."""
    return all(not getattr(row, side).known or getattr(row, side).mean == 0 for _, row in rows for side, _ in SIDES)


def _benchmark_axis(axes: Axes, rows: Named) -> None:
    families = {name.rpartition("/")[0] for name, _ in rows}
    names = [name.rpartition("/")[2] if len(families) == 1 else name for name, _ in rows]  # countdown/ of all says nothing
    labels = [name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…" for name in names]
    axes.set_yticks(np.arange(len(rows)), labels, parse_math=False)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=COLORS["ink"])


def _color(row: Row) -> str:
    return {"clear better": "accent", "clear worse": "repel", "clear": "ink"}.get(row.change_class, "muted")
