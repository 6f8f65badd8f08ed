"""`dasd compare`: two evaluations on the same problems."""

from __future__ import annotations

import argparse
from pathlib import Path

from dasd.commands.base import Commands, declare, no_overrides, path


def add(commands: Commands) -> None:
    child = declare(commands, "compare", run, "compare two evaluated runs, problem by problem", figures=True)
    child.add_argument("run_a", type=path, help="folder that dasd eval wrote for one model")
    child.add_argument("run_b", type=path, help="another one, on the same benchmarks")
    child.add_argument(
        "--output", type=path, default=Path("runs/compare"), help="folder for comparison.html, .csv, summary.json"
    )


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    no_overrides(overrides)
    from dasd.evaluation.compare import as_csv, compare_runs, read_run
    from dasd.evaluation.examples import examples
    from dasd.evaluation.tables import comparison_tables
    from dasd.files import write_json, write_text
    from dasd.progress import console
    from dasd.report import build_comparison

    run_a, run_b = read_run(known.run_a), read_run(known.run_b)
    result = compare_runs(run_a, run_b)
    write_json(known.output / "summary.json", result)
    write_text(known.output / "comparison.csv", as_csv(result))
    page = build_comparison(result, examples(run_a, run_b), known.output / "comparison.html")
    for side in ("a", "b"):
        console.print(f"{side.upper()}: {result[side]['model']} ({result[side]['path']})", soft_wrap=True)
    for table in comparison_tables(result):
        console.print(table)
    for entry in result["benchmarks"]:
        for setting, values in entry["settings_differ"].items():
            console.print(f"{entry['name']}: {setting} differs, {values[0]} and {values[1]}", style="yellow", soft_wrap=True)
    console.print(f"Page: {page}\nFigures: {known.output}/summary.json, {known.output}/comparison.csv", soft_wrap=True)
