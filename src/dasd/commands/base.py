"""What every command's file uses to declare itself. A command is a file here with `add` and `run`, named in `cli.COMMANDS`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

from pydantic import BaseModel

from dasd.config import BadInput
from dasd.config.core import home_expanded

Commands = Any  # argparse's object for subcommands, whose class has no public name


def declare(
    commands: Commands, name: str, run: Callable, help: str, settings: type[BaseModel] | None = None, *,
    defaults: BaseModel | None = None, several_processes: bool = False,
) -> argparse.ArgumentParser:  # fmt: skip
    """The command's parser; its help lists every setting, with the values of `defaults` where the command has its own.

    `run(known, overrides)` gets the parsed arguments and the rest of the command line, and may return an exit code.
    """
    epilog = f"settings, given as --key VALUE:\n{list_settings(settings, defaults=defaults)}" if settings else None
    child: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    child.set_defaults(command=run, several_processes=several_processes)
    return child


def path(text: str) -> Path:
    """A path on the command line, `~` expanded: a shell does not do so in --output=~/x."""
    try:
        return Path(home_expanded(text))
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def no_overrides(overrides: list[str]) -> None:
    if overrides:
        raise BadInput(f"unexpected argument {overrides[0]!r}")


def list_settings(section: type[BaseModel], prefix: str = "", defaults: BaseModel | None = None) -> str:
    """One line for each setting, nested ones with their dots, each with its default as it could be typed."""
    lines, values = [], defaults or section()
    for name, field in section.model_fields.items():
        inner, default = field.annotation, getattr(values, name)
        if isinstance(default, BaseModel):
            lines.append(list_settings(type(default), f"{prefix}{name}.", default))
            continue
        choices = f" ({', '.join(map(str, get_args(inner)))})" if str(inner).startswith("typing.Literal") else ""
        lines.append(f"  --{prefix + name:<34} {field.description}{choices} [{_typed(default)}]")
    return "\n".join(lines)


def _typed(default: Any) -> str:
    if isinstance(default, tuple | list):
        return ",".join(map(_typed, default))
    return default if isinstance(default, str) else json.dumps(default)
