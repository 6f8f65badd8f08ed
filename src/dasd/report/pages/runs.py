"""Which runs are in a folder? One page to sort, filter and click through, from the records of `dasd runs`."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from dasd.report.data.inputs import mapping, number
from dasd.report.data.metrics import COUNT, RATE, UNKNOWN, Unit, describe
from dasd.report.parts.render import ROOT, write_page

PAGE = "runs.html"
_EXTRA = {"reward": ("Reward", COUNT), "teacher_share": ("Teacher's share", RATE)}  # logged, not evaluated


@dataclass(frozen=True)
class Cell:
    """What a cell shows, and what it is sorted by; `small` stands below."""

    text: str
    sort: Any
    small: str = ""
    style: str = ""


def build_runs_page(runs: list[dict[str, Any]], folder: Path) -> Path:
    """Writes `folder/runs.html` and returns it. `runs`: `dasd.runs.list_runs(folder)`."""
    script = (ROOT / "pages" / "runs.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    figures = columns(runs)
    content = {
        "folder": str(folder),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "runs": [
            {
                "name": run["path"],
                "link": quote(run["page"]) if run.get("page") else None,
                "state": run["state"],
                "why": run.get("why") if run["state"] in ("failed", "unreadable") else None,
                "cells": [*_facts(run), *(figure_cell(run, name) for name in figures)],
            }
            for run in runs
        ],
        "heads": ["Method", "Model", "Data", "Seed", "Steps", "Last change", *(_label(name) for name in figures)],
        "states": {state: sum(run["state"] == state for run in runs) for state in dict.fromkeys(run["state"] for run in runs)},
        "script": Markup(script),
        "policy": f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src 'sha256-{digest}'",
    }
    return write_page("pages/runs.html.j2", content, folder / PAGE)


def columns(runs: list[dict[str, Any]]) -> list[str]:
    """The figures that runs have, Avg@k under one head whatever k is, in a fixed order."""
    present = {_column(name) for run in runs for name in mapping(run.get("figures"))}
    order = ("reward", "avg_at_k", "truncated", "mean_length", "teacher_share")
    return [name for name in order if name in present]


def figure_cell(run: dict[str, Any], column: str) -> Cell:
    """A run's figure with its interval, and for the first one what changed from before training."""
    name, figure = next(
        ((name, mapping(found)) for name, found in mapping(run.get("figures")).items() if _column(name) == column), ("", {})
    )
    unit, mean = _unit(name), number(figure.get("mean"))
    if mean != mean:
        return Cell(UNKNOWN, "")
    change, small, style = mapping(run.get("change")), "", ""
    if change.get("figure") == name:
        moved = number(change.get("mean"))
        small = f"{unit.write(moved, sign=True)}{unit.difference_suffix}"
        style = "" if not change.get("clear") else "clear better" if moved > 0 else "clear worse"
    elif number(figure.get("low")) == number(figure.get("low")):
        small = f"[{unit.write(number(figure.get('low')))}, {unit.write(number(figure.get('high')))}]"
    return Cell(unit.write(mean) + unit.suffix, mean, small, style)


def _facts(run: dict[str, Any]) -> list[Cell]:
    settings = ", ".join(f"{name} {value}" for name, value in mapping(run.get("settings")).items())
    steps, planned = number(run.get("steps")), number(run.get("planned"))
    made = UNKNOWN if steps != steps else f"{steps:,.0f}" + (f" of {planned:,.0f}" if planned == planned else "")
    changed = number(run.get("changed"))
    when = datetime.fromtimestamp(changed, UTC).strftime("%Y-%m-%d %H:%M") if changed == changed else UNKNOWN
    seed = run.get("seed")
    return [
        Cell(str(run.get("method") or run.get("kind")), str(run.get("method") or ""), settings),
        Cell(str(run.get("model") or UNKNOWN), str(run.get("model") or "")),
        Cell(str(run.get("data") or UNKNOWN), str(run.get("data") or "")),
        Cell(UNKNOWN if seed is None else str(seed), "" if seed is None else seed),
        Cell(made, "" if steps != steps else steps),
        Cell(when, "" if changed != changed else changed),
    ]


def _column(name: str) -> str:
    return "avg_at_k" if name.startswith("avg_at_") else name


def _label(column: str) -> str:
    if column == "avg_at_k":
        return "Avg@k"
    return _EXTRA[column][0] if column in _EXTRA else describe(column).label


def _unit(name: str) -> Unit:
    return _EXTRA[name][1] if name in _EXTRA else describe(name).unit
