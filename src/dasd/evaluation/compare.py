"""Is one run better than another? Any number of runs, each one model or several seeds of it, on the same problems.

Every run is compared with the first: its difference has a 95 % interval from a bootstrap that draws the same problems for
both, and a p-value. Of single runs that is a test which swaps them problem by problem; of several seeds it comes from the
draws, which hold the noise of the seeds. With several comparisons p-values are also given as Holm's correction has them.
"""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from dasd.config import BadInput
from dasd.evaluation.estimators import Draws, draws_of, holm, macro_draws, mean_of_seeds, swap_p_value
from dasd.evaluation.groups import Group
from dasd.evaluation.readers import OnFile
from dasd.evaluation.summary import Record, Sums, headline
from dasd.tasks.base import GradeStatus

CSV_COLUMNS = (
    "benchmark", "figure", "run", "mean", "low", "high", "difference", "difference_low", "difference_high", "p_value", "p_holm",
)  # fmt: skip


def compare_runs(groups: Sequence[Group]) -> dict[str, Any]:
    """Everything the runs say about each other, as JSON-able data. Raises BadInput where they cannot be compared.

    `runs`        `name`, `model`, `paths`, `method`, `seeds`, `date` of each, in the order given; the first is the baseline
    `benchmarks`  one entry for each benchmark that all have: `name`, `num_problems`, `num_samples` (of each run),
                  `settings_differ` (setting -> the value of each run), `figures`, `curves`, `problems`
      `figures`   figure -> `values` (of each run: `mean`, `low`, `high`) and `differences` (of each run but the first from
                  the first: the same, `p_value` and `p_holm`); null if undefined
      `curves`    `pass_at_k` -> k (text) -> the same
      `problems`  each problem's `id`, and `samples` and `correct` of each run
    `macro`       figure -> the same as in `figures`, the mean over benchmarks, for figures that all of them have
    `missing`     run -> benchmarks that it lacks and another has
    """
    every = list(dict.fromkeys(name for group in groups for name in group.benchmarks))
    names = [name for name in every if all(name in group.benchmarks for group in groups)]
    if not names:
        has = "; ".join(
            f"{group.name} has {', '.join(group.benchmarks) or 'none that all its seeds share'}" for group in groups
        )
        raise BadInput(f"these runs have no benchmark in common: {has}")
    benchmarks = [_benchmark(name, groups) for name in names]
    shown = [figure for figure in benchmarks[0]["figures"] if all(figure in entry["figures"] for entry in benchmarks)]
    missing = {group.name: [name for name in every if name not in group.benchmarks] for group in groups}
    return {
        "runs": [group.who for group in groups],
        "benchmarks": benchmarks,
        "macro": _macro(shown, names, groups),
        "missing": {name: lacks for name, lacks in missing.items() if lacks},
    }


def one_run(overview: Record) -> dict[str, Any]:
    """A single model's `summary.json` in the shape of `compare_runs`, with no differences."""

    def entry(mean: float, ends: Sequence[float]) -> Record:
        return {"values": [{"mean": _known(mean), "low": _known(ends[0]), "high": _known(ends[1])}], "differences": []}

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
    who = {"name": "", "model": overview["model"], "paths": [], "method": None, "seeds": [], "date": ""}
    return {"runs": [who], "benchmarks": benchmarks, "macro": figures(overview["macro"]), "missing": {}}


def table_rows(result: dict[str, Any]) -> list[dict[str, Any]]:
    """The comparison as flat rows with CSV_COLUMNS, the means over benchmarks last under the name `macro`."""
    parts = [(benchmark["name"], benchmark["figures"]) for benchmark in result["benchmarks"]]
    rows = []
    for benchmark, figures in [*parts, ("macro", result["macro"])]:
        for figure, entry in figures.items():
            for run, value, difference in zip(result["runs"], entry["values"], [{}, *entry["differences"]], strict=True):
                cells = [value[end] for end in ("mean", "low", "high")]
                cells += [difference.get(key) for key in ("mean", "low", "high", "p_value", "p_holm")]
                rows.append(dict(zip(CSV_COLUMNS, (benchmark, figure, run["name"], *cells), strict=True)))
    return rows


def as_csv(result: dict[str, Any]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(table_rows(result))
    return text.getvalue()


def _benchmark(name: str, groups: Sequence[Group]) -> dict[str, Any]:
    files = [group.of(name) for group in groups]
    _check(name, [each for seeds in files for each in seeds], groups)
    settings = [{**seeds[0].identity["settings"], "model": None} for seeds in files]
    every = dict.fromkeys(key for each in settings for key in each)
    values = {key: [each.get(key) for each in settings] for key in every}
    figures = _figures([[each.sums for each in seeds] for seeds in files])
    fewest = min(seeds[0].num_samples for seeds in files)
    shown = set(headline(figures, fewest))
    curve = {figure.removeprefix("pass_at_"): entry for figure, entry in figures.items() if figure.startswith("pass_at_")}
    right = [Counter(r["problem_id"] for each in seeds for r in each.records if _right(r)) for seeds in files]
    samples = [sum(each.num_samples for each in seeds) for seeds in files]
    return {
        "name": name,
        "num_problems": len(files[0][0].ids),
        "num_samples": [seeds[0].num_samples for seeds in files],
        "settings_differ": {key: given for key, given in values.items() if any(value != given[0] for value in given)},
        "figures": {figure: entry for figure, entry in figures.items() if figure in shown},
        "curves": {"pass_at_k": curve},
        "problems": [{"id": id, "samples": samples, "correct": [each[id] for each in right]} for id in files[0][0].ids],
    }


def _check(name: str, files: Sequence[OnFile], groups: Sequence[Group]) -> None:
    first = files[0]
    for other in files[1:]:
        if other.identity["fingerprint"] != first.identity["fingerprint"] or set(other.ids) != set(first.ids):
            raise BadInput(
                f"{name}: {first.folder} ({len(first.ids)} problems) and {other.folder} ({len(other.ids)}) asked different "
                "problems, so they cannot be paired: evaluate both on the same data"
            )
        if other.ids != first.ids:
            raise BadInput(f"{name}: {first.folder} and {other.folder} hold the same problems in another order")
    for group in groups:
        if len(counts := {each.num_samples for each in group.of(name)}) > 1:
            raise BadInput(f"{name}: the seeds of {group.name} have {' and '.join(map(str, sorted(counts)))} samples a problem")


def _figures(groups: list[list[Sums]]) -> dict[str, Any]:
    """Every figure that all runs of one benchmark have. `groups`: for each run its seeds."""
    names = [name for name in groups[0][0] if all(name in sums for seeds in groups for sums in seeds)]
    drawn = [[draws_of({name: sums[name] for name in names}) for sums in seeds] for seeds in groups]
    return {
        name: _entry(
            [[draws[name] for draws in seeds] for seeds in drawn], [[[sums[name]] for sums in seeds] for seeds in groups]
        )
        for name in names
    }


def _macro(figures: list[str], benchmarks: list[str], groups: Sequence[Group]) -> dict[str, Any]:
    """Means over benchmarks."""
    sums = [[[run.benchmarks[name].sums for name in benchmarks] for run in group.runs] for group in groups]
    drawn = [
        [macro_draws([{name: each[name] for name in figures} for each in run]) for run in seeds] if figures else []
        for seeds in sums
    ]
    return {
        name: _entry(
            [[draws[name] for draws in seeds] for seeds in drawn],
            [[[each[name] for each in run] for run in seeds] for seeds in sums],
        )
        for name in figures
    }


def _entry(drawn: list[list[Draws]], pairs: list[list[list[Any]]]) -> dict[str, Any]:
    """One figure: the value of each run, and each difference from the first. `pairs`: run, seed, benchmark."""
    means = [mean_of_seeds(seeds, stream) for stream, seeds in enumerate(drawn)]
    differences, p_values = [mean - means[0] for mean in means[1:]], []
    for difference, seeds in zip(differences, pairs[1:], strict=True):
        single = len(seeds) == len(pairs[0]) == 1
        p_values.append(swap_p_value(pairs[0][0], seeds[0]) if single else difference.p_value)
    corrected = holm(p_values)
    return {
        "values": [_ends(mean) for mean in means],
        "differences": [
            _ends(difference) | {"p_value": _known(p), "p_holm": _known(q)}
            for difference, p, q in zip(differences, p_values, corrected, strict=True)
        ],
    }


def _ends(draws: Draws) -> dict[str, Any]:
    estimate = draws.estimate
    return {"mean": _known(estimate.mean), "low": _known(estimate.low), "high": _known(estimate.high)}


def _right(record: Record) -> bool:
    return record["status"] == GradeStatus.CORRECT


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
