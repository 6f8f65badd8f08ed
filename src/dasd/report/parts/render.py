"""How does content become a page? A template, everything escaped, written in one go."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dasd.report.data.rollouts import inert

ROOT = Path(__file__).parents[1]  # of templates, styles and scripts


def write_page(template: str, content: dict[str, Any], target: Path) -> Path:
    """Fills `template`, replaces the file `target` by it, and returns `target`."""
    environment = Environment(
        loader=FileSystemLoader(ROOT), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    environment.filters["inert"] = inert
    return write_whole(target, environment.get_template(template).render(content))


def write_whole(target: Path, page: str) -> Path:
    """Replaces the file `target` by `page` in one go, and returns `target`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{target.name}.tmp")
    temporary.write_bytes(page.encode("utf-8", errors="replace"))
    os.replace(temporary, target)
    return target
