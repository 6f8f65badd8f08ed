"""`dasd init`: a config to start from."""

from __future__ import annotations

import argparse
from pathlib import Path

from dasd.commands.base import Commands, declare, path
from dasd.config import BadInput


def add(commands: Commands) -> None:
    child = declare(commands, "init", run, "write a config to start from, with every setting and its meaning")
    child.add_argument("recipe", nargs="?", help="which one; without it the recipes are listed")
    child.add_argument("--output", type=path, default=Path("dasd.yaml"), help="file to write (default: dasd.yaml)")


def run(known: argparse.Namespace, overrides: list[str]) -> None:
    from dasd.files import write_text
    from dasd.progress import console
    from dasd.recipe_files import in_a_line, recipes, written_out

    if known.recipe is None:
        if overrides:
            raise BadInput(f"unexpected argument {overrides[0]!r}: name the recipe that it is to change")
        for name, file in recipes().items():
            console.print(f"{name:<28} {in_a_line(file)}", soft_wrap=True)
        console.print("\ndasd init RECIPE writes one to dasd.yaml; dasd doctor dasd.yaml checks it.")
        return
    text = written_out(known.recipe, overrides)
    if known.output.exists():
        raise BadInput(f"{known.output} is there already: give another --output")
    write_text(known.output, text)
    console.print(f"Written: {known.output}\nNext: dasd doctor {known.output}", soft_wrap=True)
