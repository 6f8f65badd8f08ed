"""What did training do, step by step?"""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter
from numpy.typing import NDArray

from dasd.report.data.curves import binned
from dasd.report.data.inputs import Series
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
