"""What did the first update predict of forms.yaml and of the two halves on Products? Draws docs/first-update.png and prints
correlations.

    dasd study studies/direction/forms.yaml --report
    dasd study studies/direction/study.yaml --report
    python studies/direction/first_update.py

By the learning rate that the search gave the arms, and without the methods that leave the verifier out. On Countdown that was
thought of after the results; the verdicts are those of `dasd study`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt

from dasd.study.predicted import Record, judged

HERE = Path(__file__).parent
NO_VERIFIER = ("opsd", "sdpo", "opsa")
LOOKS = {True: ("o", "#1f5fa8", "begun after the gains were on file"), False: ("D", "#d07a1f", "begun before")}
PANELS = {"Countdown": ("forms",), "Products": ("products", "products-others")}
NAMED = {  # where a name stands, in points from its mark
    "Countdown": {
        "hepo": (-12, 7), "rlsd": (-8, 6), "dasd": (-8, 8), "conformity": (-52, -9), "opsd": (6, -9), "sdpo": (6, 4),
        "opsa": (6, 4), "conformity_length_matched": (6, -9), "two_sided_rho_0.2": (6, -3), "beta_0.3": (6, -3),
        "token_frequency": (-73, -3), "teacher_entropy": (-69, -3),
    },
    "Products": {
        "conformity_other_problem": (-36, 12), "scaffold_only": (7, -3),
        "conformity_length_matched": (-6, -12), "opsa": (6, -3),
        "sdpo": (6, -3), "opsd": (-26, -3), "novelty": (-36, -4), "rlsd": (-10, -11), "two_sided": (-16, 9),
        "token_frequency": (7, -3), "dasd_rho_0.5": (-60, -3), "dasd_rho_0.2": (-60, -3),
    },
}  # fmt: skip


def main() -> None:
    figure, both = plt.subplots(1, 2, figsize=(8.7, 4.0), dpi=120)
    known, choices = read("main")["gain_prediction"]["cells"], read("forms")["choices"]
    for axes, (task, names) in zip(both, PANELS.items(), strict=True):
        cells = [cell for cell in known if cell["study"] in names]
        print(task)
        say_all(cells, choices if task == "Countdown" else ())
        draw(axes, cells, NAMED[task])
        axes.set_title(f"{task}, {len(cells)} arms", fontsize=9.5, loc="left")
    both[0].set_ylabel("Avg@16 minus grpo's, after 30 steps", fontsize=9)
    both[0].legend(loc="upper left", frameon=False, fontsize=7.5)
    figure.supxlabel("gain of the first update over grpo's, less 1 (before training)", fontsize=9)
    figure.tight_layout()
    figure.savefig(HERE.parents[1] / "docs/first-update.png")


def read(name: str) -> Any:
    return json.loads((HERE / f"results/{name}/study.json").read_text())


def say_all(cells: list[Record], choices: Sequence[Any]) -> None:
    say("all", cells)
    rates = {choice["arm"]: choice["chosen"]["training.learning_rate"] for choice in choices}
    for rate in sorted(set(rates.values())):
        say(f"at {rate:g}", [cell for cell in cells if rates[cell["arm"]] == rate])
    later = [cell for cell in cells if cell["beforehand"]]
    say("begun later, with a verifier", [cell for cell in later if cell["arm"] not in NO_VERIFIER])


def say(which: str, cells: list[Record]) -> None:
    rank = judged(cells, which)["spearman"]
    print(f"{which}: {rank['mean']:+.2f} [{rank['low']:+.2f}, {rank['high']:+.2f}] over {len(cells)} cells")


def draw(axes: Any, cells: list[Record], named: dict[str, tuple[int, int]]) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.axhline(0, color="#888888", linewidth=0.8)
    axes.axvline(0, color="#888888", linewidth=0.8)
    for cell in cells:
        x, effect = cell["predicted"]["mean"], cell["measured"]
        axes.plot([x, x], [effect["low"], effect["high"]], color="#b9c2cc", linewidth=1, zorder=1)
        if cell["arm"] in named:
            place = named[cell["arm"]]
            axes.annotate(cell["arm"], (x, effect["mean"]), place, textcoords="offset points", fontsize=7, color="#333333")
    for later, (mark, color, text) in LOOKS.items():
        part = [cell for cell in cells if cell["beforehand"] == later]
        x, y = ([cell[side]["mean"] for cell in part] for side in ("predicted", "measured"))
        axes.plot(x, y, mark, color=color, markersize=4.5, label=text, zorder=2)
    effects = [cell["measured"]["mean"] for cell in cells]
    axes.set_ylim(min(effects) - 0.07, max(effects) + 0.09)


if __name__ == "__main__":
    main()
