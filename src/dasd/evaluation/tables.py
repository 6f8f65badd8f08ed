"""How do the figures look on a terminal?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from dasd.evaluation.summary import Record


def summary_table(model: str, summary: Record) -> Table:
    """Every figure of one model on one suite."""
    title = f"{model}, {summary['benchmark']}: {summary['num_problems']} problems, {summary['num_samples']} samples each"
    table = _table(title, "figure", "value", "95 % interval")
    for name, ends in summary["ci95"].items():
        table.add_row(name, _number(summary[name], ".4f"), _interval(ends[0], ends[1], ".4f"))
    return table


def overview_table(model: str, result: Record) -> Table:
    """One row for each benchmark of a model, and the mean over benchmarks."""
    table = _table(model, "benchmark", "n", "k", "Avg@k", "95 % interval", "Pass@k", "Maj@k", "StepAcc", "length")
    for name, summary in result["benchmarks"].items():
        k = summary["num_samples"]
        rates = [_number(summary[key]) for key in (f"pass_at_{k}", f"maj_at_{k}", "step_accuracy")]
        average, ends = _number(summary[f"avg_at_{k}"]), _interval(*summary["ci95"][f"avg_at_{k}"])
        table.add_row(name, str(summary["num_problems"]), str(k), average, ends, *rates, _number(summary["mean_length"], ".1f"))
    if len(result["benchmarks"]) > 1:  # Pass@1 is Avg@k, whatever each benchmark's k
        mean, ends = result["macro"]["pass_at_1"], result["macro"]["ci95"]["pass_at_1"]
        table.add_row("mean", "", "", _number(mean), _interval(*ends), style="bold")
    return table


def comparison_tables(result: Mapping[str, Any]) -> list[Table]:
    """For each benchmark the main figures of both runs, the difference with its interval, and the p-value."""
    parts = [(f"{entry['name']}: {entry['num_problems']} problems", entry["figures"]) for entry in result["benchmarks"]]
    if len(parts) > 1:
        parts.append((f"mean of {len(parts)} benchmarks", result["macro"]))
    tables = []
    for title, figures in parts:
        table = _table(title, "figure", "A", "B", "B - A", "95 % interval", "p")
        for figure in _main(figures):
            values = figures[figure]
            difference = values["difference"]
            numbers = [_number(values[side]["mean"]) for side in ("a", "b")]
            interval = _interval(difference["low"], difference["high"], "+.3f")
            table.add_row(figure, *numbers, _number(difference["mean"], "+.3f"), interval, _number(values["p_value"], ".4f"))
        tables.append(table)
    return tables


def _main(figures: Mapping[str, Any]) -> list[str]:
    """What a reader looks for first: of the figures over k only Avg@k (or Pass@1, which is the same) and the last ones."""
    average, passed, majority = ([name for name in figures if name.startswith(p)] for p in ("avg_at_", "pass_at_", "maj_at_"))
    others = ("step_accuracy", "epistemic_per_response", "mean_length", "truncated")
    over_k = [*(average or passed[:1]), *passed[1:][-1:], *majority[1:][-1:]]
    return [*over_k, *(name for name in others if name in figures)]


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title or None)
    for heading in headings:
        left = heading in ("figure", "model", "benchmark")
        table.add_column(heading, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    return table


def _number(value: float | None, form: str = ".3f") -> str:
    return "n/a" if value is None or value != value else format(value, form)


def _interval(low: float | None, high: float | None, form: str = ".3f") -> str:
    return f"[{_number(low, form)}, {_number(high, form)}]"
