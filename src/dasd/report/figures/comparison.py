"""How do evaluations look benchmark by benchmark? Bars of Avg@k, and a small panel for each health figure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dasd.report.data.metrics import RATE
from dasd.report.data.results import Row
from dasd.report.figures.panel import Key, Panel, percent
from dasd.report.figures.results import marks, sides_in_words
from dasd.report.parts.svg import COLORS, SMALL, WIDE, draw

Named = Sequence[tuple[str, Row]]  # benchmark, its figure
LONGEST_NAME = 26
MOST_BARS = 12  # benchmarks in one panel


def bars_panels(rows: Named, keys: Sequence[Key], title: str) -> list[Panel]:
    """A figure of every benchmark with its interval, and their mean where there are several; many of them in two halves."""
    half = len(rows) if len(rows) <= MOST_BARS else (len(rows) + 1) // 2
    parts = [rows[start : start + half] for start in range(0, len(rows), half)]
    return [_bars(part, keys, title, index) for index, part in enumerate(parts)]


def _bars(rows: Named, keys: Sequence[Key], title: str, index: int) -> Panel:
    height = 0.78 / len(keys)

    def paint(axes: Axes) -> None:
        for index, (_, row) in enumerate(rows):
            for number, (value, key) in enumerate(zip(row.values, keys, strict=True)):
                place = index + (number - (len(keys) - 1) / 2) * height
                if value.known:
                    axes.barh(place, 100 * value.mean, height * 0.9, color=COLORS[key.color], alpha=0.85)
                if value.bounded:
                    axes.plot([100 * value.low, 100 * value.high], [place, place], color=COLORS["ink"], linewidth=1.4)
        axes.set_xlim(0, max(axes.get_xlim()[1], 100 if len(rows) > 1 else 0))
        _benchmark_axis(axes, rows)
        axes.xaxis.set_major_formatter(FuncFormatter(percent))

    size = (WIDE[0], max(120, 46 + (16 + 13 * len(keys)) * len(rows)))
    caption = "Bars are means, dark lines 95 % intervals."
    svg = draw(f"avg-{index}", f"{title} by benchmark. {_spoken(rows, keys)}", paint, size)
    return Panel(f"{title} by benchmark", caption, svg, tuple(keys) if len(keys) > 1 else ())


def small_multiple(rows: Named, keys: Sequence[Key], index: int) -> Panel:
    """One figure over the benchmarks: marks, intervals, and of two runs the paired difference in figures."""
    row = rows[0][1]

    def paint(axes: Axes) -> None:
        for place, (_, each) in enumerate(rows):
            marks(axes, place, each, keys, each.unit.scale, down=True)
            if len(keys) == 2 and each.difference.known:
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

    size = (SMALL[0], 58 + (12 + 8 * len(keys)) * len(rows))
    svg = draw(f"health-{index}", f"{row.label} by benchmark. {_spoken(rows, keys)}", paint, size)
    caption = f"{row.meaning[:1].upper()}{row.meaning[1:]}".rstrip("…, ") + "."
    return Panel(row.label, caption, svg)  # the page has one legend for all of them


def silent(rows: Named) -> bool:
    """Nothing to draw: zero, or unknown, for every benchmark."""
    return all(not value.known or value.mean == 0 for _, row in rows for value in row.values)


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


def _spoken(rows: Named, keys: Sequence[Key]) -> str:
    return "; ".join(f"{name}: {sides_in_words(row, keys)}" for name, row in rows)


def _color(row: Row) -> str:
    return {"clear better": "accent", "clear worse": "repel", "clear": "ink"}.get(row.change_class(), "muted")
