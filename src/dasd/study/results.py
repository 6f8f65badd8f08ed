"""What do the cells that are done say? Everything as JSON-able data, of a half-finished study too.

Two figures of every evaluation set are compared with the reference: Avg@k, and Pass@k for the whole number of samples. Avg@k
on a task's own problems is the primary outcome and has a family of its own (all arms, all tasks); all others are secondary and
are corrected together. A verdict needs the corrected test and both intervals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import numpy as np

from dasd.config import BadInput, RunConfig
from dasd.evaluation.estimators import holm, pass_at_k
from dasd.presets import PRESETS
from dasd.study import statistics
from dasd.study.cells import Cell, all_cells, main_cells
from dasd.study.claims import better, paired
from dasd.study.config import Study, flat
from dasd.study.history import check, deviations, first
from dasd.study.outcome import CURVES
from dasd.study.predicted import against_effects, gains_against_effects
from dasd.study.search import read_choice
from dasd.study.sentences import sentences
from dasd.study.work import estimate
from dasd.training.silence import fall

MEASURES = ("avg", "pass")
THRESHOLDS = [round(0.02 * step, 2) for step in range(51)]
Record = dict[str, Any]
Read = list[tuple[Cell, Record]]  # the cells of one task and arm that are done, with what is kept of them


def results(study: Study, workers: int = 1) -> Record:
    """`study.json`: `cells`, `choices`, `results` (for each task, evaluation set and arm `avg` and `pass`), `findings`, ...

    Raises BadInput where cells of one task were not evaluated on the same problems, or cells are none of the study as it is now
    (`dasd.study.history`).
    """
    for each in (study, *study.also):
        check(each)
    cells, config = all_cells(study), study.config
    read = _read_all(study)
    rows = _rows(study, read)
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
        "apart": _apart(study),
        "results": rows,
        "better": better(rows),
        "pairs": _pairs(study, read),
        "fallen": _fallen(read),
        "aggregate": [_aggregate(study, arm, read) for arm in config.arms],
        "thresholds": THRESHOLDS,
        "minimum_effect": effects,
    }
    if config.predictions is not None:
        names = _names([study, *study.also])
        others = [(name, other, _rows(other, _read_all(other))) for name, other in zip(names[1:], study.also, strict=True)]
        of_all = [(names[0], study, rows), *others]
        found |= {"prediction": against_effects(study, of_all)} if study.probes else {}
        probed = found["prediction"]["cells"] if study.probes else ()
        found |= {"gain_prediction": gains_against_effects(study, of_all, probed)} if study.gains else {}
    return {**found, "findings": sentences(found)}


def _names(studies: Sequence[Study]) -> list[str]:
    """What each is called: its file's name, with the folder before it where two have the same, or the whole path."""
    paths = [study.path.resolve() for study in studies]
    for of in (lambda path: path.stem, lambda path: f"{path.parent.name}/{path.stem}"):
        names = list(map(of, paths))
        if len(set(names)) == len(names):
            return names
    return list(map(str, paths))


def _read_all(study: Study) -> dict[tuple[str, str], Read]:
    """(task, arm) -> its cells that are done. Raises BadInput."""
    config = study.config
    read = {(task, arm): _read(main_cells(study, task, arm)) for task in config.tasks for arm in config.arms}
    for task in config.tasks:
        _same_problems(task, [entry for arm in config.arms for entry in read[task, arm]])
    return read


def _fallen(read: Mapping[tuple[str, str], Read]) -> list[Record]:
    """Task and arm of which training made the model worse in some cells, with their seeds."""
    found = []
    for (task, arm), cells in read.items():
        curves = [(cell.seed, sorted(_curve(kept, "reward").items())) for cell, kept in cells]
        if seeds := [seed for seed, curve in curves if fall([{"reward": reward} for _, reward in curve])]:
            found.append({"task": task, "arm": arm, "seeds": seeds, "cells": len(cells)})
    return found


def _rows(study: Study, read: Mapping[tuple[str, str], Read]) -> list[Record]:
    """Every task, evaluation set and arm, with its verdicts."""
    config = study.config
    rows = [
        _row(study, task, name, arm, read[task, arm], read[task, config.reference])
        for task in config.tasks
        for name in (config.evaluation.split, *config.suites.get(task, ()))
        for arm in config.arms
    ]
    _judge(rows)
    return rows


def _judge(rows: Sequence[Record]) -> None:
    """Corrects the p-values within each family, and says what each comparison is worth. Those that are still to come, or have
    one seed so far, count with a p-value of 1: what half a study claims is not undone by its growth alone."""
    families: dict[bool, list[Record]] = {True: [], False: []}
    for row in rows:
        for kind in MEASURES:
            if row[kind] and not row["is_reference"]:
                families[row["own"] and kind == "avg"].append(row[kind])
    for family in families.values():
        tested = [of["difference"] for of in family]
        p_values = [each["p_value"] if each and each["seeds"] > 1 else 1.0 for each in tested]
        for each, corrected in zip(tested, holm(p_values), strict=True):
            if each:
                each["p_holm"] = corrected
    for row in rows:
        for kind in MEASURES:
            if row[kind]:
                row[kind]["verdict"] = verdict(row[kind]["difference"], row["is_reference"])


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


def scores_of(read: Read, name: str, k: int = 1) -> dict[int, np.ndarray]:
    """seed -> (problems,) Pass@k on the evaluation set; with k = 1 it is the share of right samples, Avg@k."""
    sets = {cell.seed: kept["sets"][name] for cell, kept in read}
    return {seed: pass_at_k(of["num_samples"], of["right"], k) for seed, of in sets.items()}


def _row(study: Study, task: str, name: str, arm: str, read: Read, reference: Read) -> Record:
    k, own, is_reference = (
        study.config.evaluation.num_samples,
        name == study.config.evaluation.split,
        arm == study.config.reference,
    )
    sizes = [2**power for power in range(k.bit_length()) if read]
    figures = {figure for _, kept in read for figure in kept["sets"][name]["figures"]}
    return {
        "task": task,
        "set": name,
        "own": own,
        "arm": arm,
        "is_reference": is_reference,
        "seeds": [cell.seed for cell, _ in read],
        "problems": len(read[0][1]["sets"][name]["right"]) if read else 0,
        "avg": _measure(scores_of(read, name), scores_of(reference, name), is_reference),
        "pass": _measure(scores_of(read, name, k), scores_of(reference, name, k), is_reference) if k > 1 else None,
        "pass_at_k": {size: _level(scores_of(read, name, size)) for size in sizes},
        "figures": {figure: _spread([kept["sets"][name]["figures"].get(figure) for _, kept in read]) for figure in figures},
        "curves": {curve: band([_curve(kept, curve) for _, kept in read]) for curve in CURVES} if own else {},
    }


def _measure(scores: dict[int, np.ndarray], theirs: dict[int, np.ndarray], is_reference: bool) -> Record:
    """`runs` (seed -> mean), `value` over all of them, `difference` from the reference over the seeds that both have."""
    runs = {seed: float(values.mean()) for seed, values in scores.items()}
    change = None if is_reference else paired(scores, theirs)
    return {"runs": runs, "value": _level(scores) if scores else None, "difference": change}


def _pairs(study: Study, read: Mapping[tuple[str, str], Read]) -> list[Record]:
    """Avg@k of one arm minus another's on each task's own problems, of the pairs that the study names; of no family."""
    own = study.config.evaluation.split
    return [
        {"task": task, "arm": arm, "other": other, "difference": found}
        for task in study.config.tasks
        for arm, other in study.config.pairs
        if (found := paired(scores_of(read[task, arm], own), scores_of(read[task, other], own)))
    ]


def _spread(values: Sequence[float | None]) -> Record | None:
    """Mean, least and most over runs; None where one of them does not have the figure."""
    known = [value for value in values if value is not None]
    if not known or len(known) < len(values):
        return None
    return {"mean": float(np.mean(known)), "low": min(known), "high": max(known)}


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
    """Of the primary outcome."""
    scores = list(scores_of(read, study.config.evaluation.split).values())
    comparisons = max(1, (len(study.config.arms) - 1) * len(study.config.tasks))
    size = {"seeds": len(study.config.seeds), "comparisons": comparisons, "from_seeds": len(scores)}
    if len(scores) < 2:
        why: str | None = "one seed" if size["seeds"] < 2 else f"needs two finished seeds of {study.config.reference}"
        return {"task": task, "effect": None, "why": why, **size, "problems": len(scores[0]) if scores else None}
    of = statistics.noise(np.stack(scores))
    effect = statistics.minimum_detectable_effect(of, len(study.config.seeds), len(scores[0]), comparisons)
    shown = None if np.isnan(effect) else effect
    why = f"the seeds of {study.config.reference} do not differ" if shown is None else None
    return {"task": task, "effect": shown, "why": why, **size, "problems": len(scores[0]), "variances": vars(of)}


def _aggregate(study: Study, arm: str, read: dict[tuple[str, str], Read]) -> Record:
    own = study.config.evaluation.split
    runs = [[values.mean() for values in scores_of(read[task, arm], own).values()] for task in study.config.tasks]
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


def _apart(study: Study) -> list[Record]:
    """Settings of the training that an arm and the reference do not share, but for what belongs to either's method; not those
    that the reference's search chose, of which `choices` has both sides."""
    found: list[Record] = []
    for task in study.config.tasks:
        runs = {arm: _settled_run(study, task, arm) for arm in study.config.arms}
        if (reference := runs.pop(study.config.reference)) is None:
            continue
        theirs, chosen = reference
        was = flat({"training": theirs.training.model_dump(mode="json")})
        for arm, ours in ((arm, known[0]) for arm, known in runs.items() if known):
            now = flat({"training": ours.training.model_dump(mode="json")})
            said = {*_of_the_method(theirs), *_of_the_method(ours), *chosen}
            found += [
                {"task": task, "arm": arm, "key": key, "reference": was.get(key), "value": now.get(key)}
                for key in {**was, **now}
                if was.get(key, {}) != now.get(key, {}) and key not in said
            ]
    return found


def _settled_run(study: Study, task: str, arm: str) -> tuple[RunConfig, Record] | None:
    """How an arm is run, and what its search chose; None while the search is open."""
    if (choice := read_choice(study, task, arm)) is None:
        return None
    return main_cells(study, task, arm)[0].run_config(choice["chosen"]), choice["chosen"]


def _of_the_method(run: RunConfig) -> Record:
    return flat({"training": PRESETS.get(run.method.name, {}).get("training", {})})


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
