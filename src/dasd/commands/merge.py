"""`dasd merge`: an adapter and its base as one plain model."""

from __future__ import annotations

import argparse

from dasd.commands.base import Commands, declare, no_overrides, path


def add(commands: Commands) -> None:
    child = declare(commands, "merge", run, "merge a trained LoRA adapter into its base: a plain model")
    child.add_argument("source", type=path, help="a run folder of dasd train, one of its checkpoints, or any adapter folder")
    child.add_argument("--output", type=path, required=True, help="folder of the merged model, new or empty")
    child.add_argument(
        "--dtype",
        choices=["auto", "float32", "bfloat16", "float16"],
        default="auto",
        help="of the weights (default: the base's)",
    )


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    no_overrides(overrides)
    from dasd.merge import merge
    from dasd.progress import console

    console.print(f"Merged model: {merge(known.source, known.output, known.dtype)}", soft_wrap=True)
