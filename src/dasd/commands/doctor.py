"""`dasd doctor`: is everything in order before a run?"""

from __future__ import annotations

import argparse

from dasd.assets import QUICKSTART
from dasd.commands.base import Commands, declare, path
from dasd.config import RunConfig, load_config


def add(commands: Commands) -> None:
    child = declare(commands, "doctor", run, "check environment, config and data before a run", RunConfig)
    child.add_argument("config", type=path, nargs="?", help="YAML file; without one, the quickstart's")


def run(known: argparse.Namespace, overrides: list[str]) -> int:
    config = load_config(RunConfig, known.config or QUICKSTART, overrides)
    from dasd.doctor import examine

    return examine(config)
