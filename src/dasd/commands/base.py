"""What every command's file uses to declare itself. A command is a file here with `add` and `run`, named in `cli.COMMANDS`."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

from dasd.config import BadInput
from dasd.config.core import home_expanded

Commands = Any  # argparse's object for subcommands, whose class has no public name


def declare(
    commands: Commands, name: str, run: Callable, help: str, settings: type[BaseModel] | None = None, *,
    defaults: BaseModel | None = None, several_processes: bool = False, figures: bool = False,
) -> argparse.ArgumentParser:  # fmt: skip
    """The command's parser; its help lists every setting, with the values of `defaults` where the command has its own.

    `run(known, overrides)` gets the parsed arguments and the rest of the command line. It returns an exit code, or nothing, or
    of a command that prints `figures` a mapping of them (an `exit_code` among them), which `--json` prints alone.
    """
    epilog = f"settings, given as --key VALUE:\n{list_settings(defaults or settings())}" if settings else None
    child: argparse.ArgumentParser = commands.add_parser(
        name, help=help, description=help, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    child.set_defaults(command=run, several_processes=several_processes)
    if figures:
        child.add_argument(
            "--json", action="store_true", help="print the figures as JSON on standard output, all else on error"
        )
    if settings and "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
        for setting in walk(defaults or settings()):
            child.add_argument(f"--{setting.key}", help=setting.description, choices=setting.choices)
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


class Setting(NamedTuple):
    """One setting of a config: its dotted key, and its value there."""

    key: str
    value: Any
    description: str
    choices: tuple[Any, ...] | None


def walk(config: BaseModel, prefix: str = "") -> Iterator[Setting]:
    """Every setting of a config, nested ones with their dots."""
    for name, field in type(config).model_fields.items():
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from walk(value, f"{prefix}{name}.")
        else:
            choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else None
            yield Setting(prefix + name, value, field.description or "", choices)


def list_settings(config: BaseModel) -> str:
    """One line for each setting, with its default as it could be typed."""
    lines = []
    for key, value, description, choices in walk(config):
        one_of = f" ({', '.join(map(str, choices))})" if choices else ""
        lines.append(f"  --{key:<34} {description}{one_of} [{_typed(value)}]")
    return "\n".join(lines)


def _typed(default: Any) -> str:
    if isinstance(default, tuple | list):
        return ",".join(map(_typed, default))
    return default if isinstance(default, str) else json.dumps(default)
