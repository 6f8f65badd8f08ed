"""Is one run better than another? Two folders of evaluations, compared on the same problems.

Reads `eval.json`, `summary.json` and the samples that `dasd eval` wrote. Each difference is B minus A, with a 95 % interval
from a paired bootstrap and a p-value from swapping the runs problem by problem.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from dasd.config import BadInput
from dasd.evaluation.estimators import (
    Estimate,
    differences_of_ratios,
    macro_averages,
    macro_difference,
    ratios_of_sums,
    swap_p_value,
)
from dasd.evaluation.folder import IDENTITY, SUMMARY, read_samples
from dasd.evaluation.summary import Record, Sums, headline, metric_sums
from dasd.tasks.base import GradeStatus

CSV_COLUMNS = ("benchmark", "figure", "a", "a_low", "a_high", "b", "b_low", "b_high", "difference", "low", "high", "p_value")


@dataclass(frozen=True)
class OnFile:
    """One finished evaluation as it was read."""

    folder: Path
    identity: Record
    ids: list[str]
    num_samples: int
    records: list[Record]

    @cached_property
    def sums(self) -> Sums:
        return metric_sums(self.ids, self.records, self.num_samples)


@dataclass(frozen=True)
class Run:
    """The evaluations of one model, by benchmark."""

    path: Path
    benchmarks: dict[str, OnFile]

    @property
    def who(self) -> Record:
        models = {finished.identity["settings"]["model"]["path"] for finished in self.benchmarks.values()}
        return {"path": str(self.path), "model": ", ".join(sorted(models))}


def comparison(run_a: Path, run_b: Path) -> dict[str, Any]:
    """`compare_runs` of two folders. Raises BadInput."""
    return compare_runs(read_run(run_a), read_run(run_b))


def compare_runs(a: Run, b: Run) -> dict[str, Any]:
    """Everything two runs say about each other, as JSON-able data. Raises BadInput where they cannot be compared.

    `a`, `b`                 folder and model
    `benchmarks`             one entry for each benchmark that both have: `name`, `num_problems`, `num_samples` (of each run),
                             `settings_differ` (setting -> both values), `figures`, `curves`, `problems`
      `figures`              figure -> `a`, `b`, `difference` (each `mean`, `low`, `high`) and `p_value`; null if undefined
      `curves`               `pass_at_k` -> k (text) -> the same
      `problems`             each problem's `id`, `samples` and `correct` of both runs, as [a, b]
    `macro`                  figure -> the same as in `figures`, the mean over benchmarks, for figures that all of them have
    `only_in_a`, `only_in_b` benchmarks that the other run lacks
    """
    names = [name for name in a.benchmarks if name in b.benchmarks]
    if not names:
        raise BadInput(
            f"{a.path} and {b.path} have no benchmark in common: the first has {', '.join(a.benchmarks)}, the second "
            f"{', '.join(b.benchmarks)}"
        )
    benchmarks = [_benchmark(name, a.benchmarks[name], b.benchmarks[name]) for name in names]
    shown = [figure for figure in benchmarks[0]["figures"] if all(figure in entry["figures"] for entry in benchmarks)]
    return {
        "a": a.who,
        "b": b.who,
        "benchmarks": benchmarks,
        "macro": _macro(shown, *([run.benchmarks[name].sums for name in names] for run in (a, b))),
        "only_in_a": [name for name in a.benchmarks if name not in b.benchmarks],
        "only_in_b": [name for name in b.benchmarks if name not in a.benchmarks],
    }


def one_run(overview: Record) -> dict[str, Any]:
    """A single model's `summary.json` in the shape of `compare_runs`, as side b with no side a."""

    def entry(mean: float, ends: Sequence[float]) -> Record:
        return {"b": {"mean": _known(mean), "low": _known(ends[0]), "high": _known(ends[1])}}

    def figures(values: Record) -> Record:
        return {name: entry(values[name], ends) for name, ends in values["ci95"].items()}

    benchmarks = [
        {
            "name": name,
            "num_problems": summary["num_problems"],
            "num_samples": [summary["num_samples"]],
            "figures": figures(summary),
            "curves": {"pass_at_k": {k: entry(mean, summary["pass_at_k_ci95"][k]) for k, mean in summary["pass_at_k"].items()}},
        }
        for name, summary in overview["benchmarks"].items()
    ]
    return {"b": {"model": overview["model"]}, "benchmarks": benchmarks, "macro": figures(overview["macro"])}


def read_run(folder: Path) -> Run:
    """The evaluations in `folder` and below, by benchmark. Raises BadInput: nothing there, unfinished, several models."""
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one that dasd eval has written")
    found: dict[str, OnFile] = {}
    for path in sorted(folder.rglob(IDENTITY)):
        facts = json.loads(path.read_text(encoding="utf-8"))
        if "identity" not in facts:
            raise BadInput(f"{path} was not written by this version of dasd eval: evaluate again into a new folder")
        name = facts["identity"]["suite"]
        if name in found:
            raise BadInput(
                f"{folder} holds {name} twice, in {found[name].folder} and {path.parent}: give the folder of one model"
            )
        found[name] = _read(path.parent)
    if not found:
        raise BadInput(f"{folder} holds no evaluation (no {IDENTITY}); make one with: dasd eval MODEL --output {folder}")
    return Run(folder, found)


def table_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparison as flat rows with CSV_COLUMNS, the means over benchmarks last under the name `macro`."""
    parts = [(benchmark["name"], benchmark["figures"]) for benchmark in result["benchmarks"]]
    rows = []
    for name, figures in [*parts, ("macro", result["macro"])]:
        for figure, values in figures.items():
            numbers = [values[side][key] for side in ("a", "b", "difference") for key in ("mean", "low", "high")]
            rows.append(dict(zip(CSV_COLUMNS, (name, figure, *numbers, values["p_value"]), strict=True)))
    return rows


def as_csv(result: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows(result))
    return text.getvalue()


def _read(folder: Path) -> OnFile:
    facts = json.loads((folder / IDENTITY).read_text(encoding="utf-8"))
    summary_path, ids = folder / SUMMARY, facts["problems"]
    found = read_samples(folder)
    if not summary_path.exists():
        needed = len(ids) * facts["num_samples"]
        raise BadInput(f"{folder} is not finished ({len(found)} of {needed} samples): give its dasd eval command again")
    num_samples = json.loads(summary_path.read_text(encoding="utf-8"))["num_samples"]
    records = [found[name, sample] for name in ids for sample in range(num_samples) if (name, sample) in found]
    if len(records) < len(ids) * num_samples:
        raise BadInput(f"{folder} has lost samples since its {SUMMARY} was written: give its dasd eval command again")
    return OnFile(folder, facts["identity"], ids, num_samples, records)


def _benchmark(name: str, a: OnFile, b: OnFile) -> dict[str, Any]:
    if a.identity["fingerprint"] != b.identity["fingerprint"]:
        raise BadInput(
            f"{name}: {a.folder} ({len(a.ids)} problems) and {b.folder} ({len(b.ids)}) asked different problems, so they "
            "cannot be paired: evaluate both on the same data"
        )
    settings = [{**run.identity["settings"], "model": None} for run in (a, b)]
    fewest = min(a.num_samples, b.num_samples)
    figures = _figures(a.sums, b.sums)
    shown = set(headline(figures, fewest))
    curve = {figure.removeprefix("pass_at_"): values for figure, values in figures.items() if figure.startswith("pass_at_")}
    right = [Counter(r["problem_id"] for r in run.records if r["status"] == GradeStatus.CORRECT) for run in (a, b)]
    return {
        "name": name,
        "num_problems": len(a.ids),
        "num_samples": [a.num_samples, b.num_samples],
        "settings_differ": {k: [v, settings[1].get(k)] for k, v in settings[0].items() if v != settings[1].get(k)},
        "figures": {figure: values for figure, values in figures.items() if figure in shown},
        "curves": {"pass_at_k": curve},
        "problems": [
            {"id": id, "samples": [a.num_samples, b.num_samples], "correct": [right[0][id], right[1][id]]} for id in a.ids
        ],
    }


def _figures(a: Sums, b: Sums) -> dict[str, Any]:
    """Every figure of both runs of one benchmark."""
    mine, theirs, differences = ratios_of_sums(a), ratios_of_sums(b), differences_of_ratios(a, b)
    return {
        name: _entry(mine[name], theirs[name], difference, swap_p_value([a[name]], [b[name]]))
        for name, difference in differences.items()
    }


def _macro(figures: list[str], a: list[Sums], b: list[Sums]) -> dict[str, Any]:
    """Means over benchmarks."""
    means = [macro_averages([{name: sums[name] for name in figures} for sums in side]) for side in (a, b)]
    entries = {}
    for name in figures:
        before, after = ([sums[name] for sums in side] for side in (a, b))
        difference = macro_difference(before, after)
        entries[name] = _entry(means[0][name], means[1][name], difference, swap_p_value(before, after))
    return entries


def _entry(a: Estimate, b: Estimate, difference: Estimate, p_value: float) -> dict[str, Any]:
    parts = {"a": a, "b": b, "difference": difference}
    ends = {side: {"mean": _known(e.mean), "low": _known(e.low), "high": _known(e.high)} for side, e in parts.items()}
    return {**ends, "p_value": _known(p_value)}


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
