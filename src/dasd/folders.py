"""Whose folder is this? A run's folder holds the config it was made with, and nobody else writes there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout
from pydantic import BaseModel

from dasd.config import BadInput, RunFailed, dump_config, filled
from dasd.files import write_json, write_text

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
        write_json(output / FAILURE, {"error": str(error)})
        raise


def _on_file(path: Path, kind: type[BaseModel]) -> dict[str, Any]:
    """The config on file; settings that came after it was written have their defaults, which change nothing."""
    remedy = "mend it, give another --output, or delete the folder"
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
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
