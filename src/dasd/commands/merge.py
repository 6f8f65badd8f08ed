"""`dasd merge`: an adapter and its base as one plain model."""

from __future__ import annotations

import argparse

from dasd.commands.base import Commands, declare, no_overrides, path


def add(commands: Commands) -> None:
    child = declare(commands, "merge", run, "merge a trained LoRA adapter into its base: a plain model")
    child.add_argument("source", type=path, help="a run folder of dasd train, one of its checkpoints, or any adapter folder")
    child.add_argument("--output", type=path, required=True, help="folder of the merged model, new or empty")


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    no_overrides(overrides)
    from dasd.merge import merge
    from dasd.progress import console

    console.print(f"Merged model: {merge(known.source, known.output)}", soft_wrap=True)
