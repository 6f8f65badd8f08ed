"""What is kept of a cell that is done: `outcome.json`, a few kilobytes, all that the analysis reads. Imports no torch.

How many samples of each problem are right in each evaluation set (which is all that Avg@k and Pass@k need), figures of the
samples, the run's curves, and the settings that it was run with. Checkpoints, samples and logs may be deleted once it is there.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from dasd.config import RunConfig
from dasd.evaluation.readers import OnFile, read_run
from dasd.files import read_json, read_lines, write_text
from dasd.study.cells import EVALUATION, OUTCOME, SUITES, Cell, asked_of, settings_of
from dasd.tasks.base import GradeStatus

CURVES = {
    "reward": ("metrics.jsonl", "reward"),
    "entropy": ("metrics.jsonl", "entropy"),
    "length": ("metrics.jsonl", "completions/mean_length"),
    "teacher": ("metrics.jsonl", "credit/teacher"),
    "validation": ("validation.jsonl", "avg_at_"),
}
FIGURES = (
    "step_accuracy", "epistemic_per_response", "revision_rate", "mean_length", "truncated", "no_answer",
    "distinct_trigrams_at_16",
)  # fmt: skip
Record = dict[str, Any]


def keep(cell: Cell, config: RunConfig) -> Record:
    """Writes the outcome of a cell whose commands, with this config, have ended well. Raises BadInput where an evaluation is
    unfinished.
    """
    [own] = read_run(cell.folder / EVALUATION).benchmarks.values()
    suites = read_run(cell.folder / SUITES).benchmarks if cell.suites else {}
    run = read_json(cell.folder / "run.json") or {}
    kept = {
        "steps": (read_json(cell.folder / "result.json") or {}).get("steps", 0),
        "seed": cell.seed,
        "settings": settings_of(config),
        "evaluation": asked_of(cell),
        "made": {key: run.get(key) for key in ("started", "git_revision")} | {"versions": run.get("versions", {})},
        "sets": {cell.own_set: _set(own), **{name: _set(each) for name, each in suites.items()}},
        "curves": {name: _series(cell.folder / file, key) for name, (file, key) in CURVES.items()},
    }
    write_text(cell.folder / OUTCOME, _lines(kept))
    return kept


def _set(evaluation: OnFile) -> Record:
    right = Counter(record["problem_id"] for record in evaluation.records if record["status"] == GradeStatus.CORRECT)
    summary = read_json(evaluation.folder / "summary.json") or {}
    return {
        "fingerprint": evaluation.identity["fingerprint"],
        "num_samples": evaluation.num_samples,
        "right": [right[name] for name in evaluation.ids],
        "figures": {name: _short(summary[name]) for name in FIGURES if summary.get(name) is not None},
    }


def _series(path: Path, key: str) -> dict[int, float]:
    """step -> a figure that a run logged; a key that ends in _ is the start of its name."""
    found = {}
    for line in read_lines(path):
        name = next((name for name in line if name == key or (key.endswith("_") and name.startswith(key))), None)
        if name is not None and isinstance(line[name], int | float):
            found[int(line["step"])] = _short(line[name])
    return found


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _lines(kept: Mapping[str, Any]) -> str:
    """JSON with a line for each set and curve: short, and changes of it can be read."""

    def of(value: Any, depth: int) -> str:
        if depth == 0 or not isinstance(value, Mapping) or not value:
            return json.dumps(value)
        indent = "  " * (3 - depth)
        inner = ",\n".join(f"{indent}{json.dumps(str(key))}: {of(item, depth - 1)}" for key, item in value.items())
        return f"{{\n{inner}\n{indent[2:]}}}"

    return of(kept, 2) + "\n"
