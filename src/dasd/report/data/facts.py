"""What is this run about? Model, data, date and state in a line each, for the top of a page and for a table of runs."""

from __future__ import annotations

from typing import Any

from dasd.report.data.inputs import RunFiles, mapping, number, settings


def run_facts(files: RunFiles) -> list[tuple[str, str]]:
    """Label and value of what is known."""
    config, run = settings(files), files.run or {}
    training, model = mapping(config.get("training")), mapping(config.get("model"))
    steps = 0 if files.series is None else int(files.series["step"][-1])
    planned = number(training.get("steps"))
    wall = number((files.summary or {}).get("wall_s"))
    known = {
        "model": _text(model.get("path") or run.get("model")) + _at(model.get("revision")),
        "data": data_line(mapping(config.get("data"))) or _text(run.get("dataset")),
        "started": _text(run.get("started"))[:16].replace("T", " "),
        "steps": f"{steps:,} of {planned:,.0f}" if planned == planned and steps else "",
        "seed": _text(training.get("seed", run.get("seed"))),
        "whole job": f"{wall:,.0f} s" if wall == wall else "",
    }
    return [(name, value) for name, value in known.items() if value]


def data_line(data: dict[str, Any]) -> str:
    """Which problems, in a few words."""
    source, task, split = sources_of(data), _text(data.get("task")), _text(data.get("split"))
    if not source:
        return ""
    named = f"{task} (bundled)" if source == "bundled" else source + _at(data.get("revision"))
    limit = number(data.get("limit"))
    return ", ".join(filter(None, [named, split, f"first {limit:,.0f}" if limit == limit else ""]))


def sources_of(data: dict[str, Any]) -> str:
    """Where the problems come from, of several sources each; empty where nothing is said."""
    several = data.get("sources")
    if isinstance(several, list) and several:
        return ", ".join(_text(mapping(each).get("source")) for each in several)
    return _text(data.get("source"))


def _at(revision: Any) -> str:
    return f" at {revision}" if revision else ""


def _text(value: Any) -> str:
    return "" if value is None else str(value)
