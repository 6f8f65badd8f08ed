"""What does a study say? One page from `study.json`: what is supported, the table, differences, curves, search, cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dasd.report.data.metrics import MINUS, UNKNOWN
from dasd.report.figures import study as figures
from dasd.report.figures.panel import Panel
from dasd.report.parts.render import write_page

Record = dict[str, Any]
STYLES = {"above": "clear better", "below": "clear worse"}


def build_study_page(found: Record, target: Path) -> Path:
    """Writes the page `target` and returns it. `found`: `dasd.study.results.results`."""
    return write_page("pages/study.html.j2", _content(found), target)


def _content(found: Record) -> Record:
    rows, done = found["results"], found["progress"]
    of_task = {task: [row for row in rows if row["task"] == task] for task in found["tasks"]}
    pairs = [pair for part in of_task.values() for pair in _pairs(part)]
    learning = [
        figures.learning(pair, name, f"{name}-{place}") for name in figures.LINE_TITLES for place, pair in enumerate(pairs)
    ]
    aggregate = [arm for arm in found["aggregate"] if arm["runs"]]
    named = [
        ("steps, the last evaluated", found["steps"]),
        ("split", found["split"]),
        ("samples a problem", found["num_samples"]),
    ]
    return {
        "title": Path(found["study"]).parent.resolve().name or found["study"],
        "facts": [
            ("cells", f"{done['done']} of {done['cells']} done" + (f", {done['failed']} failed" if done["failed"] else "")),
            ("reference", found["reference"]),
            ("seeds", ", ".join(map(str, found["seeds"]))),
            *named,
            ("plan", f"{found['plan']['sha256'][:8]}, first run {(found['plan']['first'] or {}).get('at', 'not yet')}"),
            ("made", f"{found['made']}, dasd {found['version']}"),
        ],
        "findings": found["findings"],
        "effects": [_effect(entry) for entry in found["minimum_effect"]],
        "reference": found["reference"],
        "samples": found["num_samples"],
        "rows": [_row(row) for row in rows],
        "forests": [
            figures.forest(known, found["reference"], f"forest-{place}")
            for place, part in enumerate(of_task.values())
            if (known := [row for row in part if row["difference"]])
        ],
        "curves": [figures.pass_at_k(pair, f"pass-{at}") for at, pair in enumerate(pairs) if len(pair[-1]["pass_at_k"]) > 1],
        "learning": [panel for panel in learning if isinstance(panel, Panel)],
        "aggregate": [(arm["arm"], arm["runs"], _interval(arm["interquartile_mean"])) for arm in aggregate],
        "profile": figures.profiles(aggregate, found["thresholds"]) if aggregate else None,
        "choices": [_choice(choice) for choice in found["choices"]],
        "cells": [_cell(cell) for cell in found["cells"]],
        "deviations": found["deviations"],
    }  # fmt: skip


def _pairs(rows: list[Record]) -> list[list[Record]]:
    """Each arm after the reference, of those that have runs; the reference alone where it is all there is."""
    known = [row for row in rows if row["seeds"]]
    reference = [row for row in known if row["is_reference"]]
    others = [row for row in known if not row["is_reference"]]
    return [[*reference, row] for row in others] or ([reference] if reference else [])


def _row(row: Record) -> Record:
    difference = row["difference"]
    change, ends, resampled, p = UNKNOWN, "", "", ""
    if difference:
        change = _signed(difference["mean"])
        ends = f"[{_signed(difference['low'])}, {_signed(difference['high'])}]"
        resampled = f"[{', '.join(_signed(end) for end in difference['resampled'])}]"
        p = "<0.0001" if difference["p_holm"] < 0.0001 else f"{difference['p_holm']:.4f}"
    return {
        "task": row["task"],
        "arm": row["arm"],
        "seeds": ", ".join(map(str, row["seeds"])) or UNKNOWN,
        "value": _interval(row["value"]),
        "change": change,
        "ends": ends,
        "resampled": resampled,
        "p": p,
        "verdict": row["verdict"],
        "style": STYLES.get(row["verdict"], ""),
    }


def _interval(value: Record | None) -> tuple[str, str]:
    if value is None:
        return UNKNOWN, ""
    return f"{value['mean']:.3f}", "" if value["low"] != value["low"] else f"[{value['low']:.3f}, {value['high']:.3f}]"


def _signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", MINUS)


def _effect(entry: Record) -> tuple[str, str]:
    if entry["effect"] is None:
        return entry["task"], "unknown until two seeds of the reference are done"
    return entry[
        "task"
    ], f"{entry['effect']:.3f} ({entry['seeds']} seeds, {entry['problems']} problems, {entry['comparisons']} comparisons)"


def _choice(choice: Record) -> Record:
    tried = "; ".join(
        f"{_settings(row['settings'])}: {UNKNOWN if row['mean'] is None else format(row['mean'], '.3f')}"
        for row in choice["candidates"]
    )
    return {
        "task": choice["task"],
        "arm": choice["arm"],
        "chosen": _settings(choice["chosen"]) if choice["chosen"] else UNKNOWN,
        "tried": tried,
    }


def _settings(settings: Record) -> str:
    return ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in settings.items())


def _cell(cell: Record) -> Record:
    score = "" if cell["score"] is None else f"{cell['score']:.3f}"
    seconds = "" if cell["seconds"] is None else f"{cell['seconds']:.0f} s"
    return {"name": cell["name"], "state": cell["state"], "why": cell["why"] or "", "score": score, "seconds": seconds}
