"""What did training do, step by step?"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from dasd.report.data.curves import binned
from dasd.report.data.inputs import Series, number
from dasd.report.data.metrics import describe
from dasd.report.figures.panel import Key, Panel, curves, percent, step_axis
from dasd.report.parts.svg import COLORS, draw


def training_panels(series: Series) -> list[Panel]:
    """One panel for each group of metrics that was logged."""
    missing = "Groups with equal rewards learn nothing from the verifier"
    missing += "; rollouts without a teacher have the verifier alone." if "teacher/skipped" in series else "."
    drawn = [
        curves(series, "Reward",
                [("reward", Key("mean reward", "accent")), ("reward_std", Key("spread in a group", "muted", "dash"))],
                "Higher is better; where the spread falls to 0 the verifier has nothing left to compare."),
        curves(series, "Entropy", [("entropy", Key("entropy", "accent"))],
                "Mean over tokens, in nats; a fall toward 0 means that the policy stops exploring."),
        curves(series, "Completion length", [("completions/mean_length", Key("length", "accent"))],
                "Mean number of tokens; a sudden change is the first sign of collapse or of rambling."),
        _credit_by_side(series),
        curves(series, "Weight of the teacher",
                [("credit/teacher", Key("teacher's share of all credit", "accent")),
                 ("credit/sign_flips", Key("tokens whose advantage changes sign", "muted", "dash"))],
                "Near 0 the run is plain GRPO; many changed signs mean that the teacher overrules the verifier.", rate=True),
        curves(series, "Agreement with the teacher",
                [("teacher/agreement", Key("all tokens", "accent")),
                 ("teacher/agreement_forks", Key("the fifth of highest entropy", "muted", "dash"))],
                "How often the sampled token is the teacher's most likely one; a rise at uncertain tokens means that the "
                "student says what the teacher would.", rate=True),
        curves(series, "Where a signal is missing",
                [("frac_reward_zero_std", Key("groups with equal rewards", "accent")),
                 ("teacher/skipped", Key("rollouts without a teacher", "muted", "dash"))],
                missing, rate=True),
    ]  # fmt: skip
    return [panel for panel in drawn if panel is not None]


def validation_panels(lines: Sequence[Mapping[str, Any]]) -> list[Panel]:
    """How the policy did on validation problems, step by step."""
    if not lines:
        return []
    names = list(dict.fromkeys(name for line in lines for name in line if name not in ("step", "ci95")))
    series = {name: np.array([number(line.get(name)) for line in lines]) for name in ("step", *names)}
    average, solved = (next((n for n in reversed(names) if n.startswith(prefix)), "") for prefix in ("avg_at_", "pass_at_"))
    drawn = [
        curves(series, "Validation: accuracy",
               [(average, Key(describe(average).label, "accent")), (solved, Key(describe(solved).label, "muted", "dash"))],
               f"On problems that are not trained on. {_best(lines, average)}", rate=True),
        curves(series, "Validation: doubt", [("epistemic_per_response", Key("words of doubt a response", "accent"))],
               "A fall means that the policy stops weighing alternatives."),
        curves(series, "Validation: step accuracy and truncation",
               [("step_accuracy", Key("checkable steps that are right", "accent")),
                ("truncated", Key("responses cut off", "muted", "dash"))],
               "Fewer right steps, or more responses without an end, are the first signs of collapse.", rate=True),
    ]  # fmt: skip
    return [panel for panel in drawn if panel is not None]


def _best(lines: Sequence[Mapping[str, Any]], name: str) -> str:
    known = [line for line in lines if not math.isnan(number(line.get(name)))]
    if not known:
        return ""
    best = max(known, key=lambda line: number(line[name]))
    unit = describe(name).unit
    low, high = (unit.write(number(end)) for end in (best.get("ci95") or {}).get(name) or (math.nan, math.nan))
    return f"Highest at step {best['step']}: {unit.write(best[name])}{unit.suffix} [{low}, {high}], reported and not chosen."


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
