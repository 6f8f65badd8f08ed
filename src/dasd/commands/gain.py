"""`dasd gain`: how far uphill would one update of each config go, before anything is trained?"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path
from typing import Any

from dasd.commands.base import Commands, declare, path
from dasd.config import BadInput, RunConfig, load_config

VERDICTS = {"more": "further uphill", "less": "less far", "undecided": "not told apart", "reference": "reference"}


def add(commands: Commands) -> None:
    child = declare(
        commands, "gain", run, "compare what one update of several configs brings the verifier, before any training",
        figures=True,
    )  # fmt: skip
    child.epilog = "settings of dasd train, given as --key VALUE, hold for all configs"
    child.add_argument("configs", type=path, nargs="+", metavar="CONFIG", help="YAML files of dasd train, the reference first")
    child.add_argument("--batches", type=int, default=24, metavar="N", help="batches of rollouts, half for each side [24]")
    child.add_argument(
        "--output", type=path, default=Path("runs/gain"), help="folder for rollouts, updates and gain.json (default: runs/gain)"
    )


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    names = [config.stem for config in known.configs]
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadInput(f"two configs are called {twice[0]}: a config's name here is its file's")
    from dasd.analysis.first_order import LEAST_BATCHES

    if known.batches < LEAST_BATCHES:
        raise BadInput(f"--batches must be at least {LEAST_BATCHES}, half of them for each side, got {known.batches}")
    if len(names) < 2:
        raise BadInput(f"give at least two configs, the reference first: dasd gain grpo.yaml {known.configs[0]}")
    configs = {name: load_config(RunConfig, file, overrides) for name, file in zip(names, known.configs, strict=True)}
    from rich.markup import escape
    from rich.table import Table

    from dasd.progress import console, print_table
    from dasd.training.gain import SUMMARY, gains

    summary = gains(configs, names[0], known.output, known.batches)
    table = Table()
    for head in ("config", "gain, relative", "95 %", "cosine", ""):
        table.add_column(head, justify="left" if head in ("config", "") else "right")
    for name, of in sorted(summary["gains"].items(), key=lambda item: -item[1]["mean"]):
        ends = "" if name == names[0] else f"[{of['low']:+.2f}, {of['high']:+.2f}]"
        table.add_row(escape(name), f"{of['mean']:+.2f}", ends, f"{of['cosine']:+.3f}", VERDICTS[of["verdict"]])
    print_table(table)
    console.print(
        f"What one step of Adam brings the verifier's objective on other problems, over {names[0]}'s, less 1: "
        f"{summary['rollouts']:,} rollouts of a model that does not move. Nothing of what many steps do: compared with "
        "training on two small tasks, it had the order of the effects on one and was undecided on the other, so it recommends "
        "nothing.",
        soft_wrap=True,
    )
    if before := [name for name in summary["gains"] if name not in configs]:
        console.print(escape(f"On file from before: {', '.join(before)}."), soft_wrap=True)
    console.print(f"Figures: {known.output / SUMMARY}", soft_wrap=True)
    return summary
