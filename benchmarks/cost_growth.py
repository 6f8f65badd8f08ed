"""How does the cost of a step grow with the length of completions, the vocabulary and the size of a group?

    python benchmarks/cost_growth.py [--rounds 2] [--only longest]

A random Qwen3 of two layers; one thing changes at a time. Seconds and peak memory as in step_cost.py, which see. Figures go to
benchmarks/results/cost-growth-cpu.json (what is not measured stays) and docs/cost.png.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from machine import machine
from step_cost import BARE, Case, memory_of, qwen3, summary, times
from transformers.utils import logging as transformers_logging

from dasd.files import write_json

RESULTS = Path(__file__).parent / "results" / "cost-growth-cpu.json"
PLOT = Path(__file__).parent.parent / "docs" / "cost.png"
SIDES = {BARE: "bare teacher forward", "grpo": "GRPO (TRL)", "dasd": "DASD", "sdpo_full": "SDPO, full logits (TRL)"}
COLORS = {BARE: "#9aa0a6", "grpo": "#3b6fb6", "dasd": "#d9622b", "sdpo_full": "#6a9f58"}
BASE = Case(qwen3(2, 128, 384, 4, 2, 32, 1024), rollouts=4, micro_batch=2, longest=256, prompt=64, reference=192, group=4)
SWEEPS = {
    "longest": ("completion length, tokens", [256, 1024, 4096, 16384]),
    "vocabulary": ("vocabulary", [1024, 8192, 65_536, 262_144]),
    "group": ("rollouts of one problem", [2, 4, 8, 16]),
}


def case_of(sweep: str, value: int) -> Case:
    if sweep == "longest":
        return replace(BASE, longest=value, rollouts=2, group=2, micro_batch=1)
    if sweep == "vocabulary":
        return replace(BASE, shape={**(BASE.shape or {}), "vocab_size": value})
    return replace(BASE, rollouts=16, micro_batch=8, group=value)


def measure(sweep: str, value: int, rounds: int) -> dict[str, Any]:
    case = case_of(sweep, value)
    found = summary(times(list(SIDES), case, rounds))
    memory = {side: memory_of(side, "vocabulary", asdict(case)) for side in SIDES}
    return {"value": value, "seconds": found["seconds"], "ratios": found["ratios"], "peak_bytes": memory}


def draw(result: dict[str, Any]) -> None:
    figure, axes = plt.subplots(2, len(SWEEPS), figsize=(11, 6), sharex="col", layout="constrained")
    for column, (sweep, (label, _)) in enumerate(SWEEPS.items()):
        points = result["sweeps"].get(sweep, [])
        for row, (name, unit, scale) in enumerate(
            [("seconds", "seconds a step", 1.0), ("peak_bytes", "peak memory, MiB", 2.0**20)]
        ):
            plot, x = axes[row][column], [point["value"] for point in points]
            for side, title in SIDES.items():
                y = [point[name][side] / scale for point in points]
                plot.plot(x, y, marker="o", markersize=4, color=COLORS[side], label=title)
            plot.set(xscale="log", yscale="log", ylabel=unit if column == 0 else "")
            plot.set_xticks(x, [f"{value:,}" for value in x])
            plot.tick_params(axis="x", which="minor", bottom=False, labelbottom=False)
            plot.grid(alpha=0.25)
            plot.spines[["top", "right"]].set_visible(False)
        axes[1][column].set_xlabel(label)
    figure.legend(*axes[0][0].get_legend_handles_labels(), loc="outside upper center", ncols=len(SIDES), frameon=False)
    figure.savefig(PLOT, dpi=110)


def exponents(points: Sequence[dict[str, Any]], name: str, side: str) -> list[float]:
    """Slopes between neighbours on log-log axes: 1 is linear."""
    return [
        round(math.log(after[name][side] / before[name][side]) / math.log(after["value"] / before["value"]), 2)
        for before, after in pairwise(points)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", choices=SWEEPS)
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    result: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"sweeps": {}}
    result |= {"machine": machine(), "threads": torch.get_num_threads(), "case": asdict(BASE)}
    for sweep in [options.only] if options.only else SWEEPS:
        points = []
        for value in SWEEPS[sweep][1]:
            points.append(measure(sweep, value, options.rounds))
            print(sweep, json.dumps(points[-1]), flush=True)
        result["sweeps"][sweep] = points
        result.setdefault("growth", {})[sweep] = {
            name: {side: exponents(points, name, side) for side in SIDES} for name in ("seconds", "peak_bytes")
        }
        write_json(RESULTS, result)
    if result["sweeps"].keys() == SWEEPS.keys():
        draw(result)


if __name__ == "__main__":
    main()
