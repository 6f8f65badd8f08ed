"""Whose folder is this? A run's folder holds the config it was made with, and no other run writes there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from dasd.config import BadInput, dump_config
from dasd.files import write_text


def claim(output: Path, config: BaseModel, write: bool = True) -> None:
    """Marks the folder as this run's. Raises BadInput where it belongs to a run with other settings."""
    path = output / "config.yaml"
    if path.exists():
        theirs, ours = yaml.safe_load(path.read_text(encoding="utf-8")), config.model_dump(mode="json")
        changed = sorted(_differences(theirs, ours))
        if changed:
            raise BadInput(
                f"{output} holds a run with other settings ({', '.join(changed)}): give another --output, or delete it"
            )
    elif write:
        write_text(path, dump_config(config))


def _differences(first: Any, second: Any, path: str = "") -> list[str]:
    if isinstance(first, dict) and isinstance(second, dict):
        keys = {**first, **second}
        return [
            name for key in keys for name in _differences(first.get(key), second.get(key), f"{path}.{key}" if path else key)
        ]
    return [] if first == second or path == "output" else [path]
