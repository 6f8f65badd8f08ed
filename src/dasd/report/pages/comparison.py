"""Is one run better than another, and how do their answers differ? One page for any number of evaluations, or for a single one.

Takes the data of `dasd compare` (`summary.json`) and samples as plain data. The page needs neither network nor scripts: samples
unfold and are filtered by style alone, so no text of a model can act. A run has the same letter, colour, shape and place
everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from dasd.report.data.inputs import mapping
from dasd.report.data.metrics import describe, in_order
from dasd.report.data.results import Row, comparison_row, main_figures
from dasd.report.data.samples import OUTCOMES, show_samples
from dasd.report.figures.comparison import bars_panels, silent, small_multiple
from dasd.report.figures.panel import Key, Panel, side_keys
from dasd.report.figures.results import over_k_panel
from dasd.report.parts.render import write_page

MEAN = "mean of benchmarks"
CHANGED = "changed"  # gained, lost, or right in some runs alone
MOST_NAMED = 6  # benchmarks on top of the page
LONGEST_LABEL = 34  # of a run in a legend


@dataclass(frozen=True)
class Side:
    """One run as the page shows it. `facts`: what is known of it, label and value."""

    letter: str
    name: str
    key: Key
    facts: list[tuple[str, str]]


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
    sides = _sides(result["runs"])
    keys = [side.key for side in sides]
    benchmarks = [
        _benchmark(index, entry, keys, len(result["benchmarks"]) == 1) for index, entry in enumerate(result["benchmarks"])
    ]
    macro = _rows(result["macro"]) if len(benchmarks) > 1 else []
    first = result["macro"] if macro else result["benchmarks"][0]["figures"]
    main = _headline_figure(first)
    averages = [(e["name"], comparison_row(main, e["figures"][main])) for e in result["benchmarks"] if main in e["figures"]]
    if macro and main in result["macro"]:
        averages.append((MEAN, comparison_row(main, result["macro"][main])))
    health, nothing = _health(result["benchmarks"], keys)
    names = [benchmark.name for benchmark in benchmarks]
    samples = show_samples(examples["shown"], names, [side.letter for side in sides])
    outcomes = _outcomes(examples)
    return {
        "sides": sides,
        "paired": len(sides) > 1,
        "title": _title(result["runs"]),
        "headline": _headline(comparison_row(main, first[main]), sides, len(benchmarks)) if len(sides) > 1 and main else "",
        "asked": _asked(result["benchmarks"], benchmarks),
        "seeds": any(len(mapping(run).get("paths") or []) > 1 for run in result["runs"]),
        "settings": _settings(result["benchmarks"], sides),
        "missing": list(mapping(result.get("missing")).items()),
        "cards": [comparison_row(name, first[name]) for name in main_figures(list(first))],
        "averages": bars_panels(averages, keys, _label(main)) if averages else [],
        "macro": macro,
        "benchmarks": benchmarks,
        "health": health,
        "nothing": nothing,
        "samples": samples,
        "names": names,
        "outcomes": outcomes,
        "changed": len(sides) > 1 and [key for key, _, _ in outcomes if key in ("gained", "lost", "some")],
        "empty": _empty(samples, len(names), outcomes),
        "total": sum(sum(mapping(counts).values()) for counts in examples["counts"].values()),
        "keys": keys if len(keys) > 1 else [],
        "contents": [
            ("result", "Result"), *([("curves", "Pass@k")] if macro else []), ("health", "Health"), ("tables", "All figures"),
            ("samples", "Samples"),
        ],
    }  # fmt: skip


def _asked(entries: list[dict[str, Any]], benchmarks: list[Benchmark]) -> str:
    """Which problems; of many benchmarks how many."""
    if len(entries) > MOST_NAMED:
        return f"{len(entries)} benchmarks, {sum(entry['num_problems'] for entry in entries):,} problems"
    return ", ".join(f"{benchmark.name} ({benchmark.about})" for benchmark in benchmarks)


def _sides(runs: list[dict[str, Any]]) -> list[Side]:
    labels = [_short(run["name"]) for run in runs]
    sides = []
    for place, (run, key) in enumerate(zip(runs, side_keys(labels), strict=True)):
        paths, seeds = run.get("paths") or [], run.get("seeds") or []
        facts = {
            "model": run["model"],
            "method": run.get("method"),
            "seeds" if len(paths) > 1 else "seed": ", ".join(map(str, seeds)),
            "evaluated": run.get("date"),
            "from": ", ".join(paths),
        }
        letter = ascii_uppercase[place % 26] + "'" * (place // 26)
        sides.append(Side(letter, run["name"], key, [(name, str(value)) for name, value in facts.items() if value]))
    return sides


def _short(name: str) -> str:
    return name if len(name) <= LONGEST_LABEL else f"…{name[1 - LONGEST_LABEL :]}"


def _title(runs: list[dict[str, Any]]) -> str:
    if len(runs) == 1:
        return "/".join(str(runs[0]["model"]).rstrip("/").split("/")[-2:])
    names = [_short(run["name"]) for run in runs]
    return " and ".join(names) if len(names) == 2 else f"{len(names)} runs: {', '.join(names)}"


def _headline_figure(figures: dict[str, Any]) -> str:
    """The figure that a reader looks for first; none where there is no main figure."""
    return next(iter(main_figures(list(figures))), "") if "pass_at_1" not in figures else "pass_at_1"


def _label(figure: str) -> str:
    return "Avg@k" if figure == "pass_at_1" else describe(figure).label


def _settings(benchmarks: list[dict[str, Any]], sides: list[Side]) -> list[tuple[str, str, str]]:
    """Settings that differ: name, the runs' values, and where, each set of values once."""
    where: dict[tuple[str, str], list[str]] = {}
    for entry in benchmarks:
        for name, values in mapping(entry.get("settings_differ")).items():
            told = ", ".join(f"{value} in {side.letter}" for value, side in zip(values, sides, strict=True))
            where.setdefault((name, told), []).append(entry["name"])
    every = len(benchmarks)
    return [
        (name, told, "" if len(names) == every else f" on {', '.join(names)}") for (name, told), names in where.items()
    ]  # fmt: skip


def _rows(figures: dict[str, Any]) -> list[Row]:
    return [comparison_row(name, figures[name]) for name in in_order(list(figures))]


def _benchmark(index: int, entry: dict[str, Any], keys: list[Key], alone: bool) -> Benchmark:
    title = "Pass@k" if alone else entry["name"]
    samples = " and ".join(f"{number:,}" for number in dict.fromkeys(entry["num_samples"]))
    about = (
        f"{entry['num_problems']:,} problems, {samples} samples each"
        if samples != "1"
        else f"{entry['num_problems']:,} problems"
    )
    curve = [(int(k), comparison_row(f"pass_at_{k}", values)) for k, values in entry["curves"]["pass_at_k"].items()]
    return Benchmark(
        name=entry["name"],
        about=about,
        rows=_rows(entry["figures"]),
        pass_at_k=over_k_panel(sorted(curve, key=itemgetter(0)), keys, title, f"{about}.", f"pass-at-k-{index}"),
    )


def _health(benchmarks: list[dict[str, Any]], keys: list[Key]) -> tuple[list[Panel], list[str]]:
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


def _headline(row: Row, sides: list[Side], benchmarks: int) -> str:
    """Which run is better, in a sentence or two; it says so only where interval and test agree."""
    if not all(value.known for value in row.values):
        return ""
    over = f", the mean of {benchmarks} benchmarks" if benchmarks > 1 else ""
    start = f"{_label(row.name)}{over}: "
    if len(sides) == 2:
        verb = "cannot be told from"
        if row.difference.clear:
            verb = "is above" if row.difference.mean > 0 else "is below"
        p = f"p = {row.difference.p}".replace("= <", "< ")
        interval = f"95 % interval {row.change_interval()}"
        return f"{start}B {verb} A, {row.plain(1)} against {row.plain(0)} ({row.change()}, {interval}, {p})."
    told: dict[str, list[str]] = {"above": [], "below": [], "not told from": []}
    for side, difference in zip(sides[1:], row.differences, strict=True):
        told["not told from" if not difference.clear else "above" if difference.mean > 0 else "below"].append(side.letter)
    parts = [f"{_listed(letters)} {'is' if len(letters) == 1 else 'are'} {verb} A" for verb, letters in told.items() if letters]
    return f"{start}{'; '.join(parts)} (A has {row.plain(0)}; tested with Holm's correction)."


def _listed(letters: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(letters[:-1]), letters[-1]]))


def _outcomes(examples: dict[str, Any]) -> list[tuple[str, str, int]]:
    """Key, words and number on file of each outcome there is, in a fixed order."""
    totals = {key: sum(mapping(counts).get(key, 0) for counts in examples["counts"].values()) for key in OUTCOMES}
    return [(key, OUTCOMES[key], total) for key, total in totals.items() if total]


def _empty(samples: list[Any], benchmarks: int, outcomes: list[tuple[str, str, int]]) -> list[tuple[int, str]]:
    """Filters (benchmark, outcome) under which nothing is left."""
    present = {(sample.benchmark, sample.outcome) for sample in samples}
    present |= {(index, CHANGED) for index, outcome in present if outcome in ("gained", "lost", "some")}
    keys = [CHANGED, *(key for key, _, _ in outcomes)]
    return [(index, key) for index in range(benchmarks) for key in keys if (index, key) not in present]
