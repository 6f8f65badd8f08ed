"""What do the cells that are done say? Everything as JSON-able data, of a half-finished study too; and the sentences.

A sentence says that one arm is above another only if the corrected test and both intervals say so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from dasd.config import BadInput
from dasd.evaluation.estimators import holm, pass_at_k
from dasd.study import statistics
from dasd.study.cells import Cell, all_cells, main_cells
from dasd.study.config import Study
from dasd.study.history import deviations, first
from dasd.study.outcome import CURVES
from dasd.study.search import read_choice
from dasd.study.work import estimate

THRESHOLDS = [round(0.02 * step, 2) for step in range(51)]
Record = dict[str, Any]
Read = list[tuple[Cell, Record]]  # the cells of one task and arm that are done, with what is kept of them


def results(study: Study, workers: int = 1) -> Record:
    """`study.json`: `cells`, `choices`, `results` (one for each task and arm), `aggregate`, `minimum_effect`, `findings`, ...

    Raises BadInput where cells of one task were not evaluated on the same problems.
    """
    cells, config = all_cells(study), study.config
    read = {(task, arm): _read(main_cells(study, task, arm)) for task in config.tasks for arm in config.arms}
    for task in config.tasks:
        _same_problems(task, [entry for arm in config.arms for entry in read[task, arm]])
    rows = [
        _row(study, task, arm, read[task, arm], read[task, config.reference]) for task in config.tasks for arm in config.arms
    ]
    tested = [row["difference"] for row in rows if row["difference"]]
    for difference, corrected in zip(tested, holm([each["p_value"] for each in tested]), strict=True):
        difference["p_holm"] = corrected
    for row in rows:
        row["verdict"] = verdict(row["difference"], row["is_reference"])
    effects = [_effect(study, task, read[task, config.reference]) for task in config.tasks]
    states = [_state(cell) for cell in cells]
    found: Record = {
        "study": str(study.path),
        "output": config.output,
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": version("dasd"),
        "tasks": list(config.tasks),
        "arms": list(config.arms),
        "reference": config.reference,
        "seeds": list(config.seeds),
        "steps": config.steps,
        "num_samples": config.evaluation.num_samples,
        "split": config.evaluation.split,
        "plan": {"path": str(study.plan), "sha256": study.plan_sha256, "first": first(study)},
        "deviations": deviations(study),
        "progress": {
            "cells": len(cells),
            "done": sum(each["state"] == "done" for each in states),
            "failed": sum(each["state"] == "failed" for each in states),
            "seconds_left": estimate(cells, workers),
            "workers": workers,
        },
        "cells": states,
        "choices": _choices(study),
        "results": rows,
        "aggregate": [_aggregate(study, arm, read) for arm in config.arms],
        "thresholds": THRESHOLDS,
        "minimum_effect": effects,
    }
    return {**found, "findings": sentences(found)}


def verdict(difference: Record | None, is_reference: bool = False) -> str:
    """above, below or undecided; reference, unknown (no pairs yet), one seed."""
    if is_reference:
        return "reference"
    if difference is None:
        return "unknown"
    if difference["seeds"] < 2:
        return "one seed"
    ends = (difference["low"], difference["resampled"][0]), (difference["high"], difference["resampled"][1])
    if difference["p_holm"] < statistics.LEVEL and min(ends[0]) > 0:
        return "above"
    if difference["p_holm"] < statistics.LEVEL and max(ends[1]) < 0:
        return "below"
    return "undecided"


def sentences(found: Record) -> list[str]:
    """What is supported and what is not, for a reader who sees nothing else."""
    progress, reference = found["progress"], found["reference"]
    said = []
    if progress["done"] < progress["cells"]:
        failed = f", {progress['failed']} failed" if progress["failed"] else ""
        said.append(
            f"The study is not finished: {progress['done']} of {progress['cells']} cells are done{failed}. "
            "What follows is provisional."
        )
    by_task: dict[str, list[Record]] = {}
    for row in found["results"]:
        by_task.setdefault(row["task"], []).append(row)
    effects = {entry["task"]: entry["effect"] for entry in found["minimum_effect"]}
    for task, rows in by_task.items():
        told = {
            key: [row for row in rows if row["verdict"] == key]
            for key in ("above", "below", "undecided", "one seed", "unknown")
        }
        for key in ("above", "below"):
            for row in told[key]:
                said.append(f"Supported, on {task}: {row['arm']} is {key} {reference} by {_difference(row['difference'])}.")
        if told["undecided"]:
            names = "; ".join(f"{row['arm']} {_difference(row['difference'])}" for row in told["undecided"])
            effect = effects.get(task)
            seen = f" {_can_find(effect)}" if effect is not None else ""
            said.append(
                f"Not supported, on {task}: any difference from {reference} of {names}. "
                f"That is no evidence that there is none.{seen}"
            )
        if told["one seed"]:
            names = ", ".join(row["arm"] for row in told["one seed"])
            said.append(
                f"Not supported, on {task}: anything about {names}; one pair of seeds says nothing about the noise of training."
            )
        if told["unknown"]:
            names = ", ".join(row["arm"] for row in told["unknown"])
            said.append(f"Unknown, on {task}: {names}; no seed is done for both it and {reference}.")
    short = [row for row in found["results"] if 0 < len(row["seeds"]) < len(found["seeds"])]
    if short and progress["done"] == progress["cells"]:
        said.append(
            "Some arms have fewer seeds than planned: " + ", ".join(f"{row['task']} {row['arm']}" for row in short) + "."
        )
    said.append(
        "The plan was written down before the first run and has not changed since."
        if not found["deviations"] and found["plan"]["first"]
        else "No run has been made yet."
        if not found["plan"]["first"]
        else "Deviations from the plan: " + " ".join(found["deviations"])
    )
    return said


def _can_find(effect: float) -> str:
    if effect >= 1:
        return "A study of this size can find none."
    return f"A study of this size finds a difference of {effect:.3f} four times in five, smaller ones less often."


def _difference(difference: Record) -> str:
    p = difference["p_holm"]
    shown = "p < 0.0001" if p < 0.0001 else f"p = {p:.4f}"
    ends = f"[{difference['low']:+.3f}, {difference['high']:+.3f}]"
    return f"{difference['mean']:+.3f} {ends} (Avg@k, {difference['seeds']} seeds, {shown} after Holm)"


def _read(cells: Sequence[Cell]) -> Read:
    return [(cell, kept) for cell in cells if (kept := cell.outcome)]


def _same_problems(task: str, read: Read) -> None:
    for cell, kept in read[1:]:
        ours, theirs = ({name: _asked(each) for name, each in of["sets"].items()} for of in (kept, read[0][1]))
        if ours != theirs:
            raise BadInput(
                f"{task}: {read[0][0].folder} and {cell.folder} were not evaluated on the same problems and as many samples, "
                "so they cannot be paired: delete one of the two and run the study again"
            )


def _asked(of: Record) -> tuple[str, int, int]:
    return of["fingerprint"], len(of["right"]), of["num_samples"]


def scores_of(read: Read, k: int = 1) -> dict[int, np.ndarray]:
    """seed -> (problems,) Pass@k, which with k = 1 is the share of right samples, Avg@k."""
    sets = {cell.seed: kept["sets"][cell.own_set] for cell, kept in read}
    return {seed: pass_at_k(of["num_samples"], of["right"], k) for seed, of in sets.items()}


def _row(study: Study, task: str, arm: str, read: Read, reference: Read) -> Record:
    scores, theirs = scores_of(read), scores_of(reference)
    shared = [seed for seed in scores if seed in theirs]
    is_reference, difference = arm == study.config.reference, None
    if shared and not is_reference:
        pair = (np.stack([side[seed] for seed in shared]) for side in (scores, theirs))
        found = statistics.paired_difference(*pair)
        difference = {**vars(found), "resampled": list(found.resampled), "p_holm": math.nan}
    k = study.config.evaluation.num_samples if read else 0
    sizes = [2**power for power in range(k.bit_length()) if 2**power <= k]
    curve = {size: _level(scores_of(read, size)) for size in sizes}
    return {
        "task": task,
        "arm": arm,
        "is_reference": is_reference,
        "seeds": list(scores),
        "problems": len(next(iter(scores.values()))) if scores else 0,
        "runs": {seed: float(values.mean()) for seed, values in scores.items()},
        "value": _level(scores) if scores else None,
        "difference": difference,
        "pass_at_k": curve,
        "curves": {name: band([_curve(kept, name) for _, kept in read]) for name in CURVES},
    }


def _level(scores: dict[int, np.ndarray]) -> Record:
    return vars(statistics.level(np.stack(list(scores.values()))))


def _curve(kept: Record, name: str) -> dict[int, float]:
    return {int(step): value for step, value in kept["curves"].get(name, {}).items()}


def band(series: Sequence[dict[int, float]]) -> Record | None:
    """Mean, least and most over the runs at each step that all of them have; None where there is none."""
    steps = sorted(set.intersection(*map(set, series))) if series else []
    if not steps:
        return None
    values = np.array([[each[step] for step in steps] for each in series])
    ends = {"mean": values.mean(axis=0), "low": values.min(axis=0), "high": values.max(axis=0)}
    return {"step": steps, **{name: line.tolist() for name, line in ends.items()}}


def _effect(study: Study, task: str, read: Read) -> Record:
    scores = list(scores_of(read).values())
    comparisons = max(1, (len(study.config.arms) - 1) * len(study.config.tasks))
    size = {"seeds": len(study.config.seeds), "comparisons": comparisons, "from_seeds": len(scores)}
    if len(scores) < 2:
        return {"task": task, "effect": None, **size, "problems": len(scores[0]) if scores else None}
    of = statistics.noise(np.stack(scores))
    effect = statistics.minimum_detectable_effect(of, len(study.config.seeds), len(scores[0]), comparisons)
    shown = None if math.isnan(effect) else effect
    return {"task": task, "effect": shown, **size, "problems": len(scores[0]), "variances": vars(of)}


def _aggregate(study: Study, arm: str, read: dict[tuple[str, str], Read]) -> Record:
    runs = [[values.mean() for values in scores_of(read[task, arm]).values()] for task in study.config.tasks]
    interval = statistics.interquartile_interval(runs)
    return {"arm": arm, "runs": sum(map(len, runs)), "interquartile_mean": vars(interval),
            "profile": statistics.performance_profile(runs, THRESHOLDS).tolist()}  # fmt: skip


def _choices(study: Study) -> list[Record]:
    found = []
    for task in study.config.tasks:
        for arm in study.config.arms:
            choice = read_choice(study, task, arm)
            if choice is None or choice["candidates"]:
                found.append({"task": task, "arm": arm, **(choice or {"chosen": None, "candidates": []})})
    return found


def _state(cell: Cell) -> Record:
    state = cell.state
    name = (
        "done"
        if cell.done
        else "failed"
        if state.get("error")
        else "started"
        if (cell.folder / "cell.yaml").exists()
        else "open"
    )
    why = state.get("error") if name == "failed" else None
    score = cell.score if name == "done" else None
    return {"name": cell.name, "task": cell.task, "arm": cell.arm, "seed": cell.seed, "search": cell.candidate, "state": name,
            "why": why, "seconds": state.get("seconds"), "score": score}  # fmt: skip
