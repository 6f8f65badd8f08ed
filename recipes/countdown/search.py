"""Which learning rate does each recipe need? Trains every recipe with each rate and evaluates on validation problems.

    python recipes/countdown/search.py [--recipes dasd grpo] [--rates 1e-4 3e-4] [--seeds 0] [--shard 0/2]

Results are appended to search.jsonl beside this file; what is there already is not run again. One run takes one to two minutes
on one CPU core; `--shard i/n` takes every n-th run, so that n processes share the work.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
RESULTS = HERE / "search.jsonl"
FIGURES = ("avg_at_16", "pass_at_16", "step_accuracy", "epistemic_per_response", "mean_length", "truncated", "claims_true")
PROBLEMS = 100


def evaluate(model: str, output: Path) -> dict:
    options = ["--data.split", "validation", "--data.limit", str(PROBLEMS), "--max_completion_length", "128"]
    dasd("eval", model, "--output", str(output), *options)
    summary = json.loads((output / "summary.json").read_text())
    return {
        **{name: round(summary[name], 4) for name in FIGURES},
        "ci95": [round(end, 4) for end in summary["ci95"]["avg_at_16"]],
    }


def run(recipe: str, rate: float, seed: int, folder: Path) -> dict:
    output = folder / f"{recipe}-{rate:g}-{seed}"
    settings = {"output": output, "training.learning_rate": rate, "training.seed": seed}
    dasd(
        "train", str(HERE / f"{recipe}.yaml"), *itertools.chain(*((f"--{key}", str(value)) for key, value in settings.items()))
    )
    return {
        "recipe": recipe,
        "learning_rate": rate,
        "seed": seed,
        **evaluate(str(output / "checkpoints/final"), output / "validation"),
    }


def dasd(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dasd.cli", *arguments], check=True, stdout=subprocess.DEVNULL)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    recipes = sorted(path.stem for path in HERE.glob("*.yaml") if path.stem != "base")
    parser.add_argument("--recipes", nargs="*", default=recipes, choices=recipes)
    parser.add_argument("--rates", nargs="*", type=float, default=[1e-4, 3e-4])
    parser.add_argument("--seeds", nargs="*", type=int, default=[0])
    parser.add_argument("--shard", default="0/1")
    parser.add_argument("--folder", type=Path, default=Path("runs/search"))
    options = parser.parse_args()
    index, count = map(int, options.shard.split("/"))
    plan = list(itertools.product(options.seeds, options.rates, options.recipes))[index::count]
    for seed, rate, recipe in plan:
        known = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
        if any((row["recipe"], row["learning_rate"], row["seed"]) == (recipe, rate, seed) for row in known):
            continue
        row = run(recipe, rate, seed, options.folder)
        with RESULTS.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(
            f"{recipe:14s} {rate:7.0e} seed {seed}  Avg@16 {row['avg_at_16']:.3f}  Pass@16 {row['pass_at_16']:.3f}", flush=True
        )


if __name__ == "__main__":
    main()
