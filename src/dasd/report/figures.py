"""What did training do, and what came of it? Small panels: a drawing, its key, and a sentence on how to read it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from numpy.typing import NDArray

from dasd.report.curves import binned, edges, mean, smooth
from dasd.report.inputs import Series
from dasd.report.metrics import RATE
from dasd.report.results import Row, Value
from dasd.report.svg import COLORS, SMALL, WIDE, draw

FEW = 60  # points that are drawn as dots too
DECILES = [f"gap/decile_{decile}" for decile in range(1, 11)]


@dataclass(frozen=True)
class Key:
    """One entry of a legend. `mark` is line, dash, area or dot."""

    label: str
    color: str
    mark: str = "line"


@dataclass(frozen=True)
class Panel:
    title: str
    caption: str
    svg: Markup
    keys: tuple[Key, ...] = ()


def training_panels(series: Series) -> list[Panel]:
    """One panel for each group of metrics that was logged."""
    missing = "Groups with equal rewards learn nothing from the verifier"
    missing += "; rollouts without a teacher have the verifier alone." if "teacher/skipped" in series else "."
    drawn = [
        _curves(series, "Reward",
                [("reward", Key("mean reward", "accent")), ("reward_std", Key("spread in a group", "muted", "dash"))],
                "Higher is better; where the spread falls to 0 the verifier has nothing left to compare."),
        _curves(series, "Entropy", [("entropy", Key("entropy", "accent"))],
                "Mean over tokens, in nats; a fall toward 0 means that the policy stops exploring."),
        _curves(series, "Completion length", [("completions/mean_length", Key("length", "accent"))],
                "Mean number of tokens; a sudden change is the first sign of collapse or of rambling."),
        _credit_by_side(series),
        _curves(series, "Weight of the teacher",
                [("credit/teacher", Key("teacher's share of all credit", "accent")),
                 ("credit/sign_flips", Key("tokens whose advantage changes sign", "muted", "dash"))],
                "Near 0 the run is plain GRPO; many changed signs mean that the teacher overrules the verifier.", rate=True),
        _curves(series, "Agreement with the teacher",
                [("teacher/agreement", Key("all tokens", "accent")),
                 ("teacher/agreement_forks", Key("the fifth of highest entropy", "muted", "dash"))],
                "How often the sampled token is the teacher's most likely one; a rise at uncertain tokens means that the "
                "student says what the teacher would.", rate=True),
        _curves(series, "Where a signal is missing",
                [("frac_reward_zero_std", Key("groups with equal rewards", "accent")),
                 ("teacher/skipped", Key("rollouts without a teacher", "muted", "dash"))],
                missing, rate=True),
    ]  # fmt: skip
    return [panel for panel in drawn if panel is not None]


def gap_panels(series: Series) -> list[Panel]:
    """The teacher-student gap by entropy decile, early against late, and over the run."""
    drawn = [
        _gap_by_decile(series),
        _curves(series, "Gap over the run",
                [("gap/low", Key("low entropy", "attract")), ("gap/high", Key("high entropy", "repel")),
                 ("gap/abs", Key("mean size, all tokens", "muted", "dash"))],
                "Below 0 the teacher likes the sampled tokens less than the student does, above 0 more.", zero=True, size=WIDE),
    ]  # fmt: skip
    return [panel for panel in drawn if panel is not None]


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


def line(axes: Axes, steps: NDArray[np.float64], values: NDArray[np.float64], key: Key) -> None:
    """Thin: as logged, with a dot a point where there are few. Thick: running mean."""
    steps, values = binned(steps, values)
    color, few = COLORS[key.color], len(steps) <= FEW
    if len(steps) > 1:
        axes.plot(steps, values, color=color, linewidth=0.8, alpha=0.4, marker="o" if few else "", markersize=2.6)
    marker = "o" if np.isfinite(values).sum() < 2 else ""
    dash = "--" if key.mark == "dash" else "-"
    axes.plot(steps, smooth(values), color=color, linewidth=2, linestyle=dash, marker=marker, markersize=4)


def _curves(
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


def _credit_by_side(series: Series) -> Panel | None:
    if "credit/attracted" not in series and "credit/repelled" not in series:
        return None
    nothing = np.zeros_like(series["step"])

    def paint(axes: Axes) -> None:
        def shares(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.repeat(100 * binned(series["step"], values)[1], copies)

        steps = binned(series["step"], series["step"])[0]
        copies = 1 if len(steps) > 1 else 2  # a single step is drawn as a bar one step wide
        steps = steps if copies == 1 else steps + np.array([-0.5, 0.5])
        attracted, repelled = (shares(series.get(f"credit/{side}", nothing)) for side in ("attracted", "repelled"))
        axes.fill_between(steps, 0, attracted, color=COLORS["attract"], alpha=0.75, linewidth=0)
        axes.fill_between(steps, attracted, attracted + repelled, color=COLORS["repel"], alpha=0.75, linewidth=0)
        if "tokens/attracted" in series:
            axes.plot(steps, shares(series["tokens/attracted"]), color=COLORS["ink"], linewidth=1.4, linestyle="--")
        axes.set_ylim(0, 100)
        axes.yaxis.set_major_formatter(FuncFormatter(percent))
        step_axis(axes, series["step"])

    keys = [Key("attracted", "attract", "area"), Key("repelled", "repel", "area")]
    caption = "The teacher's credit, split by direction."
    if "tokens/attracted" in series:
        keys.append(Key("attracted share of tokens", "ink", "dash"))
        caption = "The teacher's credit by direction; where orange reaches below the dashed line, a repelled token weighs more."
    return Panel("Credit by direction", caption, draw("credit-sides", "Credit by direction", paint), tuple(keys))


def _gap_by_decile(series: Series) -> Panel | None:
    if not any(name in series for name in DECILES):
        return None
    empty = np.full_like(series["step"], math.nan)
    gaps = np.array([series.get(name, empty) for name in DECILES])
    first, last = edges(len(series["step"]))
    curves = [("all steps", "accent", "o", slice(None))]
    if len(series["step"]) >= 4:
        curves = [(_span(series, first, "first"), "before", "o", first), (_span(series, last, "last"), "accent", "s", last)]

    def paint(axes: Axes) -> None:
        deciles = np.arange(1, 11)
        axes.axhline(0, color=COLORS["muted"], linewidth=0.9)
        for _, color, marker, part in curves:
            values = np.array([mean(row[part]) for row in gaps])
            axes.plot(
                deciles, values, color=COLORS[color], linewidth=2, marker=marker, markersize=6, markeredgecolor=COLORS["card"]
            )
        axes.set_xticks(deciles)
        axes.set_xlabel("entropy decile: 1 = surest tokens, 10 = least sure")
        axes.set_ylabel("gap, nats")

    caption = "Above 0 the teacher prefers the sampled token more than the student does, below 0 less."
    svg = draw("gap-deciles", "Teacher-student gap by entropy decile", paint, WIDE)
    return Panel("Gap by entropy decile", caption, svg, tuple(Key(label, color) for label, color, _, _ in curves))


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


def step_axis(axes: Axes, steps: NDArray[np.float64]) -> None:
    axes.set_xlabel("step")
    if len(steps) == 1:
        axes.set_xticks(steps, [f"{steps[0]:.0f}"])
        return
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlim(steps[0], steps[-1])


def percent(value: float, position: int | None = None) -> str:
    return f"{value:.3g} %"


def _span(series: Series, part: slice, word: str) -> str:
    steps = series["step"][part]
    return f"{word} steps, {steps[0]:.0f} to {steps[-1]:.0f}" if len(steps) > 1 else f"{word} step, {steps[0]:.0f}"
