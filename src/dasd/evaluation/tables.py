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
        table.add_row(name, _number(summary[name]), _interval(*ends))
    return table


def overview_table(results: Mapping[str, Record]) -> Table:
    """One row for each model and benchmark, and the mean over benchmarks."""
    table = _table("", "model", "benchmark", "problems", "k", "Avg@k", "95 % interval", "Pass@k", "Maj@k", "StepAcc", "length")
    for model, result in results.items():
        for name, summary in result["benchmarks"].items():
            k = summary["num_samples"]
            keys = (f"pass_at_{k}", f"maj_at_{k}", "step_accuracy", "mean_length")
            size = (str(summary["num_problems"]), str(k), _number(summary[f"avg_at_{k}"]))
            interval = _interval(*summary["ci95"][f"avg_at_{k}"])
            table.add_row(model, name, *size, interval, *(_number(summary[key]) for key in keys))
        if len(result["benchmarks"]) > 1:  # Pass@1 is Avg@k, whatever each benchmark's k
            mean, ends = result["macro"]["pass_at_1"], result["macro"]["ci95"]["pass_at_1"]
            table.add_row(model, "mean of benchmarks", "", "", _number(mean), _interval(*ends), style="bold")
        table.add_section()
    return table


def comparison_table(result: Mapping[str, Any]) -> Table:
    """Each figure of both runs, the difference with its interval, and the p-value."""
    table = _table("B minus A, paired by problem", "benchmark", "figure", "A", "B", "difference", "95 % interval", "p")
    parts = [(entry["name"], entry["figures"]) for entry in result["benchmarks"]]
    if len(parts) > 1:
        parts.append(("mean of benchmarks", result["macro"]))
    for name, figures in parts:
        for figure, values in figures.items():
            difference = values["difference"]
            interval = _interval(difference["low"], difference["high"], "+.4f")
            numbers = (_number(values["a"]["mean"]), _number(values["b"]["mean"]), _number(difference["mean"], "+.4f"))
            table.add_row(name, figure, *numbers, interval, _number(values["p_value"]))
        table.add_section()
    return table


def _table(title: str, *headings: str) -> Table:
    table = Table(title=title or None)
    for heading in headings:
        left = heading in ("figure", "model", "benchmark")
        table.add_column(heading, justify="left" if left else "right", overflow="fold" if left else "ellipsis")
    return table


def _number(value: float | None, form: str = ".4f") -> str:
    return "n/a" if value is None or value != value else format(value, form)


def _interval(low: float | None, high: float | None, form: str = ".4f") -> str:
    return f"[{_number(low, form)}, {_number(high, form)}]"
