"""What came of it? Sides against each other (before and after, or runs): marks with their intervals, and figures over k."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dasd.report.data.metrics import RATE
from dasd.report.data.results import Row
from dasd.report.figures.panel import SHAPES, Key, Panel, percent
from dasd.report.parts.svg import COLORS, WIDE, draw


def comparison_panels(rows: Sequence[Row], keys: Sequence[Key], about: str = "") -> list[Panel]:
    """Sides with 95 % intervals: shares on one axis, counts each on its own."""
    shares = [row for row in rows if row.unit is RATE and any(value.known for value in row.values)]
    counts = [row for row in rows if row.unit is not RATE and row.meaning and any(value.known for value in row.values)]
    panels, of = [], f" {about}." if about else ""
    if shares:
        size = (WIDE[0], 55 + 24 * len(shares))
        svg = draw("shares", _spoken("Shares", shares, keys), lambda axes: _dumbbells(axes, shares, keys), size)
        caption = f"Marks are means, bars 95 % intervals; the number is the second minus the first, in points.{of}"
        panels.append(Panel("Shares", caption, svg, tuple(keys)))
    if counts:
        size = (WIDE[0], 30 + 48 * len(counts))
        svg = draw("counts", _spoken("Counts", counts, keys), lambda *axes: _strips(axes, counts, keys), size, rows=len(counts))
        caption = f"Each row has its own axis; bars are 95 % intervals, the number is the second minus the first.{of}"
        panels.append(Panel("Counts", caption, svg, tuple(keys)))
    return panels


def over_k_panel(
    rows: Sequence[tuple[int, Row]], keys: Sequence[Key], title: str = "Pass@k", caption: str = "", name: str = "pass-at-k"
) -> Panel | None:
    """A figure over k for every side that is known; None with fewer than two values of k."""
    known = [place for place in range(len(keys)) if any(row.values[place].known for _, row in rows)]
    if len(rows) < 2 or not known:
        return None

    def paint(axes: Axes) -> None:
        ks = np.array([k for k, _ in rows], dtype=float)
        marked = [index for index, (k, _) in enumerate(rows) if k & (k - 1) == 0 or index == len(rows) - 1]
        for place in known:
            values, key = [row.values[place] for _, row in rows], keys[place]
            mean, low, high = (100 * np.array([getattr(v, part) for v in values]) for part in ("mean", "low", "high"))
            axes.fill_between(ks, low, high, color=COLORS[key.color], alpha=0.22 if len(known) < 3 else 0.1, linewidth=0)
            axes.plot(ks, mean, color=COLORS[key.color], linewidth=2, marker=SHAPES[key.mark], markersize=6, markevery=marked,
                      markeredgecolor=COLORS["card"])  # fmt: skip
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks[marked], [f"{k:,.0f}" for k in ks[marked]])
        axes.minorticks_off()
        axes.set_xlabel("k, samples a problem")
        axes.set_ylim(max(axes.get_ylim()[0], 0), min(max(axes.get_ylim()[1], 1), 104))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))

    ends = [rows[0], rows[-1]]
    spoken = "; ".join(f"k {k}: {sides_in_words(row, keys)}" for k, row in ends)
    svg = draw(name, f"{title} over k. {spoken}", paint, WIDE)
    return Panel(title, caption, svg, tuple(keys[place] for place in known) if len(known) > 1 else ())


def marks(axes: Axes, place: float, row: Row, keys: Sequence[Key], scale: float, down: bool) -> None:
    """Every side's mean and interval around `place`, the first on top. `down`: the axis is turned, larger is lower."""
    step = min(0.26, 0.7 / len(keys)) * (1 if down else -1)
    for number, (value, key) in enumerate(zip(row.values, keys, strict=True)):
        at = place + (number - (len(keys) - 1) / 2) * step
        if value.bounded:
            axes.plot([value.low * scale, value.high * scale], [at] * 2, color=COLORS[key.color], linewidth=2.2)
        if value.known:
            size = 7 if len(keys) < 4 else 5
            axes.plot([value.mean * scale], [at], SHAPES[key.mark], color=COLORS[key.color], markersize=size,
                      markeredgecolor=COLORS["card"], clip_on=False)  # fmt: skip


def _dumbbells(axes: Axes, rows: Sequence[Row], keys: Sequence[Key]) -> None:
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        marks(axes, place, row, keys, row.unit.scale, down=True)
        if row.difference.known:
            axes.annotate(row.unit.write(row.difference.mean, sign=True), (1.02, place),
                          xycoords=("axes fraction", "data"), va="center", annotation_clip=False)  # fmt: skip
    axes.set_yticks(places, [row.label for row in rows])
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(0, 100)
    _rows_across(axes)
    axes.xaxis.set_major_formatter(FuncFormatter(percent))


def _strips(all_axes: Sequence[Axes], rows: Sequence[Row], keys: Sequence[Key]) -> None:
    for axes, row in zip(all_axes, rows, strict=True):
        marks(axes, 0, row, keys, row.unit.scale, down=True)
        if row.difference.known:
            axes.annotate(row.unit.write(row.difference.mean, sign=True), (1.02, 0.5), xycoords="axes fraction",
                          va="center", annotation_clip=False)  # fmt: skip
        axes.set_yticks([0], [row.label])
        axes.set_ylim(0.6, -0.6)
        axes.margins(x=0.12)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        _rows_across(axes)


def _rows_across(axes: Axes) -> None:
    axes.grid(True, axis="x")
    axes.grid(False, axis="y")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", labelcolor=COLORS["ink"])


def _spoken(title: str, rows: Sequence[Row], keys: Sequence[Key]) -> str:
    """What a drawing shows, in words: it is all that some readers have of it."""
    return f"{title}. " + "; ".join(f"{row.label}: {sides_in_words(row, keys)}" for row in rows)


def sides_in_words(row: Row, keys: Sequence[Key]) -> str:
    return ", ".join(f"{key.label} {row.plain(place)}".strip() for place, key in enumerate(keys) if row.values[place].known)
