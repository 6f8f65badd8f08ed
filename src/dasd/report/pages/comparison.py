"""Is run B better than run A, and how do their answers differ? One page for two evaluations, or for a single one.

Takes the data of `dasd compare` (`summary.json`) and samples as plain data; a single run is side b without a side a. The page
needs neither network nor scripts: samples unfold and are filtered by style alone, so no text of a model can act.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any

from dasd.report.data.inputs import mapping
from dasd.report.data.metrics import describe, in_order
from dasd.report.data.results import Row, comparison_row, main_figures
from dasd.report.data.samples import OUTCOMES, show_samples
from dasd.report.figures.comparison import bars_panel, silent, small_multiple
from dasd.report.figures.panel import Key, Panel
from dasd.report.figures.results import pass_at_k_panel
from dasd.report.parts.render import write_page

MEAN = "mean of benchmarks"
CHANGED = "changed"  # gained or lost


@dataclass(frozen=True)
class Benchmark:
    name: str
    about: str  # how many problems and samples
    rows: list[Row]
    pass_at_k: Panel | None


def build_comparison(result: dict[str, Any], examples: dict[str, Any], target: Path) -> Path:
    """Writes the page `target` and returns it. `result`: `evaluation.compare`; `examples`: `evaluation.examples`."""
    return write_page("pages/comparison.html.j2", _content(result, examples), target)


def _content(result: dict[str, Any], examples: dict[str, Any]) -> dict[str, Any]:
    paired = "a" in result
    keys = (Key("A", "before", "dot"), Key("B", "accent", "dot")) if paired else ()
    benchmarks = [_benchmark(index, entry) for index, entry in enumerate(result["benchmarks"])]
    macro = _rows(result["macro"]) if len(benchmarks) > 1 else []
    averages = [(entry["name"], comparison_row("pass_at_1", entry["figures"]["pass_at_1"])) for entry in result["benchmarks"]]
    if macro:
        averages.append((MEAN, comparison_row("pass_at_1", result["macro"]["pass_at_1"])))
    first = result["macro"] if macro else result["benchmarks"][0]["figures"]
    health, nothing = _health(result["benchmarks"], keys)
    names = [benchmark.name for benchmark in benchmarks]
    samples = show_samples(examples["shown"], names)
    return {
        "paired": paired,
        "title": _title(result["a"], result["b"]) if paired else _last_parts(result["b"]["model"]),
        "who": [(side.upper(), result[side]) for side in ("a", "b") if side in result] if paired else [],
        "headline": _headline(comparison_row("pass_at_1", first["pass_at_1"]), len(benchmarks)) if paired else "",
        "settings": _settings(result["benchmarks"]),
        "alone": [(side.upper(), result[f"only_in_{side}"]) for side in ("a", "b") if result.get(f"only_in_{side}")],
        "cards": [comparison_row(name, first[name]) for name in main_figures(list(first))],
        "averages": bars_panel(averages, keys),
        "macro": macro,
        "benchmarks": benchmarks,
        "health": health,
        "nothing": nothing,
        "samples": samples,
        "names": names,
        "outcomes": _outcomes(examples),
        "empty": _empty(samples, len(names), _outcomes(examples)),
        "total": sum(sum(mapping(counts).values()) for counts in examples["counts"].values()),
    }


def _title(a: dict[str, Any], b: dict[str, Any]) -> str:
    """The two models, or where they have one name the two folders."""
    key = "model" if a["model"] != b["model"] else "path"
    return f"{_last_parts(a[key])} and {_last_parts(b[key])}"


def _last_parts(path: Any) -> str:
    return "/".join(str(path).rstrip("/").split("/")[-2:])


def _settings(benchmarks: list[dict[str, Any]]) -> list[tuple[str, Any, Any, str]]:
    """Settings that differ: name, of A, of B, and where, each pair of values once."""
    where: dict[tuple[str, str], tuple[Any, Any, list[str]]] = {}
    for entry in benchmarks:
        for name, (a, b) in mapping(entry.get("settings_differ")).items():
            where.setdefault((name, f"{a}/{b}"), (a, b, []))[2].append(entry["name"])
    every = len(benchmarks)
    return [
        (name, a, b, "" if len(names) == every else f" on {', '.join(names)}") for (name, _), (a, b, names) in where.items()
    ]


def _rows(figures: dict[str, Any]) -> list[Row]:
    return [comparison_row(name, figures[name]) for name in in_order(list(figures))]


def _benchmark(index: int, entry: dict[str, Any]) -> Benchmark:
    samples = " and ".join(f"{number:,}" for number in dict.fromkeys(entry["num_samples"]))
    about = f"{entry['num_problems']:,} problems, {samples} samples each"
    curve = [(int(k), comparison_row(f"pass_at_{k}", values)) for k, values in entry["curves"]["pass_at_k"].items()]
    return Benchmark(
        name=entry["name"],
        about=about,
        rows=_rows(entry["figures"]),
        pass_at_k=pass_at_k_panel(
            sorted(curve, key=itemgetter(0)), ("A", "B"), entry["name"], f"{about}.", f"pass-at-k-{index}"
        ),
    )


def _health(benchmarks: list[dict[str, Any]], keys: tuple[Key, ...]) -> tuple[list[Panel], list[str]]:
    """A panel for each health figure, and the names of those that are zero everywhere."""
    panels, nothing = [], []
    names = list(dict.fromkeys(name for entry in benchmarks for name in entry["figures"] if describe(name).role == "health"))
    for index, name in enumerate(in_order(names)):
        rows = [
            (entry["name"], comparison_row(name, entry["figures"][name])) for entry in benchmarks if name in entry["figures"]
        ]
        if silent(rows):
            nothing += [describe(name).label]
        else:
            panels.append(small_multiple(rows, keys, index))
    return panels, nothing


def _headline(row: Row, benchmarks: int) -> str:
    """Which run is better, in one sentence; it says so only where the interval of the difference excludes 0."""
    if not (row.before.known and row.after.known):
        return ""
    over = f", the mean of {benchmarks} benchmarks" if benchmarks > 1 else ""
    verb = "cannot be told from"
    if row.difference.excludes_zero:
        verb = "is above" if row.difference.mean > 0 else "is below"
    values = f"{row.plain('after')} against {row.plain('before')}"
    p = f"p {row.p}" if row.p.startswith("<") else f"p = {row.p}"
    return f"Avg@k{over}: B {verb} A, {values} ({row.change()}, 95 % interval {row.interval('difference')}, {p})."


def _outcomes(examples: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Key, words and number on file of each outcome there is, in a fixed order."""
    totals = {key: sum(mapping(counts).get(key, 0) for counts in examples["counts"].values()) for key in OUTCOMES}
    return [(key, OUTCOMES[key], total) for key, total in totals.items() if total]


def _empty(samples: list[Any], benchmarks: int, outcomes: list[tuple[str, str, int]]) -> list[tuple[int, str]]:
    """Filters (benchmark, outcome) under which nothing is left."""
    present = {(sample.benchmark, sample.outcome) for sample in samples}
    present |= {(index, CHANGED) for index, outcome in present if outcome in ("gained", "lost")}
    keys = [CHANGED, *(key for key, _, _ in outcomes)]
    return [(index, key) for index in range(benchmarks) for key in keys if (index, key) not in present]
