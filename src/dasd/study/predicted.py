"""Could one have known before training? What was predicted of each arm, beside what the study measured.

Of two kinds. *Forced tokens*: the probe's mean change of correctness if the arm's rule (conform, deviate or nothing, below and
above an entropy quantile) were followed at one token, in the arm's own context (`dasd.analysis.predictions`). Only arms that
add DASD's credit to the reference's at one dose have one: then what differs between them is direction and context alone. *The
first update*: every arm's relative first-order gain (`dasd.analysis.first_order`). Predictions are of a token or an update, and
effects of a whole training, so their order is compared, not their size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from os.path import normpath
from pathlib import Path
from typing import Any

import numpy as np

from dasd.analysis import first_order
from dasd.analysis.correlation import spearman
from dasd.analysis.first_order import told_apart_by
from dasd.config import BadInput, RunConfig
from dasd.files import read_json
from dasd.study.cells import Cell, all_cells, candidates
from dasd.study.config import Study, flat, is_of
from dasd.study.search import read_choice

LEAST_CELLS = 8  # with fewer there is no verdict
DRAWS = 10_000
OF_UPDATE = (
    "method", "teacher",
    *(f"training.{key}" for key in (*first_order.OF_UPDATE, *first_order.OF_ADAPTER)),
    *(f"training.trl.{key}" for key in first_order.OF_UPDATE_IN_TRL),
)  # fmt: skip
OPPOSITE = {"conform": "deviate", "deviate": "conform"}
MAPS = {
    **dict.fromkeys(("tanh", "linear", "hard"), ("conform", "deviate")),
    "attract": ("conform", "conform"),
    "repel": ("deviate", "deviate"),
}
Record = dict[str, Any]
Rule = tuple[str | None, str | None, float | None]  # below and above the quantile; no quantile where both are the same


def rule_of(run: RunConfig, beta: float) -> Rule | None:
    """What a run does at its tokens; None where it is no such rule, at this dose, by the student's entropy. Imports torch."""
    from dasd.credit.direction import DirectionAdaptive
    from dasd.credit.methods import make_method

    method = make_method(run.method.name, run.method.settings)
    if type(method) is not DirectionAdaptive or method.map not in MAPS:
        return None
    if method.beta != beta or method.signal != "student_entropy":
        return None
    below: str | None
    above: str | None
    below, above = MAPS[method.map]
    below = OPPOSITE[below] if method.flip == "low" else below
    above = OPPOSITE[above] if method.flip == "high" else above
    below, above = (None if method.arm == "high" else below), (None if method.arm == "low" else above)
    if below == above:
        return below, above, None
    rho = round(method.rho, 1)
    return (below, above, rho) if abs(method.rho - rho) < 1e-9 else None  # the probe predicts tenths only


def predicted(probes: Sequence[Record], context: str, rule: Rule) -> Record | None:
    """Mean of the probes' predictions, and of the ends of their intervals (they share their problems, so several are hardly
    surer than one); None where no probe saw that context at places enough.
    """
    found = [
        entry
        for probe in probes
        for entry in probe["contexts"].get(context, {}).get("rules", ())
        if (entry["below"], entry["above"], entry["rho"]) == rule and entry["enough"]
    ]
    if not found:
        return None
    return {key: float(np.mean([entry[key] for entry in found])) for key in ("mean", "low", "high")} | {"probes": len(found)}


def against_effects(study: Study, studies: Sequence[tuple[str, Study, Sequence[Record]]]) -> Record:
    """What forced tokens predicted: of each (name, study, rows of its results) `cells`, and what `judged` says of them.

    Raises BadInput for an old probe, and for one of another task or model.
    """
    asked = study.config.predictions
    if asked is None:
        raise ValueError("the study has no predictions")
    probes = {task: [_probe(path) for path in paths] for task, paths in study.probes.items()}
    for _, each, _ in studies:
        for task in each.config.tasks:
            for path, probe in zip(study.probes.get(task, ()), probes.get(task, ()), strict=True):
                _is_of_that_task(path, probe, each, task)

    def guess(of: Study, row: Record) -> Record | None:
        if (run := _as_chosen(of, row["task"], row["arm"])) is None:
            return None
        rule = rule_of(run, asked.beta)
        said = predicted(probes.get(row["task"], ()), run.teacher.context, rule) if rule else None
        return {"predicted": said, "by": run.teacher.context} if said else None

    return _compared(_cells(studies, guess), "the probe")


def _as_chosen(study: Study, task: str, arm: str) -> RunConfig | None:
    """An arm with the settings that its search chose; None while a search is open that tries some of what its update is of."""
    choice, tried = read_choice(study, task, arm), next(iter(candidates(study, arm)), {})
    if choice is None and any(is_of(key, OF_UPDATE) for key in tried):
        return None
    return Cell(study, task, arm, study.config.seeds[0]).run_config(choice["chosen"] if choice else tried)


def gains_against_effects(
    study: Study, studies: Sequence[tuple[str, Study, Sequence[Record]]], probed: Sequence[Record] = ()
) -> Record:
    """The same of what the first update predicted: of every arm that a `gain.json` of its task has by name, the mean of them.
    `probed` are cells that forced tokens have a prediction of: both are comparable over the same ones only (`on_the_same`).
    `beforehand` is what is judged of the arms that were begun after the predictions were on file, if the study says when;
    where that is all or none of them, a sentence says so.

    Raises BadInput for a file that is none of `dasd gain`, has another reference than the study, or another arm of that name.
    """
    reference = study.config.reference
    files = {task: [(path, _gains(path, reference)) for path in paths] for task, paths in study.gains.items()}
    for _, each, rows in studies:
        for row in (row for row in rows if row["own"]):
            for path, file in files.get(row["task"], ()):
                _is_of_that_arm(path, file, each, row)  # the reference, too, which has no difference and is in every gain

    def guess(of: Study, row: Record) -> Record | None:
        found = [file["gains"][row["arm"]] for _, file in files.get(row["task"], ()) if row["arm"] in file["gains"]]
        means = {key: float(np.mean([each[key] for each in found])) for key in ("mean", "low", "high")} if found else None
        return {"predicted": means, "by": "first update"} if means else None

    cells, whose = _cells(studies, guess), "the first update"
    found, same = _compared(cells, whose), {_name(cell) for cell in probed}
    parts = {"on_the_same": ([cell for cell in cells if _name(cell) in same], "that the probe has a prediction of")}
    if study.config.predictions is not None and (since := study.config.predictions.since) is not None:
        begun = {(name, *arm): when for name, of, _ in studies for arm, when in _begun(of).items()}
        for cell in cells:
            cell["beforehand"] = begun[_name(cell)] > since
        later = [cell for cell in cells if cell["beforehand"]]
        parts["beforehand"] = (later, "of which no run had begun when it was on file")
    for key, (part, which) in parts.items():
        if 0 < len(part) < len(cells):
            found[key] = judged(part, f"{whose}, of the arms {which},")
            found["sentences"].append(found[key]["sentence"])
    if cells and "beforehand" in parts and (count := len(parts["beforehand"][0])) in (0, len(cells)):
        found["sentences"].append(f"All of these {len(cells)} arms were begun {'after' if count else 'before'} it was on file.")
    return found


def _begun(study: Study) -> dict[tuple[str, str], datetime]:
    """(task, arm) -> when its first run began, of the search and of those that are under way too; the beginning of time where
    one that is done does not say when.
    """
    found: dict[tuple[str, str], datetime] = {}
    for cell in all_cells(study):
        kept, run = cell.outcome, read_json(cell.folder / "run.json")
        if kept is not None or run:
            started = (kept.get("made", {}) if kept is not None else run or {}).get("started")
            when = datetime.fromisoformat(started) if started else datetime.min.replace(tzinfo=UTC)
            found[cell.task, cell.arm] = min(when, found.get((cell.task, cell.arm), when))
    return found


def _compared(cells: Sequence[Record], whose: str) -> Record:
    """`cells`, what `judged` says of all and, where there are several tasks, `by_task` of each alone; all `sentences`."""
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    found = {"cells": list(cells), **judged(cells, whose)}
    found["by_task"] = {
        task: judged([cell for cell in cells if cell["task"] == task], f"{whose}, {task} alone,")
        for task in (tasks if len(tasks) > 1 else ())
    }
    return {**found, "sentences": [found["sentence"], *(of["sentence"] for of in found["by_task"].values())]}


def _name(cell: Record) -> tuple[str, str, str]:
    return cell["study"], cell["task"], cell["arm"]


def _cells(
    studies: Sequence[tuple[str, Study, Sequence[Record]]], guess: Callable[[Study, Record], Record | None]
) -> list[Record]:
    """Of every arm that was measured and has a prediction, both, and what it was predicted `by`."""
    cells = []
    for name, of, rows in studies:
        for row in rows:
            difference = row["avg"]["difference"]
            if not row["own"] or difference is None or (said := guess(of, row)) is None:
                continue
            measured = {key: difference[key] for key in ("mean", "low", "high")}
            cells.append({"study": name, "task": row["task"], "arm": row["arm"], **said, "measured": measured})
    return cells


def judged(cells: Sequence[Record], whose: str) -> Record:
    """`spearman` with its interval, `signs` (agree, of those clear in both), `verdict`, `sentence`, which says `whose` it is.

    Predicts: at least LEAST_CELLS cells, and the interval lies above 0. Misleads: it lies below. The interval draws cells.
    """
    guessed, effects = ([np.array([cell[side]["mean"]]) for cell in cells] for side in ("predicted", "measured"))
    rank = spearman(guessed, effects, draws=DRAWS)
    clear = [cell for cell in cells if _clear(cell["predicted"]) and _clear(cell["measured"])]
    agree = sum(_clear(cell["predicted"]) == _clear(cell["measured"]) for cell in clear)
    if len(cells) < LEAST_CELLS or not np.isfinite(rank["low"]):
        verdict = "too few"
    else:
        verdict = "predicts" if rank["low"] > 0 else "misleads" if rank["high"] < 0 else "undecided"
    signs = {"agree": agree, "of": len(clear)}
    found = {"spearman": {key: rank[key] for key in ("mean", "low", "high")}, "signs": signs, "verdict": verdict}
    return {**found, "sentence": _sentence(cells, found, whose)}


def _sentence(cells: Sequence[Record], found: Record, whose: str) -> str:
    tasks = list(dict.fromkeys(cell["task"] for cell in cells))
    rank, signs, n = found["spearman"], found["signs"], len(cells)
    if found["verdict"] == "too few":
        value = "" if not np.isfinite(rank["mean"]) else f" (rank correlation {rank['mean']:+.2f})"
        count = "1 cell" if n == 1 else f"{n} cells"
        return f"Prediction of {whose} against effect: no verdict from {count}, {LEAST_CELLS} are the least{value}."
    said = {
        "predicts": "its order is that of the effects",
        "misleads": "its order is the reverse of the effects'",
        "undecided": "undecided whether its order is that of the effects",
    }[found["verdict"]]
    shown = f"rank correlation {rank['mean']:+.2f} [{rank['low']:+.2f}, {rank['high']:+.2f}] over {n} cells"
    sign = (
        f"signs agree in {signs['agree']} of the {signs['of']} that are clear in both"
        if signs["of"]
        else "no sign is clear in both"
    )
    limit = "The cells share their reference, so the interval is too narrow rather than too wide"
    alone = f", and {tasks[0]} alone says nothing of other tasks" if len(tasks) == 1 else ""
    return f"Prediction of {whose} against effect: {said} ({shown}; {sign}). {limit}{alone}."


def _clear(of: Record) -> int:
    """1 above 0, -1 below, 0 where the interval holds 0."""
    return 1 if of["low"] > 0 else -1 if of["high"] < 0 else 0


def _probe(path: Path) -> Record:
    found = read_json(path)
    contexts = found.get("contexts") if isinstance(found, dict) else None
    if not contexts or any("rules" not in of for of in contexts.values()):
        raise BadInput(f"{path} holds no predictions of a probe: give the summary.json that this version of dasd probe writes")
    return found


def _is_of_that_task(path: Path, probe: Record, study: Study, task: str) -> None:
    """Raises BadInput for a probe of another task or model than the study's task of that name. Older files do not say."""
    run = told_apart_by(Cell(study, task, study.config.reference, study.config.seeds[0]).run_config({}))
    for key, said, ours in (
        ("data.task", probe.get("task"), run["data"]["task"]),
        ("model.path", probe.get("model"), run["model"]["path"]),
    ):
        if said is not None and normpath(said) != normpath(ours):  # a folder may end with / as the shell completes it
            raise BadInput(f"{path} is a probe of {key} {said}, and {task} in {study.path} has {ours}")


def _gains(path: Path, reference: str) -> Record:
    found = read_json(path)
    gains = found.get("gains") if isinstance(found, dict) else None
    if not isinstance(gains, dict):
        raise BadInput(f"{path} holds no gains: give the gain.json that dasd gain writes")
    for arm, of in gains.items():
        if not isinstance(of, dict) or any(not isinstance(of.get(key), int | float) for key in ("mean", "low", "high")):
            raise BadInput(
                f"{path} has no gain of {arm} that is a number for each of mean, low, high: make it with more batches "
                f"(dasd gain --batches), or take {arm} out of the file"
            )
    if (theirs := found.get("reference", reference)) != reference:
        raise BadInput(f"{path} holds gains over {theirs}'s, and the study compares with {reference}")
    return {**found, "settings": found.get("settings") or {}}


def _is_of_that_arm(path: Path, file: Record, study: Study, row: Record) -> None:
    """Raises BadInput where a config has an arm's name and another method, teacher or loss. Older files do not say all."""
    said, run = file["settings"].get(row["arm"]), _as_chosen(study, row["task"], row["arm"])
    if said is None or run is None:
        return
    now = flat({section: settings for section, settings in told_apart_by(run).items() if section in said})
    said = flat(said)
    if differs := [key for key in {**said, **now} if said.get(key) != now.get(key)]:
        key = differs[0]
        raise BadInput(
            f"{path} holds a gain of another {row['arm']}: {key} is {said.get(key)} there and {now.get(key)} in {study.path}"
        )
