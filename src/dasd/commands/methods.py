"""`dasd methods`: what can stand after `method.name`, and what each can be told."""

from __future__ import annotations

import argparse
from typing import Any

from dasd.commands.base import Commands, declare, no_overrides
from dasd.config import BadInput, nearest


def add(commands: Commands) -> None:
    child = declare(commands, "methods", run, "list the methods, or one method's rule and settings", figures=True)
    child.add_argument("name", nargs="?", help="a method")


def run(known: argparse.Namespace, overrides: list[str]) -> dict[str, Any]:
    no_overrides(overrides)
    import inspect

    from dasd.credit import METHODS
    from dasd.presets import PRESETS
    from dasd.progress import console
    from dasd.report.data.methods import describe_method, formula_of, settings_of

    if known.name is not None and known.name not in METHODS:
        raise BadInput(f"unknown method {known.name!r}{nearest(known.name, list(METHODS))} Methods: {', '.join(METHODS)}")
    names = [known.name] if known.name else list(METHODS)
    for name in names:
        title, explanation = describe_method(name)
        console.print(f"{name}", style="bold", end="")
        console.print(f"  {title}: {explanation}", soft_wrap=True)
        if known.name:
            if formula := formula_of(METHODS[name]):
                console.print(f"    {formula}", soft_wrap=True)
            for setting, value in settings_of(METHODS[name]).items():
                console.print(f"  --method.{setting:<24} [{value}]", soft_wrap=True)
            for section, values in PRESETS.get(name, {}).items():
                for key, value in values.items():
                    console.print(f"  --{section}.{key:<24} {value}, set by this method", soft_wrap=True)
            console.print(f"\n{inspect.getdoc(METHODS[name])}", soft_wrap=True)  # says what each setting means
    if not known.name:
        console.print("\ndasd methods NAME lists a method's settings; formulas and sources: docs/method.md", soft_wrap=True)
    return {
        name: {"title": describe_method(name)[0], "rule": formula_of(METHODS[name]), "settings": settings_of(METHODS[name]),
               "preset": PRESETS.get(name, {})}
        for name in names
    }  # fmt: skip
