"""Is this folder a LoRA adapter (PEFT's format), and which base model is it an adapter of? Reads JSON only."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dasd.assets import BASE_MODELS
from dasd.config import BadInput


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").exists() and not (folder / "config.json").exists()


def base_of(folder: Path) -> tuple[str, str | None]:
    """(folder or hub id of an adapter's base, its revision). Raises BadInput where a base that was a folder is not there."""
    path = folder / "adapter_config.json"
    try:
        config: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"{path} cannot be read ({error}): was its save cut off? Give another checkpoint") from None
    name = config.get("base_model_name_or_path")
    if not name:
        raise BadInput(f"{path} does not name its base: write the base's folder or hub id as base_model_name_or_path there")
    base = Path(name).expanduser()
    if base.is_dir():
        return str(base), None
    for bundled in BASE_MODELS.values():
        if base.parts[-3:] == bundled.parts[-3:]:  # as another installation of this package had it
            return str(bundled), None
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise BadInput(
            f"the base of {folder} is not there: base_model_name_or_path in its adapter_config.json is {name}. Put the base "
            "back, or write where it is now into that file"
        )
    return name, config.get("revision")
