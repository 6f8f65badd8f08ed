"""How does a probe become a page? Reads `summary.json` and `config.yaml` of its folder, draws, writes `probe.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from dasd.report.figures.panel import Key, Panel
from dasd.report.parts.render import write_page
from dasd.report.parts.svg import COLORS, SMALL, WIDE, draw

PAGE = "probe.html"
ROWS = (("uncertain", "conform"), ("uncertain", "deviate"), ("sure", "conform"), ("sure", "deviate"))
KEYS = {"conform": Key("conform to the teacher", "attract"), "deviate": Key("deviate from it", "repel")}
TITLES = {
    "correct": ("Correctness", "Change of the share of right continuations."),
    "pass_at_m": ("Solved at least once", "Change of the chance that one of the continuations is right: room for exploration."),
    "step_accuracy": ("Step accuracy", "Change of the share of checkable steps that are right."),
    "epistemic": ("Words of doubt", "Change of E(y), words like perhaps and wait, a response."),
    "length": ("Length", "Change in tokens."),
}


def build_probe_page(folder: Path) -> Path:
    """Writes `folder/probe.html` and returns its path. Raises ValueError where the folder holds no probe."""
    try:
        summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} holds no finished probe: {error}") from None
    contexts = [_context(name, found) for name, found in summary.items()]
    content = {"contexts": contexts, "config": yaml.safe_dump(config, sort_keys=False), "model": config["model"]["path"]}
    content |= {name: config[name] for name in ("continuations", "rho")}
    return write_page("pages/probe.html.j2", content, folder / PAGE)


def _context(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    panels = [_effects(f"{name}-{measure}", measure, found["effects"]) for measure in TITLES]
    return {**found, "name": name, "panels": panels, "deciles": _deciles(f"{name}-deciles", found["deciles"])}


def _effects(name: str, measure: str, effects: Mapping[str, Any]) -> Panel:
    """Four effects with their intervals, one below the other."""
    title, caption = TITLES[measure]

    def paint(axes: Axes) -> None:
        axes.axvline(0.0, color=COLORS["muted"], linewidth=0.9)
        for place, (side, action) in enumerate(reversed(ROWS)):
            _whisker(axes, effects[side][action][measure], place, KEYS[action].color, vertical=False)
        axes.set_yticks(range(4), [f"{action} at\n{side} tokens" for side, action in reversed(ROWS)], fontsize=9)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.set_ylim(-0.6, 3.6)

    return Panel(title, caption, draw(name, title, paint, SMALL))


def _deciles(name: str, deciles: Sequence[Mapping[str, Any]]) -> Panel:
    """Both actions' effect on correctness by entropy decile."""

    def paint(axes: Axes) -> None:
        axes.axhline(0.0, color=COLORS["muted"], linewidth=0.9)
        for shift, action in ((-0.14, "conform"), (0.14, "deviate")):
            for decile, cells in enumerate(deciles, start=1):
                _whisker(axes, cells[action], decile + shift, KEYS[action].color, vertical=True)
        axes.set_xticks(range(1, 11))
        axes.set_xlabel("decile of the token's entropy in its rollout, 10 the most uncertain")
        axes.set_ylabel("change of correctness")

    caption = "Where the two cross is where direction should turn. Deciles without a position are left out."
    return Panel(
        "By entropy", caption, draw(name, "Effect on correctness by entropy decile", paint, WIDE), tuple(KEYS.values())
    )


def _whisker(axes: Axes, cell: Mapping[str, Any], place: float, color: str, vertical: bool) -> None:
    if cell["mean"] is None or cell["low"] is None:
        return
    ends, at = [cell["low"], cell["high"]], [place, place]
    line, dot = ((at, ends), (place, cell["mean"])) if vertical else ((ends, at), (cell["mean"], place))
    axes.plot(*line, color=COLORS[color], linewidth=2.0)
    axes.plot(*dot, "o", color=COLORS[color], markersize=5)
