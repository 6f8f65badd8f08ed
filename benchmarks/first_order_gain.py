"""Relative first-order gain of every arm of a study, before anything is trained: `dasd gain` for the arms of a study file.

    python benchmarks/first_order_gain.py STUDY.yaml --task TASK --output FOLDER [--arms grpo,dasd] [--batches 24] [--seed 0]

The formula is in `dasd.analysis.first_order`. What studies/direction/gains holds was made with 24 batches and seed 0.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dasd.recipe_files import recipes
from dasd.study.cells import Cell
from dasd.study.config import load_study
from dasd.training.gain import gains


def parser_of(description: str) -> argparse.ArgumentParser:
    """Which study, task, batches and seed; `credit_parts.py` asks the same."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("study", type=Path)
    parser.add_argument("--task", required=True)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=Path, required=True)
    return parser


def main() -> None:
    parser = parser_of(__doc__.splitlines()[0])
    parser.add_argument("--arms", default="")
    args = parser.parse_args()
    study = load_study(args.study, recipes())
    reference = study.config.reference
    arms = dict.fromkeys([reference, *(args.arms.split(",") if args.arms else study.config.arms)])
    configs = {arm: Cell(study, args.task, arm, args.seed).run_config({}) for arm in arms}
    found = gains(configs, reference, args.output, args.batches)["gains"]
    for arm, gain in sorted(found.items(), key=lambda item: -item[1]["mean"]):
        print(f"{arm:28} {gain['mean']:+.3f} [{gain['low']:+.3f}, {gain['high']:+.3f}]  cosine {gain['cosine']:+.4f}")


if __name__ == "__main__":
    main()
