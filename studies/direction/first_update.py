"""Draws docs/first-update.png from results/forms/study.json: what the first update predicted of each arm, and what came of it.

dasd study studies/direction/forms.yaml --report
python studies/direction/first_update.py
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

HERE = Path(__file__).parent
MARKS, COLORS = {True: "o", False: "D"}, {True: "#1f5fa8", False: "#d07a1f"}
NAMED = {
    "hepo": (-32, 4), "rlsd": (-8, 7), "srpo": (7, -2), "dasd": (7, 4), "conformity": (-58, -9), "other_problem": (-76, -4),
    "opsd": (7, -8), "sdpo": (7, 5), "opsa": (7, 5), "conformity_length_matched": (7, -8), "two_sided": (-52, 3),
    "two_sided_rho_0.2": (7, -3), "beta_0.3": (7, -3), "beta_0.02": (-50, -9),
}  # fmt: skip


def main() -> None:
    found = json.loads((HERE / "results/forms/study.json").read_text())["gain_prediction"]
    cells = [cell for cell in found["cells"] if cell["study"] == "forms"]
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(figsize=(8.7, 4.2), dpi=120)
    for cell in cells:
        x, effect = cell["predicted"]["mean"], cell["measured"]
        y = effect["mean"]
        axes.plot([x, x], [effect["low"], effect["high"]], color="#b9c2cc", linewidth=1, zorder=1)
        axes.plot(
            x,
            y,
            "o" if cell["beforehand"] else "D",
            color="#1f5fa8" if cell["beforehand"] else "#d07a1f",
            markersize=5,
            zorder=2,
        )
        if cell["arm"] in NAMED:
            axes.annotate(cell["arm"], (x, y), NAMED[cell["arm"]], textcoords="offset points", fontsize=7.5, color="#333333")
    effects = np.array([cell["measured"]["mean"] for cell in cells])
    axes.set_ylim(effects.min() - 0.07, effects.max() + 0.07)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(0, color="#888888", linewidth=0.8)
    axes.set_xlabel("gain of the first update over grpo's, less 1 (before training)")
    axes.set_ylabel("Avg@16 minus grpo's, after 30 steps")
    for later, text in ((True, "begun after the gains were on file"), (False, "begun before")):
        axes.plot([], [], MARKS[later], color=COLORS[later], markersize=5, linestyle="", label=text)
    axes.legend(loc="lower right", frameon=False)
    figure.tight_layout()
    figure.savefig(HERE.parents[1] / "docs/first-update.png")


if __name__ == "__main__":
    main()
