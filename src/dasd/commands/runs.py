"""`dasd runs`: what is in a folder of runs."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dasd.commands.base import Commands, declare, no_overrides, path


def add(commands: Commands) -> None:
    child = declare(commands, "runs", run, "list the runs of a folder: state, settings, last figures", figures=True)
    child.add_argument("folder", type=path, nargs="?", default=Path("runs"), help="folder with runs, at any depth [runs]")


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    no_overrides(overrides)
    from rich.table import Table

    from dasd.progress import console, print_table
    from dasd.report import build_report, build_runs_page
    from dasd.report.pages.runs import columns, figure_cell
    from dasd.runs import list_runs

    runs = list_runs(known.folder)
    for each in runs:
        if each["kind"] == "training" and each["page"] is None and each["state"] != "unreadable":
            each["page"] = str(build_report(known.folder / each["path"]).relative_to(known.folder))
    page, figures = build_runs_page(runs, known.folder), columns(runs)
    shown = [name for name in ("reward", "avg_at_k") if name in figures]  # the page and --json have the others
    table = Table()
    for head in ("run", "state", "method", "model", "data", "seed", "steps"):
        table.add_column(head, overflow="fold", no_wrap=head == "state")
    for name in shown:
        table.add_column(name.replace("_at_", "@"), justify="right")
    for each in runs:
        steps = "" if each["planned"] is None else f"{each['steps']}/{each['planned']}"
        data, model = str(each["data"] or "").split(", ")[0].removesuffix(" (bundled)"), Path(str(each["model"] or "")).name
        facts = (each["path"], each["state"], each["method"] or each["kind"], model, data, each["seed"], steps)
        cells = [figure_cell(each, name) for name in shown]
        table.add_row(*("" if fact is None else str(fact) for fact in facts), *(f"{c.text} {c.small}" for c in cells))
    print_table(table)
    for each in runs:
        if each["state"] in ("failed", "unreadable"):
            console.print(f"{each['path']}: {each['why']}", style="yellow", soft_wrap=True)
    console.print(f"Page: {page}", soft_wrap=True)
    return {"folder": str(known.folder), "runs": runs}
