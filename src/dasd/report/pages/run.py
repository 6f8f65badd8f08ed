"""How does a run folder become a page? Reads the folder's files, draws, fills a template, writes the page in one go."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dasd.report.data.curves import bin_width, edges, mean
from dasd.report.data.facts import run_facts
from dasd.report.data.inputs import RunFiles, Series, mapping, method_settings, number, read_run
from dasd.report.data.methods import describe_method
from dasd.report.data.metrics import MINUS, RATE, UNKNOWN
from dasd.report.data.results import Row, over_k_rows, result_rows, rival_rows
from dasd.report.data.rollouts import inert, spelled
from dasd.report.figures.panel import Panel, side_keys
from dasd.report.figures.results import comparison_panels, over_k_panel
from dasd.report.figures.teacher import class_rows, gap_panels, pressure_panels
from dasd.report.figures.training import training_panels, validation_panels
from dasd.report.pages.tokens import map_content
from dasd.report.parts.render import write_page

PAGE = "report.html"
SECONDS_TO_RELOAD = 10
LABELS = ("before", "after", "difference")
OVER_K = (
    ("pass_at_", "Pass@k", "Problems solved by at least one of k samples; curves that meet at large k suggest a surer model, "
     "not a more able one."),
    ("maj_at_", "Maj@k", "Problems whose most frequent answer of k samples is right; ties share."),
)  # fmt: skip
MAP_BYTES = 3_000_000  # of the token map's data in the report, which has figures too


@dataclass(frozen=True)
class MetricLine:
    """A logged metric in five numbers, as text."""

    name: str
    first: str
    last: str
    lowest: str
    highest: str


def build_report(run_dir: Path, live: bool = False) -> Path:
    """Writes `run_dir/report.html` from the files there and returns its path. A `live` page reloads itself.

    Missing files leave their section with a sentence. Raises ValueError where `run_dir` does not exist, holds no file of a
    run, or one of them is broken.
    """
    files = read_run(Path(run_dir))
    content = _content(files) | map_content(files, MAP_BYTES) | {"reload_s": SECONDS_TO_RELOAD if live else 0}
    return write_page("pages/run.html.j2", content, Path(run_dir) / PAGE)


def _content(files: RunFiles) -> dict[str, Any]:
    method = method_settings(files)
    name = str(method.get("name", ""))
    title, explanation = describe_method(name)
    summary, series = files.summary or {}, files.series
    rows, about = result_rows(summary), _evaluated(summary)
    against, rival = rival_rows(summary), str(mapping(summary.get("rival")).get("method", ""))
    return {
        "title": title,
        "explanation": explanation,
        "settings": {key: value for key, value in method.items() if key != "name"},
        "facts": run_facts(files),
        "contents": [
            ("result", "Result"), ("comparison", "Before and after"), ("training", "Training"),
            ("gap", "What the teacher says"), ("rollouts", "Rollouts, token by token"), ("provenance", "Make it again"),
        ],
        "headline": _headline(rows),
        "evaluated": about,
        "unlearnt": _unlearnt(files.result or {}),
        "cards": [row for row in rows if row.card],
        "share": teacher_share(series),
        "rows": rows,
        "against": against,
        "rival": describe_method(rival)[0],
        "against_in_words": _against_in_words(against, describe_method(rival)[0]),
        "minus": MINUS,
        "labels": LABELS,
        "tested": any(row.difference.p_used == row.difference.p_used for row in rows),
        "num_steps": 0 if series is None else len(series["step"]),
        "steps_a_point": 0 if series is None else bin_width(len(series["step"])),
        "validation": validation_panels(files.validation or []),
        "training": [] if series is None else training_panels(series),
        "gaps": [] if series is None else gap_panels(series) + pressure_panels(series),
        "classes": [] if series is None else class_rows(series),
        "metric_lines": [] if series is None else _metric_lines(series),
        "comparison": _panels(rows, summary, about),
        "curve": over_k_rows(summary, "pass_at_"),
        "rollouts_note": inert((files.rollouts or {}).get("note") or ""),
        "commands": _commands(files.run or {}),
        "revision": _revision(files.run or {}),
        "run": [(key, _lines(value)) for key, value in (files.run or {}).items()],
        "config": files.config,
    }  # fmt: skip


def _against_in_words(rows: list[Row], rival: str) -> str:
    """Whether the first figure tells the run apart from its rival."""
    row = rows[0] if rows else None
    if row is None or not row.difference.known:
        return ""
    found = f"{row.change()}, 95 % interval {row.change_interval()}"
    if not row.difference.clear:
        return f"{row.label}: not told apart from {rival} ({found})."
    return f"{row.label}: {'above' if row.difference.mean > 0 else 'below'} {rival} ({found})."


def _panels(rows: list[Row], summary: dict[str, Any], about: str) -> list[Panel]:
    """Shares, counts, and the figures over k."""
    keys = side_keys(LABELS[:2])
    panels: list[Panel | None] = [*comparison_panels(rows, keys, about)]
    for prefix, title, caption in OVER_K:
        caption = f"{caption} Bands are 95 % intervals.{f' {about}.' if about else ''}"
        panels.append(over_k_panel(over_k_rows(summary, prefix), keys, title, caption, prefix.replace("_", "-") + "k"))
    return [panel for panel in panels if panel is not None]


def teacher_share(series: Series | None) -> tuple[str, str, str] | None:
    """The teacher's share of all credit: over the run, and over its first and last tenth; None where it was not logged."""
    if series is None or "credit/teacher" not in series:
        return None
    values, parts = series["credit/teacher"], edges(len(series["step"]))
    whole, first, last = (RATE.write(number) + RATE.suffix for number in (mean(values), *(mean(values[p]) for p in parts)))
    return whole, first, last


def _commands(run: dict[str, Any]) -> list[tuple[str, str]]:
    """What makes this run and its pages again, each with what it does."""
    if not isinstance(run.get("command"), str):
        return []
    return [
        (spelled(run["command"]), "as it was given"),
        ("dasd train RUN/config.yaml --output NEW", "the training again, from the exact settings below; RUN is this folder"),
        ("dasd tokens RUN", "fresh rollouts, token by token"),
        ("dasd report RUN", "this page"),
    ]


def _revision(run: dict[str, Any]) -> str:
    """Which software the run was made with, in a sentence."""
    versions = ", ".join(f"{name} {version}" for name, version in mapping(run.get("versions")).items())
    revision = run.get("git_revision")
    named = {"dasd at revision": revision, "": versions, "Python": run.get("python")}
    parts = [f"{name} {value}".strip() for name, value in named.items() if value]
    return f"Made with {'; '.join(parts)}." if parts else ""


def _headline(rows: list[Row]) -> str:
    """The first figure in one sentence; it says "rose" or "fell" only where interval and test are clear of no change."""
    row = rows[0] if rows else None
    if row is None or not all(value.known for value in row.values):
        return ""
    verb, difference = "went", row.difference
    if difference.clear:
        verb = "rose" if difference.mean > 0 else "fell"
    change = row.change()
    if difference.bounded:
        change += f", 95 % interval {row.change_interval()}"
        change += f", p = {difference.p}".replace("= <", "< ") if difference.p != UNKNOWN else ""
        if not difference.clear:
            change += ", not told from no change"
    return f"{row.label} {verb} from {row.plain(0)} to {row.plain(1)} ({change})."


def _unlearnt(result: dict[str, Any]) -> str:
    """A sentence where training left every weight as it was."""
    if result.get("weights_changed") is not False:
        return ""
    return f"Nothing was learnt: after {number(result.get('steps')):,.0f} steps all weights are still the base's."


def _evaluated(summary: dict[str, Any]) -> str:
    """On what, as far as the summary tells."""
    problems, samples = (number(summary.get(key)) for key in ("num_problems", "num_samples"))
    parts = [f"{problems:,.0f} problems" if problems == problems else ""]
    parts.append(f"{samples:,.0f} samples each" if samples == samples else "")
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
