"""How does a probe become a page? Reads `summary.json` and `config.yaml` of its folder, draws, writes `probe.html`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dasd.report.data.facts import data_line
from dasd.report.data.inputs import mapping, number
from dasd.report.data.metrics import COUNT, MINUS, RATE, TOKENS, UNKNOWN, Unit
from dasd.report.figures.panel import Key, Panel
from dasd.report.parts.render import write_page
from dasd.report.parts.svg import COLORS, SMALL, WIDE, draw

PAGE = "probe.html"
Cell = Mapping[str, Any]  # mean, low, high, n, problems
KINDS = {"low": "low entropy", "high": "high entropy", "random": "random"}
ACTIONS = ("conform", "deviate")
KEYS = {"conform": Key("conform to the teacher", "attract"), "deviate": Key("deviate from it", "repel")}
METHODS = {
    "conformity": Key("conformity", "attract"),
    "dasd": Key("dasd", "accent"),
    "dasd_paper": Key("dasd, paper's printed quantile (0.2)", "violet"),
    "novelty": Key("novelty", "repel"),
}
# measure -> title, caption, unit
MEASURES: dict[str, tuple[str, str, Unit]] = {
    "correct": ("Correctness", "Change of the share of right continuations.", RATE),
    "pass_at_m": ("Solved at least once", "Change of the chance that one of the continuations is right.", RATE),
    "step_accuracy": ("Step accuracy", "Change of the share of checkable steps that are right.", RATE),
    "epistemic": ("Words of doubt", "Change of E(y), words like perhaps and wait, a response.", COUNT),
    "length": ("Length", "Change in tokens.", TOKENS),
}
CORRELATIONS = {"gap": "gap and entropy", "abs_gap": "size of the gap and entropy", "tv": "total variation and entropy"}
TV = (
    "How far apart they are",
    "Total variation between the student's and the teacher's next-token distributions, by decile of the student's entropy; 0 "
    "the same, 1 disjoint.",
)
SHIFT = (
    "Which way a step moves the student",
    "First-order change of the total variation to the teacher by each method's teacher term, per unit of learning rate on the "
    "logits: below 0 toward the teacher, above 0 away.",
)
GAP = (
    "Gap",
    "Mean teacher-student gap in nats of the tokens that the student wrote: above 0 the teacher prefers them.",
)
GAPS = {"gap": Key("gap", "accent"), "abs_gap": Key("its size", "violet")}
DECILES = (340, 240)


def build_probe_page(folder: Path) -> Path:
    """Writes `folder/probe.html` and returns its path. Raises ValueError where the folder holds no probe."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
        content = _content(summary, config)
        written = datetime.fromtimestamp((folder / "summary.json").stat().st_mtime, UTC)
        facts = {
            "model": config["model"]["path"],
            "data": data_line(mapping(config.get("data"))),
            "made": f"{written:%Y-%m-%d}",
        }
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise ValueError(f"{folder} holds no finished probe: {error}") from None
    return write_page("pages/probe.html.j2", content | {"facts": list(facts.items())}, folder / PAGE)


def _content(summary: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "model": config["model"]["path"],
        "continuations": config["continuations"],
        "rho": config["rho"],
        "rollouts": summary["rollouts"],
        "baseline": _baseline(summary["baseline"]),
        "revisions": _revisions(summary["revisions"]) if summary["revisions"]["preserve"]["n"] else None,
        "revised": summary["revisions"]["rollouts"],
        "contexts": [
            _context(index, name, found, summary["baseline"]) for index, (name, found) in enumerate(summary["contexts"].items())
        ],
        "config": yaml.safe_dump(config, sort_keys=False),
    }


def _baseline(baseline: Mapping[str, Any]) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """What doing nothing reaches: of the rollouts and each kind of place a label, n, and (value, interval, n) a measure."""
    names = {"rollouts": "whole rollouts", **{kind: f"from {name} places" for kind, name in KINDS.items()}}
    rows = [(label, [_written(baseline[name][m], MEASURES[m][2]) for m in MEASURES]) for name, label in names.items()]
    return [(label, cells[0][2], cells) for label, cells in rows]


def _written(cell: Cell, unit: Unit, sign: bool = False) -> tuple[str, str, str]:
    mean, low, high = (number(cell[end]) for end in ("mean", "low", "high"))
    value = unit.write(mean, sign) + (unit.suffix if not sign and not math.isnan(mean) else "")
    interval = "" if math.isnan(low) else f"[{unit.write(low, sign)}, {unit.write(high, sign)}]"
    return value, interval, f"n {cell['n']:,}"


def _context(index: int, name: str, found: Mapping[str, Any], baseline: Mapping[str, Any]) -> dict[str, Any]:
    tokens, id = found["tokens"], f"context-{index}"
    return {
        "name": name,
        "places": found["positions"],
        "problems": found["problems"],
        "agreement": [(KINDS[kind], *_written(cell, RATE)) for kind, cell in found["agreement"].items()],
        "predictions": [
            (method, *_written(each, RATE, sign=True), each["word"], each["sentence"])
            for method, each in found["predictions"].items()
        ],
        "recommendation": found["recommendation"]["sentence"],
        "effects": [_effects(f"{id}-{measure}", measure, found["effects"]) for measure in MEASURES],
        "deciles": _deciles(f"{id}-deciles", found["deciles"], baseline["deciles"]),
        "spearman": [
            (label, *_correlation(tokens["spearman"][key]))
            for key, label in CORRELATIONS.items()
        ],
        "tokens": [
            _curve(f"{id}-tv", *TV, {"": tokens["tv"]}, {"": Key("total variation", "accent")}, "total variation"),
            _curve(f"{id}-shift", *SHIFT, tokens["shift"], METHODS, "change of total variation"),
            _curve(f"{id}-gap", *GAP, {name: tokens[name] for name in GAPS}, GAPS, "nats"),
        ],
    }  # fmt: skip


def _correlation(cell: Cell) -> tuple[str, str, str]:
    return _written(cell, Unit(1, 2, "", ""), sign=True)


def _effects(name: str, measure: str, effects: Mapping[str, Any]) -> Panel:
    """The effects of both actions with their intervals, a row for each kind of place."""
    title, caption, unit = MEASURES[measure]
    kinds = list(reversed(KINDS))

    def paint(axes: Axes) -> None:
        axes.axvline(0.0, color=COLORS["muted"], linewidth=0.9)
        for place, kind in enumerate(kinds):
            for action, above in (("conform", 0.17), ("deviate", -0.17)):
                color = COLORS[KEYS[action].color]
                _whisker(axes, effects[kind][action][measure], place + above, color, vertical=False, scale=unit.scale)
        counts = [dict.fromkeys(f"{effects[kind][a][measure]['n']:,}" for a in ACTIONS) for kind in kinds]
        labels = [f"{KINDS[kind]}\nn {', '.join(n)}" for kind, n in zip(kinds, counts, strict=True)]
        axes.set_yticks(range(len(kinds)), labels, fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(-0.6, len(kinds) - 0.4)
        axes.set_xlabel((unit.difference_suffix or "").strip() or "a response")

    return Panel(title, caption, draw(name, title, paint, SMALL), tuple(KEYS.values()))


def _deciles(name: str, deciles: Sequence[Mapping[str, Cell]], baseline: Sequence[Cell]) -> Panel:
    """Both actions' effect on correctness by entropy decile."""

    def paint(axes: Axes) -> None:
        axes.axhline(0.0, color=COLORS["muted"], linewidth=0.9)
        for shift, action in ((-0.14, "conform"), (0.14, "deviate")):
            for decile, cells in enumerate(deciles, start=1):
                _whisker(axes, cells[action], decile + shift, COLORS[KEYS[action].color], vertical=True, scale=100)
        labels = [
            f"{decile}\n{cells['conform']['n']:,}\n{_percent(base)}"
            for decile, (cells, base) in enumerate(zip(deciles, baseline, strict=True), start=1)
        ]
        axes.set_xticks(range(1, 11), labels, fontsize=8.5)
        axes.set_xlabel("entropy decile, places, right if nothing is done", fontsize=9.5)
        axes.set_ylabel("change, points")

    caption = (
        "Where conform is above 0 it pays to follow the teacher, where deviate is, to leave it; where neither, to do nothing."
    )
    title = "Effect on correctness by entropy decile"
    return Panel("By entropy", caption, draw(name, title, paint, DECILES), tuple(KEYS.values()))


def _percent(cell: Cell) -> str:
    mean = number(cell["mean"])
    return UNKNOWN if math.isnan(mean) else f"{100 * mean:.0f}%"


def _curve(
    name: str, title: str, caption: str, series: Mapping[str, Sequence[Cell]], keys: Mapping[str, Key], unit: str
) -> Panel:
    """Means by entropy decile with their intervals; every series over the same tokens."""

    def paint(axes: Axes) -> None:
        axes.axhline(0.0, color=COLORS["muted"], linewidth=0.9)
        for shift, (method, cells) in zip(_spread(len(series)), series.items(), strict=True):
            for decile, cell in enumerate(cells, start=1):
                _whisker(axes, cell, decile + shift, COLORS[keys[method].color], vertical=True)
        counts = [cell["n"] for cell in next(iter(series.values()), ())]
        axes.set_xticks(range(1, len(counts) + 1), [f"{i}\n{n:,}" for i, n in enumerate(counts, start=1)], fontsize=8.5)
        axes.set_xlabel("entropy decile, tokens", fontsize=9.5)
        axes.set_ylabel(unit)

    return Panel(title, caption, draw(name, title, paint, DECILES), tuple(keys[method] for method in series))


def _spread(count: int) -> list[float]:
    return [0.16 * (index - (count - 1) / 2) for index in range(count)]


def _revisions(found: Mapping[str, Any]) -> Panel:
    rows: list[tuple[str, Cell, str]] = [("kept", found["preserve"], "accent"), ("suppressed", found["suppress"], "repel")]
    rows += [(f"teacher writes on\n({context})", cell, "attract") for context, cell in found["teacher"].items() if cell["n"]]
    differences: list[tuple[str, Cell, str]] = [(f"kept {MINUS} suppressed", found["preserve_minus_suppress"], "ink")]
    differences += [
        (f"teacher {MINUS} kept\n({context})", cell, "ink")
        for context, cell in found["teacher_minus_preserve"].items()
        if cell["n"]
    ]

    def part(rows: Sequence[tuple[str, Cell, str]], label: str) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            for place, (_, cell, color) in enumerate(reversed(rows)):
                _whisker(axes, cell, place, COLORS[color], vertical=False, scale=100)
            axes.set_yticks(range(len(rows)), [f"{name}\nn {cell['n']:,}" for name, cell, _ in reversed(rows)], fontsize=9)
            axes.set_ylim(-0.6, len(rows) - 0.4)
            axes.grid(visible=False, axis="y")
            axes.grid(visible=True, axis="x")
            axes.set_xlabel(label)

        return paint

    def paint(above: Axes, below: Axes) -> None:
        part(rows, "% right")(above)
        part(differences, "difference, points")(below)
        below.axvline(0.0, color=COLORS["muted"], linewidth=0.9)

    caption = (
        "Right continuations after the rollout's own revision was kept, its marker replaced, or the rest left to the teacher."
    )
    size = (WIDE[0], 80 + 44 * (len(rows) + len(differences)))
    return Panel("At its own revisions", caption, draw("revisions", "Correctness after revisions", paint, size, rows=2))


def _whisker(axes: Axes, cell: Cell, place: float, color: str, vertical: bool, scale: float = 1.0) -> None:
    """A dot with its interval; without one where the interval is not known."""
    mean, low, high = (number(cell[end]) * scale for end in ("mean", "low", "high"))
    if math.isnan(mean):
        return
    if not math.isnan(low):
        ends, at = [low, high], [place, place]
        axes.plot(*((at, ends) if vertical else (ends, at)), color=color, linewidth=2.0)
    axes.plot(*((place, mean) if vertical else (mean, place)), "o", color=color, markersize=4.5)
