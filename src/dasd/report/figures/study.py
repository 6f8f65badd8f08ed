"""How do the arms of a study look? Differences with their intervals, and curves of an arm beside the reference's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from dasd.report.data.metrics import MINUS
from dasd.report.figures.panel import SHAPES, Key, Panel, percent, side_keys
from dasd.report.parts.svg import COLORS, SMALL, WIDE, draw

Record = dict[str, Any]
LINE_TITLES = {
    "reward": "Reward",
    "validation": "Avg@k on validation problems",
    "entropy": "Entropy, nats",
    "length": "Tokens a completion",
    "teacher": "Teacher's share of the credit",
}


def forest(rows: Sequence[Record], kind: str, figure: str, reference: str, name: str) -> Panel:
    """Difference of each arm from the reference, in points: mean and 95 % interval, the resampled one as a thin line.

    `kind`: avg or pass, which `figure` names. All rows have that difference.
    """

    def paint(axes: Axes) -> None:
        for place, row in enumerate(rows):
            found = row[kind]["difference"]
            color = COLORS[{"above": "accent", "below": "repel"}.get(row[kind]["verdict"], "before")]
            axes.plot([100 * end for end in found["resampled"]], [place + 0.2] * 2, color=color, linewidth=1)
            axes.plot([100 * found["low"], 100 * found["high"]], [place] * 2, color=color, linewidth=2.4)
            axes.plot([100 * found["mean"]], [place], "o", color=color, markersize=7, markeredgecolor=COLORS["card"])
        axes.axvline(0, color=COLORS["muted"], linewidth=0.9)
        axes.set_yticks(range(len(rows)), [row["arm"] for row in rows], parse_math=False)
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.grid(True, axis="x")
        axes.grid(False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", labelcolor=COLORS["ink"])
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(FuncFormatter(points))
        axes.set_xlabel(f"{figure} minus that of {reference}, points")

    spoken = "; ".join(
        f"{row['arm']} {100 * row[kind]['difference']['mean']:+.1f} points, {row[kind]['verdict']}" for row in rows
    )
    title = f"{figure}, {place_of(rows[0])}"
    caption = "Thick: 95 % interval, Student's t over seeds, problems drawn. Thin: hierarchical bootstrap. In colour: clear."
    return Panel(title, caption, draw(name, f"{title}. {spoken}", paint, (WIDE[0], 64 + 26 * len(rows))))


def points(value: float, _: Any = None) -> str:
    return f"{value:+.3g}".replace("-", MINUS)


def place_of(row: Record) -> str:
    """Task, and the evaluation set where it is not the task's own problems."""
    return row["task"] if row["own"] else f"{row['task']}: {row['set'].removeprefix(row['task'] + '/')}"


def pass_at_k(rows: Sequence[Record], name: str) -> Panel:
    """The reference first, then an arm."""
    keys = side_keys([row["arm"] for row in rows])

    def paint(axes: Axes) -> None:
        ks: list[int] = []
        for row, key in zip(rows, keys, strict=True):
            curve = {int(k): value for k, value in row["pass_at_k"].items()}
            ks = sorted({*ks, *curve})
            mean, low, high = (100 * np.array([value[end] for value in curve.values()]) for end in ("mean", "low", "high"))
            axes.fill_between(list(curve), low, high, color=COLORS[key.color], alpha=0.18, linewidth=0)
            axes.plot(list(curve), mean, color=COLORS[key.color], linewidth=2, marker=SHAPES[key.mark], markersize=5)
        axes.set_xscale("log", base=2)
        axes.set_xticks(ks, [str(k) for k in ks])
        axes.minorticks_off()
        axes.set_xlabel("k")
        axes.set_ylim(bottom=max(0, axes.get_ylim()[0]), top=min(104, axes.get_ylim()[1]))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))

    title = _title(rows)
    return Panel(title, "", draw(name, f"Pass@k, {title}", paint, SMALL), keys)


def learning(rows: Sequence[Record], figure: str, name: str) -> Panel | None:
    """Means over seeds, with a band from the least to the most of them; None where nothing was logged."""
    keys = side_keys([row["arm"] for row in rows])
    present = [(row["curves"][figure], key) for row, key in zip(rows, keys, strict=True) if row["curves"].get(figure)]
    if not present:
        return None

    def paint(axes: Axes) -> None:
        for curve, key in present:
            few = "o" if len(curve["step"]) < 20 else ""
            axes.fill_between(curve["step"], curve["low"], curve["high"], color=COLORS[key.color], alpha=0.2, linewidth=0)
            axes.plot(curve["step"], curve["mean"], color=COLORS[key.color], linewidth=2, marker=few, markersize=4)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))

    title = f"{LINE_TITLES[figure]}: {_title(rows)}"
    return Panel(title, "", draw(name, f"{title} over training steps", paint, SMALL), keys)


def profiles(arms: Sequence[Record], thresholds: Sequence[float]) -> Panel:
    """Share of runs above each score."""
    keys: tuple[Key, ...] = side_keys([arm["arm"] for arm in arms])
    dashes = ("-", "--", ":", "-.")

    def paint(axes: Axes) -> None:
        for place, (arm, key) in enumerate(zip(arms, keys, strict=True)):
            shares = 100 * np.array(arm["profile"])
            axes.step([100 * each for each in thresholds], shares, where="post", color=COLORS[key.color], linewidth=2,
                      linestyle=dashes[place // 6 % 4])  # fmt: skip
        axes.set_ylim(0, 104)
        axes.set_xlabel("Avg@k of a run")
        axes.xaxis.set_major_formatter(FuncFormatter(percent))
        axes.yaxis.set_major_formatter(FuncFormatter(percent))

    caption = "Share of runs, over all tasks, whose Avg@k is above the value below; each task counts the same."
    return Panel("Performance profile", caption, draw("profile", "Performance profile of each arm", paint, WIDE), keys)


def _title(rows: Sequence[Record]) -> str:
    return f"{place_of(rows[-1])}, {rows[-1]['arm']}"


def calibration(cells: Sequence[Record], figure: str, reference: str, name: str, guessed: str, caption: str) -> Panel:
    """Measured effect of each arm, in points, against what was predicted of it, in hundredths; both with 95 % intervals.

    guessed  what the axis of predictions shows
    """
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    keys = side_keys(tasks)

    def paint(axes: Axes) -> None:
        for cell in cells:
            key, guess, effect = keys[tasks.index(cell["task"])], cell["predicted"], cell["measured"]
            x, y = 100 * guess["mean"], 100 * effect["mean"]
            axes.plot([100 * guess["low"], 100 * guess["high"]], [y, y], color=COLORS[key.color], linewidth=1, alpha=0.55)
            axes.plot([x, x], [100 * effect["low"], 100 * effect["high"]], color=COLORS[key.color], linewidth=1, alpha=0.55)
            axes.plot([x], [y], SHAPES[key.mark], color=COLORS[key.color], markersize=6, markeredgecolor=COLORS["card"])
        axes.axhline(0, color=COLORS["muted"], linewidth=0.9)
        axes.axvline(0, color=COLORS["muted"], linewidth=0.9)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(FuncFormatter(points))
        axes.set_xlabel(guessed)
        axes.set_ylabel(f"{figure} minus that of {reference}, points")

    spoken = "; ".join(
        f"{cell['task']} {cell['arm']} predicted {100 * cell['predicted']['mean']:+.1f}, "
        f"measured {100 * cell['measured']['mean']:+.1f}" for cell in cells
    )  # fmt: skip
    return Panel("Measured against predicted", caption, draw(name, f"Measured against predicted. {spoken}", paint, WIDE), keys)
