"""How do the figures look on a terminal?"""

from __future__ import annotations

from collections.abc import Mapping
from string import ascii_uppercase
from typing import Any

from rich.table import Table

from dasd.evaluation.summary import Record
from dasd.report.data.metrics import in_order
from dasd.report.data.results import comparison_row, main_figures


def summary_table(model: str, summary: Record) -> Table:
    """Every figure of one model on one suite."""
    title = f"{model}, {summary['benchmark']}: {summary['num_problems']} problems, {summary['num_samples']} samples each"
    table = _table(title, "figure", "value", "95 % interval")
    for name in in_order(list(summary["ci95"])):
        row = comparison_row(name, {"values": [_value(summary, name)]})
        table.add_row(row.label, row.plain(), row.interval())
    return table


def overview_table(model: str, result: Record) -> Table:
    """One row for each benchmark of a model, and the mean over benchmarks."""
    table = _table(model, "benchmark", "n", "k", "Avg@k", "95 % interval", "Pass@k", "Steps")
    for benchmark, summary in result["benchmarks"].items():
        k = summary["num_samples"]
        names = (f"avg_at_{k}", f"pass_at_{k}", "step_accuracy")
        average, *others = (comparison_row(name, {"values": [_value(summary, name)]}) for name in names)
        rest = (row.plain() for row in others)
        table.add_row(benchmark, str(summary["num_problems"]), str(k), average.plain(), average.interval(), *rest)
    if len(result["benchmarks"]) > 1:  # Pass@1 is Avg@k, whatever each benchmark's k
        mean = comparison_row("pass_at_1", {"values": [_value(result["macro"], "pass_at_1")]})
        table.add_row("mean", "", "", mean.plain(), mean.interval(), style="bold")
    return table


def comparison_tables(result: Mapping[str, Any]) -> list[Table]:
    """For each benchmark, and their mean, the main figures: of two runs side by side, of more a line for each."""
    parts = [(f"{entry['name']}: {entry['num_problems']} problems", entry["figures"]) for entry in result["benchmarks"]]
    if len(parts) > 1:
        parts.append((f"mean of {len(parts)} benchmarks", result["macro"]))
    runs = len(result["runs"])
    return [_of_two(title, figures) if runs == 2 else _of_many(title, figures, runs) for title, figures in parts]


def _of_two(title: str, figures: Mapping[str, Any]) -> Table:
    table = _table(title, "figure", "A", "B", "B - A", "95 % interval", "p")
    for name in main_figures(list(figures)):
        row = comparison_row(name, figures[name])
        table.add_row(row.label, row.plain(0), row.plain(1), row.change(), row.change_interval(), row.difference.p)
    return table


def _of_many(title: str, figures: Mapping[str, Any], runs: int) -> Table:
    table = _table(title, "figure", "run", "value", "95 % interval", "minus A", "95 % interval", "p (Holm)")
    for name in main_figures(list(figures)):
        row = comparison_row(name, figures[name])
        for place in range(runs):
            cells = [row.label if place == 0 else "", ascii_uppercase[place % 26], row.plain(place), row.interval(place)]
            if place:
                cells += [row.change(place - 1), row.change_interval(place - 1), row.differences[place - 1].p]
            table.add_row(*cells, end_section=place == runs - 1)
    return table


def _value(summary: Record, name: str) -> Record:
    low, high = summary["ci95"][name]
    return {"mean": summary[name], "low": low, "high": high}


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title or None)
    for heading in headings:
        left = heading in ("figure", "run", "model", "benchmark")
        table.add_column(heading, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    return table
