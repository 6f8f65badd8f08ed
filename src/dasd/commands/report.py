"""`dasd report`: the page of a run folder."""

from __future__ import annotations

import argparse

from dasd.commands.base import Commands, declare, no_overrides, path
from dasd.config import BadInput


def add(commands: Commands) -> None:
    child = declare(commands, "report", run, "write report.html for a run folder")
    child.add_argument("run", type=path, help="run folder")


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    no_overrides(overrides)
    from dasd.progress import console
    from dasd.report import build_report

    try:
        path = build_report(known.run)
    except ValueError as error:
        raise BadInput(str(error)) from None
    console.print(f"Report: {path}", soft_wrap=True)
