"""How does a folder with `rollouts.json` become the token map? As a page of its own, and as a part of a run's report."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from markupsafe import Markup

from dasd.report.data.inputs import RunFiles, method_settings, read_run
from dasd.report.data.methods import describe_method
from dasd.report.data.rollouts import MAX_BYTES, script_data, token_map
from dasd.report.parts.render import ROOT, write_page

PAGE = "tokens.html"


def build_token_map(folder: Path) -> Path:
    """Writes `folder/tokens.html` from the `rollouts.json` there and returns its path. Raises ValueError as `build_report`."""
    return write_page("pages/tokens.html.j2", _content(read_run(Path(folder))), Path(folder) / PAGE)


def _content(files: RunFiles) -> dict[str, Any]:
    rollouts = files.rollouts or {}
    title, explanation = describe_method(str(rollouts.get("method") or method_settings(files).get("name") or ""))
    return {
        "title": title,
        "explanation": explanation,
        "note": rollouts.get("note") or "",
        "facts": _facts(rollouts),
        **map_content(files),
    }


def _facts(rollouts: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, str(rollouts[name])) for name in ("model", "data", "made") if rollouts.get(name)]


def map_content(files: RunFiles, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """The token map, its script, and a policy under which that script runs, no other, and nothing is fetched."""
    found = token_map(files.rollouts or {}, max_bytes)
    script = (ROOT / "parts" / "token_map.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return {
        "tokens": None if found is None else script_data(found),
        "taught": found is not None and found["taught"],
        "tokens_left_out": 0 if found is None else found["left_out"],
        "token_script": Markup(script),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
    }
