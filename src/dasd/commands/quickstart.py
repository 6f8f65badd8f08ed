"""`dasd quickstart`: the whole job on the bundled model."""

from __future__ import annotations

import argparse
from typing import Any

from dasd.assets import QUICKSTART
from dasd.commands.base import Commands, declare
from dasd.config import RunConfig, load_config


def add(commands: Commands) -> None:
    declare(
        commands, "quickstart", run, "evaluate the bundled model, train it, evaluate again, report", RunConfig,
        defaults=load_config(RunConfig, QUICKSTART), figures=True,
    )  # fmt: skip


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    config = load_config(RunConfig, QUICKSTART, overrides)
    from dasd.quickstart import quickstart

    return quickstart(config)
