"""What does a study say? One page from `study.json`: what is supported, the table, differences, curves, search, cells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dasd.report.data.metrics import UNKNOWN, signed
from dasd.report.figures import study as figures
from dasd.report.figures.panel import Panel
from dasd.report.parts.render import write_page

Record = dict[str, Any]
FIGURES = {
    "step_accuracy": ("StepAcc", ".1%"),
    "epistemic_per_response": ("E(y)", ".2f"),
    "revision_rate": ("Revisions", ".1%"),
    "mean_length": ("Tokens", ".1f"),
    "truncated": ("Truncated", ".1%"),
    "no_answer": ("No answer", ".1%"),
    "distinct_trigrams_at_16": ("Dist-3@16", ".1%"),
}
STYLES = {"above": "clear better", "below": "clear worse"}


def build_study_page(found: Record, target: Path) -> Path:
    """Writes the page `target` and returns it. `found`: `dasd.study.results.results`."""
    return write_page("pages/study.html.j2", _content(found), target)


def _content(found: Record) -> Record:
    rows, done = found["results"], found["progress"]
    parts = [
        [row for row in rows if (row["task"], row["set"]) == key]
        for key in dict.fromkeys((row["task"], row["set"]) for row in rows)
    ]
    pairs = [pair for part in parts if part[0]["own"] for pair in _pairs(part)]
    learning = [
        figures.learning(pair, name, f"{name}-{place}") for name in figures.LINE_TITLES for place, pair in enumerate(pairs)
    ]
    names = {"avg": f"Avg@{found['num_samples']}", "pass": f"Pass@{found['num_samples']}"}
    aggregate = [arm for arm in found["aggregate"] if arm["runs"]]
    named = [
        ("steps, the last evaluated", found["steps"]),
        ("split", found["split"]),
        ("samples a problem", found["num_samples"]),
    ]
    return {
        "title": _title(Path(found["study"]).resolve()),
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
        "names": names,
        "parts": [
            (figures.place_of(part[0]), part[0]["own"], [_row(row, found["seeds"]) for row in part if row["seeds"]])
            for part in parts
        ],
        "described": [(part[0]["task"], *_described(part)) for part in parts if part[0]["own"]],
        "forests": [
            figures.forest(known, kind, names[kind], found["reference"], f"forest-{kind}-{place}")
            for place, part in enumerate(parts)
            for kind in names
            if (known := [row for row in part if row[kind] and row[kind]["difference"]])
        ],
        "curves": [figures.pass_at_k(pair, f"pass-{at}") for at, pair in enumerate(pairs) if len(pair[-1]["pass_at_k"]) > 1],
        "learning": [panel for panel in learning if isinstance(panel, Panel)],
        "aggregate": [(arm["arm"], arm["runs"], _interval(arm["interquartile_mean"])) for arm in aggregate],
        "profile": figures.profiles(aggregate, found["thresholds"]) if aggregate else None,
        "choices": [_choice(choice) for choice in found["choices"]],
        "cells": [_cell(cell) for cell in found["cells"]],
        "deviations": found["deviations"],
        "predictions": [_prediction(found, kind, names["avg"]) for kind in PREDICTIONS if found.get(kind)],
    }  # fmt: skip


# Kind -> heading, what the axis of predictions shows, caption.
PREDICTIONS = {
    "prediction": (
        "By forced tokens", "predicted change of correctness, points a token",
        "One mark an arm. The order counts, not the size: a prediction is of one forced token, an effect of a whole training.",
    ),
    "gain_prediction": (
        "By the first update", "first-order gain over the reference's, percent",
        "One mark an arm. The order counts, not the size: a prediction is of one update, an effect of a whole training.",
    ),
}  # fmt: skip


def _prediction(found: Record, kind: str, figure: str) -> Record:
    of, (heading, guessed, caption) = found[kind], PREDICTIONS[kind]
    rows = [
        {
            "arm": cell["arm"],
            "where": f"{cell['task']}, {cell['by']}, {cell['study']}",
            "predicted": (signed(cell["predicted"]["mean"]), _ends(cell["predicted"])),
            "measured": (signed(cell["measured"]["mean"]), _ends(cell["measured"])),
        }
        for cell in sorted(of["cells"], key=lambda cell: -cell["predicted"]["mean"])
    ]
    plot = (
        figures.calibration(of["cells"], figure, found["reference"], f"calibration-{kind}", guessed, caption) if rows else None
    )
    return {"heading": heading, "sentences": of["sentences"], "plot": plot, "rows": rows}


def _pairs(rows: list[Record]) -> list[list[Record]]:
    """Each arm after the reference, of those that have runs; the reference alone where it is all there is."""
    known = [row for row in rows if row["seeds"]]
    reference = [row for row in known if row["is_reference"]]
    others = [row for row in known if not row["is_reference"]]
    return [[*reference, row] for row in others] or ([reference] if reference else [])


def _row(row: Record, planned: list[int]) -> Record:
    """`seeds` are said where some are missing."""
    kinds = [_measure(row[kind]) for kind in ("avg", "pass") if row[kind]]
    seeds = "" if row["seeds"] == planned else f"seeds {', '.join(map(str, row['seeds']))}"
    return {"arm": row["arm"], "seeds": seeds, "kinds": kinds}


def _measure(of: Record) -> Record:
    difference, found = of["difference"], {"value": _interval(of["value"]), "verdict": of["verdict"]}
    if difference is None:
        return {**found, "change": UNKNOWN, "ends": "", "p": "", "style": ""}
    p = "<0.0001" if difference["p_holm"] < 0.0001 else f"{difference['p_holm']:.4f}"
    return {
        **found,
        "change": signed(difference["mean"]),
        "ends": _ends(difference),
        "p": p,
        "style": STYLES.get(of["verdict"], ""),
    }


def _described(part: list[Record]) -> tuple[list[str], list[tuple[str, list[tuple[str, str]]]]]:
    """Titles, and for each arm that has runs its figures: mean over seeds, least and most."""
    known = [row for row in part if row["seeds"]]
    names = [name for name in FIGURES if any(row["figures"].get(name) for row in known)]
    return [FIGURES[name][0] for name in names], [
        (row["arm"], [_figure(row["figures"].get(name), FIGURES[name][1]) for name in names]) for row in known
    ]


def _figure(of: Record | None, shown: str) -> tuple[str, str]:
    if of is None:
        return UNKNOWN, ""
    return format(of["mean"], shown), f"{of['low']:{shown}} to {of['high']:{shown}}"


def _interval(value: Record | None) -> tuple[str, str]:
    if value is None:
        return UNKNOWN, ""
    return f"{value['mean']:.3f}", "" if value["low"] != value["low"] else f"[{value['low']:.3f}, {value['high']:.3f}]"


def _ends(of: Record) -> str:
    return f"[{signed(of['low'])}, {signed(of['high'])}]"


def _title(study: Path) -> str:
    """The name of its folder, and that of the file where it has another than study.yaml: a folder may hold several."""
    named = [study.parent.name, study.stem] if study.stem != "study" else [study.parent.name]
    return ": ".join(name for name in named if name) or study.name


def _effect(entry: Record) -> tuple[str, str]:
    if entry["effect"] is None:
        return entry["task"], f"unknown, {entry['why']}"
    size = f"{entry['seeds']} seeds, {entry['problems']} problems, {entry['comparisons']} comparisons"
    return entry["task"], f"{entry['effect']:.3f} ({size})"


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
