"""Was the plan made before the runs, and was it kept? The plan and the settings at the first run, and every change since.

And are the cells that are done those of the study as it is now? Imports no torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from itertools import pairwise, product
from typing import Any

from filelock import FileLock

from dasd.config import BadInput, RunConfig, filled
from dasd.files import append_lines, read_lines, write_text
from dasd.study.cells import Cell, all_cells, asked_of, candidates, settings_of
from dasd.study.config import Study, flat, is_of
from dasd.study.search import choice_file, read_choice

FILE, AT = "history.jsonl", "%Y-%m-%d %H:%M UTC"
Note = dict[str, Any]
# Chosen before the first run; else another study.
FIXED = ("steps", "evaluation", "base", "reference", "suite_limit", "search.evaluation")


def check(study: Study) -> None:
    """Writes nothing. Raises BadInput where something that is fixed is another than at the first run, or where a cell that is
    done was run with other settings than the study has now, or not evaluated on what it asks now.
    """
    noted, now = read_lines(study.output / FILE), _now(study)
    changed = [key for key in _keys(*noted, now) if (first := _first_with(noted, key)) and _differ(first, now, key)]
    if changed:
        raise BadInput(
            f"{study.output} holds a study with another {', '.join(changed)}, which is fixed before the first run: give "
            "another output"
        )
    _choices_are_of_this_search(study)
    found = [(cell, why) for cell in all_cells(study) if (why := _why_another(cell))]
    if found:
        cell, why = found[0]
        count = f" (the first of {len(found)} cells)" if len(found) > 1 else ""
        raise BadInput(
            f"{cell.folder}{count} {why}; set the study back, give the task or the arm another name, or delete "
            f"{study.output / cell.task / cell.arm} to run it again"
        )


def _choices_are_of_this_search(study: Study) -> None:
    """A choice stands. One of other keys, or of values that the search no longer has, is of another search."""
    for task, arm in product(study.config.tasks, study.config.arms):
        choice, tried = read_choice(study, task, arm), candidates(study, arm)
        if choice is not None and tried and choice["chosen"] not in tried:
            raise BadInput(
                f"{choice_file(study, task, arm)} is the choice of another search ({json.dumps(choice['chosen'])}): set the "
                f"search back, or delete {study.output / task / arm} to search again"
            )


def record(study: Study) -> None:
    """Notes plan and settings beside the runs, if they are not those of the last note; keeps the plan's text.

    Raises BadInput as `check` does.
    """
    path = study.output / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{FILE}.lock")):
        check(study)
        noted, now = read_lines(path), _now(study)
        if not noted or {**noted[-1], "at": None} != {**now, "at": None}:
            write_text(study.output / f"plan-{study.plan_sha256[:8]}.md", study.plan.read_text(encoding="utf-8"))
            append_lines(path, [now])


def deviations(study: Study) -> list[str]:
    """What is not as it was at the first run, one sentence each; none before it."""
    noted = read_lines(study.output / FILE)
    if not noted:
        return []
    now, said = _now(study), []
    steps = [*noted, now] if {**noted[-1], "at": None} != {**now, "at": None} else noted
    for before, after in pairwise(steps):
        when = f"from {after['at']}" if after is not now else "since the last run"
        if before["plan_sha256"] != after["plan_sha256"]:
            said.append(f"The plan was changed {when} ({before['plan_sha256'][:8]} to {after['plan_sha256'][:8]}).")
        changed = [key for key in _keys(before, after) if _differ(before, after, key)]
        if changed:
            said.append(f"Settings of the study were changed {when}: {', '.join(changed)}.")
    return said


def first(study: Study) -> dict[str, Any] | None:
    """Plan's sha256 and time of the first run, `runs` that are done, and how many of them are `older` than that note: begun
    before it, or without a word of when. None before the first run.
    """
    noted = read_lines(study.output / FILE)
    if not noted:
        return None
    at = datetime.strptime(noted[0]["at"], AT).replace(tzinfo=UTC)
    begun = [kept.get("made", {}).get("started") for cell in all_cells(study) if (kept := cell.outcome)]
    older = sum(when is None or datetime.fromisoformat(when) < at for when in begun)
    return {**{key: noted[0][key] for key in ("plan_sha256", "at")}, "runs": len(begun), "older": older}


def _why_another(cell: Cell) -> str | None:
    """Why a cell that is done is none of the study as it is now; None where nothing speaks against it."""
    if (kept := cell.outcome) is None:
        return None
    if kept["steps"] != cell.study.config.steps:
        return f"was trained for {kept['steps']} steps, and the study says {cell.study.config.steps}"
    if kept.get("seed", cell.seed) != cell.seed:
        return f"is a copy: it was trained with seed {kept['seed']}"
    if missing := [name for name in (cell.own_set, *cell.suites) if name not in kept["sets"]]:
        return f"was not evaluated on {', '.join(missing)}"
    if differs := _asked_otherwise(cell, kept):
        return f"was evaluated otherwise than the study says now: {', '.join(differs)}"
    changed = _changed(cell, kept.get("settings", {}))
    return f"was run with other settings than the study has now: {', '.join(changed)}" if changed else None


def _asked_otherwise(cell: Cell, kept: Mapping[str, Any]) -> list[str]:
    """How the evaluation of a cell is none that the study asks. Older outcomes say no more than samples and problems."""
    now, own = asked_of(cell), kept["sets"][cell.own_set]
    was = kept.get("evaluation") or {"num_samples": own["num_samples"]}
    found = [f"{key} ({_shown(was, key)}, now {_shown(now, key)})" for key in was if key in now and was[key] != now[key]]
    problems = len(own["right"])
    if "evaluation" not in kept and problems > now["limit"] and not kept.get("settings", {}).get("data", {}).get("sources"):
        found.append(f"limit ({problems} problems, now {now['limit']})")
    return found


def _changed(cell: Cell, settings: Mapping[str, Any]) -> list[str]:
    """Which `settings` of a cell are none that it would be run with now. What an earlier version did not have was at its
    default. What this one does not have is unknown, but for settings of the method; so is what a search tries that is open.
    """
    choice = read_choice(cell.study, cell.task, cell.arm)
    tried = next(iter(candidates(cell.study, cell.arm))) if choice is None else {}
    now, changed = settings_of(cell.run_config(choice["chosen"] if choice else tried)), []
    before = filled(RunConfig, settings)
    for section in settings:
        was, ours = before[section], now.get(section, {})
        for key in {**was, **ours} if section == "method" else [key for key in was if key in ours]:
            name = f"{section}.{key}"
            unknown = cell.candidate is None and any(is_of(each, [name]) for each in tried)
            if was.get(key, "absent") != ours.get(key, "absent") and not unknown:
                changed.append(f"{name} ({_shown(was, key)}, now {_shown(ours, key)})")
    return changed


def _shown(settings: Mapping[str, Any], key: str) -> str:
    return json.dumps(settings[key], ensure_ascii=False) if key in settings else "absent"


def _first_with(noted: list[Note], key: str) -> Note | None:
    """The note that fixed this setting: the first that knows it, and of a task's suites the first that has the task; None if
    none did.
    """
    if is_of(key, FIXED):
        return next((note for note in noted if _knows(note, key)), None)
    if not key.startswith("suites."):
        return None
    task = "tasks." + key.removeprefix("suites.")
    return next((note for note in noted if any(is_of(each, [task]) for each in note["settings"])), None)


def _knows(note: Note, key: str) -> bool:
    """Older versions did not note what the base says; a study without a search says nothing of its problems."""
    if key.startswith("base."):
        return "base" in note
    return not key.startswith("search.evaluation.") or key in note["settings"]


def _settings(note: Note) -> dict[str, Any]:
    return {**note["settings"], **{f"base.{key}": value for key, value in note.get("base", {}).items()}}


def _keys(*notes: Note) -> list[str]:
    return list(dict.fromkeys(key for note in notes for key in _settings(note)))


def _differ(before: Note, after: Note, key: str) -> bool:
    if not (_knows(before, key) and _knows(after, key)):
        return False
    return _settings(before).get(key, "absent") != _settings(after).get(key, "absent")


def _now(study: Study) -> Note:
    # where it is, and what the analysis reads beside the runs, decides no run
    settings = flat(study.config.model_dump(mode="json", exclude={"output", "predictions", "pairs"}))
    at = datetime.now(UTC).strftime(AT)
    return {"at": at, "plan_sha256": study.plan_sha256, "settings": settings, "base": study.base_settings}
