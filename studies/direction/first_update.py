"""What did the first update predict of the arms of forms.yaml? Draws docs/first-update.png and prints rank correlations.

    dasd study studies/direction/forms.yaml --report
    python studies/direction/first_update.py

Of these arms alone, by the learning rate that the search gave them, and of those begun after their gains were on file without
the methods that leave the verifier out. That was thought of after the results; the verdicts are those of `dasd study`.
"""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib.pyplot as plt

from dasd.study.predicted import Record, judged

HERE = Path(__file__).parent
NO_VERIFIER = ("opsd", "sdpo", "opsa")
LOOKS = {True: ("o", "#1f5fa8", "begun after the gains were on file"), False: ("D", "#d07a1f", "begun before")}
NAMED = {  # where a name stands, in points from its mark
    "hepo": (-30, 4), "rlsd": (-8, 7), "srpo": (-12, 7), "dasd": (6, 6), "conformity": (-58, -9), "other_problem": (-76, -4),
    "opsd": (7, -8), "sdpo": (7, 5), "opsa": (7, 5), "conformity_length_matched": (7, -8),
    "two_sided_rho_0.2": (7, -3), "beta_0.3": (7, -3), "token_frequency": (-84, -3), "teacher_entropy": (-78, -3),
}  # fmt: skip


def main() -> None:
    study = json.loads((HERE / "results/forms/study.json").read_text())
    cells = [cell for cell in study["gain_prediction"]["cells"] if cell["study"] == "forms"]
    rates = {choice["arm"]: choice["chosen"]["training.learning_rate"] for choice in study["choices"]}
    say("all", cells)
    for rate in sorted(set(rates.values())):
        say(f"at {rate:g}", [cell for cell in cells if rates[cell["arm"]] == rate])
    later = [cell for cell in cells if cell["beforehand"]]
    say("begun later, with a verifier", [cell for cell in later if cell["arm"] not in NO_VERIFIER])
    draw(cells)


def say(which: str, cells: list[Record]) -> None:
    rank = judged(cells, which)["spearman"]
    print(f"{which}: {rank['mean']:+.2f} [{rank['low']:+.2f}, {rank['high']:+.2f}] over {len(cells)} cells")


def draw(cells: list[Record]) -> None:
    plt.rcParams |= {"font.family": "DejaVu Sans", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, axes = plt.subplots(figsize=(8.7, 4.2), dpi=120)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(0, color="#888888", linewidth=0.8)
    for cell in cells:
        x, effect = cell["predicted"]["mean"], cell["measured"]
        axes.plot([x, x], [effect["low"], effect["high"]], color="#b9c2cc", linewidth=1, zorder=1)
        if cell["arm"] in NAMED:
            place = NAMED[cell["arm"]]
            axes.annotate(cell["arm"], (x, effect["mean"]), place, textcoords="offset points", fontsize=7.5, color="#333333")
    for later, (mark, color, text) in LOOKS.items():
        part = [cell for cell in cells if cell["beforehand"] == later]
        x, y = ([cell[side]["mean"] for cell in part] for side in ("predicted", "measured"))
        axes.plot(x, y, mark, color=color, markersize=5, label=text, zorder=2)
    effects = [cell["measured"]["mean"] for cell in cells]
    axes.set_ylim(min(effects) - 0.07, max(effects) + 0.07)
    axes.set_xlabel("gain of the first update over grpo's, less 1 (before training)")
    axes.set_ylabel("Avg@16 minus grpo's, after 30 steps")
    axes.legend(loc="upper left", frameon=False)
    figure.tight_layout()
    figure.savefig(HERE.parents[1] / "docs/first-update.png")


if __name__ == "__main__":
    main()
