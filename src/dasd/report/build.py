"""How does a run folder become a page? Reads the folder's files, draws, fills the template, writes `report.html` in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from dasd.report.curves import bin_width, edges, mean
from dasd.report.figures import comparison_panels, gap_panels, pass_at_k_panel, training_panels
from dasd.report.inputs import RunFiles, Series, mapping, number, read_run
from dasd.report.metrics import MINUS, UNKNOWN
from dasd.report.render import write_page
from dasd.report.results import Row, pass_at_k_rows, result_rows
from dasd.report.rollouts import inert, show_rollouts

PAGE = "report.html"

# What each method does, for a reader who has not met it.
_METHODS = {
    "dasd": (
        "Direction-Adaptive Self-Distillation (DASD)",
        "The student is pulled toward a teacher that has seen the solution where it is sure, and pushed away from it where it "
        "is undecided, on top of the verifier's reward.",
    ),
    "grpo": (
        "GRPO",
        "Answers to one problem are compared; every token of an answer gets the same credit, and there is no teacher.",
    ),
    "conformity": ("Conformity", "Every token is pulled toward a teacher that has seen the solution, on top of the reward."),
    "novelty": ("Novelty", "Every token is pushed away from a teacher that has seen the solution, on top of the reward."),
    "fork_only": (
        "Fork-only",
        "Undecided tokens are pushed away from a teacher that has seen the solution; the others ignore it.",
    ),
    "scaffold_only": (
        "Scaffold-only",
        "Sure tokens are pulled toward a teacher that has seen the solution; the others ignore it.",
    ),
}
_NO_METHOD = ("A training run", "How a policy changed in training, and what its teacher did to its tokens.")


@dataclass(frozen=True)
class MetricLine:
    """A logged metric in five numbers, as text."""

    name: str
    first: str
    last: str
    lowest: str
    highest: str


def build_report(run_dir: Path) -> Path:
    """Writes `run_dir/report.html` from the files there and returns its path.

    Missing files leave their section with a sentence. Raises ValueError where `run_dir` does not exist, holds no file of a
    run, or one of them is broken.
    """
    files = read_run(Path(run_dir))
    return write_page("page.html.j2", _content(files), Path(run_dir) / PAGE)


def _content(files: RunFiles) -> dict[str, Any]:
    method = _method(files)
    name = str(method.get("name", ""))
    title, explanation = _METHODS.get(name, (name, _NO_METHOD[1]) if name else _NO_METHOD)
    summary, series = files.summary or {}, files.series
    rows, curve = result_rows(summary), pass_at_k_rows(summary)
    rollouts, scale = show_rollouts(files.rollouts or {})
    return {
        "title": title,
        "explanation": explanation,
        "settings": {key: value for key, value in method.items() if key != "name"},
        "headline": _headline(rows, summary),
        "evaluated": _evaluated(summary),
        "cards": [row for row in rows if row.card],
        "rows": rows,
        "num_steps": 0 if series is None else len(series["step"]),
        "steps_a_point": 0 if series is None else bin_width(len(series["step"])),
        "training": [] if series is None else training_panels(series),
        "gaps": [] if series is None else gap_panels(series),
        "metric_lines": [] if series is None else _metric_lines(series),
        "comparison": comparison_panels(rows),
        "pass_at_k": pass_at_k_panel(curve),
        "curve": curve,
        "rollouts": rollouts,
        "rollouts_note": inert((files.rollouts or {}).get("note") or ""),
        "full_color": f"{scale:.2f}" if scale else "",
        "run": [(key, _lines(value)) for key, value in (files.run or {}).items()],
        "config": files.config,
    }


def _method(files: RunFiles) -> dict[str, Any]:
    """The `method` section of the config; empty where it cannot be read."""
    try:
        config = yaml.safe_load(files.config or "")
    except (yaml.YAMLError, RecursionError):
        return {}
    method = mapping(config).get("method")
    return {"name": method} if isinstance(method, str) else mapping(method)


def _headline(rows: list[Row], summary: dict[str, Any]) -> str:
    """The first figure in one sentence; it says "rose" or "fell" only where the interval of the difference excludes 0."""
    row = rows[0] if rows else None
    if row is None or not (row.before.known and row.after.known):
        return ""
    verb = "went"
    if row.difference.excludes_zero:
        verb = "rose" if row.difference.mean > 0 else "fell"
    change = row.change()
    if row.difference.bounded:
        change += f", 95 % interval {row.interval('difference')}"
        if not row.difference.excludes_zero:
            change += ", which includes 0"
    return f"{row.label} {verb} from {row.plain('before')} to {row.plain('after')} ({change})."


def _evaluated(summary: dict[str, Any]) -> str:
    """On what, and how long it took, as far as the summary tells."""
    problems, samples, wall = (number(summary.get(key)) for key in ("num_problems", "num_samples", "wall_s"))
    parts = [
        f"{problems:,.0f} problems" if problems == problems else "",
        f"{samples:,.0f} samples each" if samples == samples else "",
    ]
    parts.append(f"the whole job took {wall:,.0f} s" if wall == wall else "")
    return ", ".join(part for part in parts if part)


def _metric_lines(series: Series) -> list[MetricLine]:
    first, last = edges(len(series["step"]))
    lines = []
    for name, values in series.items():
        finite = values[np.isfinite(values)]
        if name != "step" and finite.size:
            numbers = (mean(values[first]), mean(values[last]), finite.min(), finite.max())
            lines.append(MetricLine(name, *(_short(float(value)) for value in numbers)))
    return lines


def _short(value: float) -> str:
    return UNKNOWN if value != value else f"{value:.4g}".replace("-", MINUS)


def _lines(value: Any) -> list[str]:
    """A value of run.json as lines of text: one line a key for a mapping, one an item for a list."""
    if isinstance(value, dict):
        return [f"{key} {item}" for key, item in value.items()]
    return [str(item) for item in value] if isinstance(value, list) else [UNKNOWN if value is None else str(value)]
