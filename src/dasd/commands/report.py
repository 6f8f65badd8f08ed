"""`dasd report`: the page of a run folder."""

from __future__ import annotations

import argparse
import time

from dasd.commands.base import Commands, declare, no_overrides, path
from dasd.config import BadInput

SECONDS_BETWEEN_LOOKS = 5.0


def add(commands: Commands) -> None:
    child = declare(commands, "report", run, "write report.html for a run folder")
    child.add_argument("run", type=path, help="run folder")
    child.add_argument(
        "--watch", action="store_true", help="write it again whenever the run has moved on, until the run has ended or failed"
    )


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    no_overrides(overrides)
    from dasd.folders import FAILURE
    from dasd.progress import console
    from dasd.report import build_report
    from dasd.report.data.inputs import is_finished, last_change

    def has_ended() -> bool:
        return is_finished(known.run) or (known.run / FAILURE).is_file()

    try:
        live = known.watch and not has_ended()
        path = build_report(known.run, live)
        console.print(f"Report: {path}", soft_wrap=True)
        while live:
            seen = last_change(known.run)
            while last_change(known.run) == seen and not has_ended():
                time.sleep(SECONDS_BETWEEN_LOOKS)
            live = not has_ended()
            build_report(known.run, live)
    except KeyboardInterrupt:  # how one stops watching
        build_report(known.run)
    except ValueError as error:
        raise BadInput(str(error)) from None
