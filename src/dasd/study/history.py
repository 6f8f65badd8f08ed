"""Was the plan made before the runs, and was it kept? The plan and the settings at the first run, and every change since."""

from __future__ import annotations

from datetime import UTC, datetime
from itertools import pairwise
from typing import Any

from filelock import FileLock

from dasd.config import BadInput
from dasd.files import append_lines, read_lines, write_text
from dasd.study.config import Study, flat

FILE = "history.jsonl"
Note = dict[str, Any]
FIXED = ("steps", "evaluation.", "base", "reference", "suite_limit")  # chosen before the first run; else another study


def record(study: Study) -> None:
    """Notes plan and settings beside the runs, if they are not those of the last note; keeps the plan's text.

    Raises BadInput where something that is fixed is another than at the first run.
    """
    path = study.output / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{FILE}.lock")):
        noted, now = read_lines(path), _now(study)
        changed = [key for key in _keys(*noted, now) if (first := _first_with(noted, key)) and _differ(first, now, key)]
        if changed:
            raise BadInput(
                f"{study.output} holds a study with another {', '.join(changed)}, which is fixed before the first run: give "
                "another output"
            )
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
    """Plan's sha256 and time of the first run."""
    noted = read_lines(study.output / FILE)
    return {key: noted[0][key] for key in ("plan_sha256", "at")} if noted else None


def _first_with(noted: list[Note], key: str) -> Note | None:
    """The note that fixed this setting: the first one, and of a task's suites the first that has the task; None if none did."""
    if key.startswith(FIXED):
        return next(iter(noted), None)
    if not key.startswith("suites."):
        return None
    task = "tasks." + key.removeprefix("suites.")
    return next((note for note in noted if any(each == task or each.startswith(f"{task}.") for each in note["settings"])), None)


def _keys(*notes: Note) -> list[str]:
    return list(dict.fromkeys(key for note in notes for key in note["settings"]))


def _differ(before: Note, after: Note, key: str) -> bool:
    return before["settings"].get(key, "absent") != after["settings"].get(key, "absent")


def _now(study: Study) -> Note:
    # where it is, and what the analysis reads beside the runs, decides no run
    settings = flat(study.config.model_dump(mode="json", exclude={"output", "predictions", "pairs"}))
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"at": at, "plan_sha256": study.plan_sha256, "settings": settings}
