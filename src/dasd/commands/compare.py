"""`dasd compare`: any number of evaluations on the same problems."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from dasd.commands.base import Commands, declare, no_overrides, path
from dasd.config import BadInput


def add(commands: Commands) -> None:
    child = declare(commands, "compare", run, "compare evaluated runs, problem by problem", figures=True)
    child.add_argument(
        "runs", nargs="+", metavar="RUN",
        help="folder of dasd eval or dasd quickstart, or samples of lm-eval or a log of inspect_ai; NAME=RUN names it, "
        "NAME=RUN,RUN are seeds of one run; all are compared with the first",
    )  # fmt: skip
    child.add_argument("--group", choices=["seeds"], help="put runs together that were trained alike but for the seed")
    child.add_argument(
        "--output", type=path, default=Path("runs/compare"), help="folder for comparison.html, .csv, summary.json"
    )


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    no_overrides(overrides)
    from dasd.evaluation.compare import as_csv, compare_runs
    from dasd.evaluation.examples import examples
    from dasd.evaluation.groups import read_groups
    from dasd.evaluation.tables import comparison_tables
    from dasd.files import write_json, write_text
    from dasd.progress import console, print_table
    from dasd.report import build_comparison

    groups = read_groups(known.runs, known.group)
    if len(groups) < 2:
        raise BadInput(f"one run ({groups[0].name}) has nothing to be compared with: give two or more")
    result = compare_runs(groups)
    write_json(known.output / "summary.json", result)
    write_text(known.output / "comparison.csv", as_csv(result))
    page = build_comparison(result, examples(*(group.runs[0] for group in groups)), known.output / "comparison.html")
    for place, who in enumerate(result["runs"]):
        seeds = f", {len(who['paths'])} seeds" if len(who["paths"]) > 1 else ""
        about = f"{who['model']}{seeds} ({', '.join(who['paths'])})"
        console.print(f"{ascii_uppercase[place % 26]}: {who['name']}: {about}", soft_wrap=True)
    for table in comparison_tables(result):
        print_table(table)
    for entry in result["benchmarks"]:
        for setting, values in entry["settings_differ"].items():
            told = ", ".join(json.dumps(value) for value in values)
            console.print(f"{entry['name']}: {setting} differs: {told}", style="yellow", soft_wrap=True)
    console.print(f"Page: {page}\nFigures: {known.output}/summary.json, {known.output}/comparison.csv", soft_wrap=True)
    return result
