"""DASD minus GRPO over the seeds of several studies, looked at afterwards: means of seeds with Student's 95 % interval.

    python studies/two_sided/pooled.py

Avg@16 after thirty steps at 1e-3 (forms.yaml, products.yaml, study.yaml, ../sooner), and what validation problems say during
the runs of sixty steps (../direction/study.yaml, ../lookahead).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from dasd.study.statistics import student_quantile

STUDIES = Path(__file__).parents[1]
FIRST = {"products": "direction/results/products", "countdown": "direction/results/forms"}
LONG = ("direction/results/main", "lookahead/results")


def pairs(results: str, task: str, arm: str) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """Outcomes of an arm and of grpo, seed by seed."""
    for file in sorted((STUDIES / results / task / arm).glob("seed-*/outcome.json")):
        other = STUDIES / results / task / "grpo" / file.parent.name / file.name
        yield json.loads(file.read_text()), json.loads(other.read_text())


def avg(outcome: dict[str, Any]) -> float:
    of = outcome["sets"]["test"]
    return sum(of["right"]) / len(of["right"]) / of["num_samples"]


def say(which: str, differences: list[float]) -> None:
    values = np.array(differences)
    half = student_quantile(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values))
    mean = values.mean()
    above = f"{(values > 0).sum()} of {len(values)} above"
    print(f"{which}: {mean:+.3f} [{mean - half:+.3f}, {mean + half:+.3f}], {above}")


def main() -> None:
    for task, first in FIRST.items():
        for arm in ("dasd", "two_sided"):
            two = [
                avg(ours) - avg(theirs)
                for results in (first, "two_sided/results")
                for ours, theirs in pairs(results, task, arm)
            ]
            say(f"{task}, {arm}, thirty steps", two)
            if task == "products" and arm == "dasd":
                say("  with ../sooner", two + [avg(ours) - avg(theirs) for ours, theirs in pairs("sooner/results", task, arm)])
        curves = [
            (ours["curves"]["validation"], theirs["curves"]["validation"])
            for results in LONG
            for ours, theirs in pairs(results, task, "dasd")
        ]
        for step in ("10", "20", "30", "60"):
            say(f"{task}, dasd, sixty steps, validation at {step}", [ours[step] - theirs[step] for ours, theirs in curves])


if __name__ == "__main__":
    main()
