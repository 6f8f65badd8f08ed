"""Whose folder is this? A run's folder holds the config it was made with, and nobody else writes there."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel

from dasd.config import BadInput, RunFailed, dump_config, filled, validate
from dasd.config.core import read_yaml
from dasd.files import read_json, write_json, write_text

T = TypeVar("T", bound=BaseModel)
CONFIG = "config.yaml"
STEPS = "training.steps"
FAILURE = "failure.json"


def claim(output: Path, config: BaseModel, write: bool = True, may_grow: bool = False) -> None:
    """Marks the folder as this run's. Raises BadInput where it belongs to a run with other settings, or cannot say.

    may_grow  more steps than before are no other run: the folder is then marked with the new number
    """
    path = output / CONFIG
    ours = config.model_dump(mode="json")
    if path.exists():
        theirs = _on_file(path, type(config))
        changed = sorted(_differences(theirs, ours))
        if may_grow and changed == [STEPS] and ours["training"]["steps"] > theirs["training"]["steps"]:
            changed = []
        elif not changed:
            return
        if changed:
            hint = " (training.steps can be raised alone, and never lowered)" if may_grow and STEPS in changed else ""
            raise BadInput(
                f"{output} holds a run with other settings ({', '.join(changed)}){hint}: give another --output, or delete it"
            )
    if write:
        write_text(path, dump_config(config))


def as_begun(output: Path, config: T, keys: Iterable[str]) -> T:
    """`config` with what the run that the folder holds was begun with under these dotted keys: what only watches a run may be
    changed while it is under way, and the run goes on as it was. Raises BadInput as `claim` does."""
    path = output / CONFIG
    if not path.exists():
        return config
    theirs, ours = _on_file(path, type(config)), config.model_dump(mode="json")
    for *sections, name in (key.split(".") for key in keys):
        was, now = theirs, ours
        for section in sections:
            was, now = was[section], now[section]
        now[name] = was[name]
    return validate(type(config), ours)


@contextmanager
def sole_writer(path: Path, remedy: str) -> Iterator[None]:
    """Keeps other processes from writing the same file; a killed one lets go. Raises BadInput where another is at it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path.with_name(f".{path.name}.lock"), timeout=0):
            yield
    except Timeout:
        raise BadInput(f"another process is writing {path}: {remedy}") from None


@contextmanager
def failure_on_file(output: Path) -> Iterator[None]:
    """Keeps why a run failed in `output/failure.json`, which the next try takes away."""
    (output / FAILURE).unlink(missing_ok=True)
    try:
        yield
    except RunFailed as error:
        write_json(output / FAILURE, {"error": str(error), "goes_on": error.goes_on})
        raise


def fails_by_its_settings(output: Path) -> bool:
    """Whether the last try failed in a way that the same settings would meet again, such as weights that are not finite. What
    was killed, stopped, or short of memory, disk or network, was not."""
    return (read_json(output / FAILURE) or {}).get("goes_on") is False


def _on_file(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    """The config on file; settings that came after it was written have their defaults, which change nothing."""
    remedy = "mend it, give another --output, or delete the folder"
    try:
        said = read_yaml(path.read_text(encoding="utf-8"))
    except (ValueError, yaml.YAMLError) as error:
        raise BadInput(f"{path} cannot be read as YAML: {' '.join(str(error).split())}; {remedy}") from None
    if not isinstance(said, dict):
        raise BadInput(f"{path} holds no settings, got {said!r:.80}: {remedy}")
    return dict(filled(kind, said))


def _differences(first: Any, second: Any, path: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = {**first, **second}
        return [
            name for key in keys for name in _differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if first == second or path == "output" else [path]
