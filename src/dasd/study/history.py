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
FIXED = ("steps", "evaluation.", "base", "reference")  # chosen before the first run; other values are another study


def record(study: Study) -> None:
    """Notes plan and settings beside the runs, if they are not those of the last note; keeps the plan's text.

    Raises BadInput where something of FIXED is another than at the first run.
    """
    path = study.output / FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(f".{FILE}.lock")):
        noted, now = read_lines(path), _now(study)
        changed = [key for key in now["settings"] if key.startswith(FIXED) and noted and _differ(noted[0], now, key)]
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
        changed = [key for key in {**before["settings"], **after["settings"]} if _differ(before, after, key)]
        if changed:
            said.append(f"Settings of the study were changed {when}: {', '.join(changed)}.")
    return said


def first(study: Study) -> dict[str, Any] | None:
    """Plan's sha256 and time of the first run."""
    noted = read_lines(study.output / FILE)
    return {key: noted[0][key] for key in ("plan_sha256", "at")} if noted else None


def _differ(before: dict[str, Any], after: dict[str, Any], key: str) -> bool:
    return before["settings"].get(key, "absent") != after["settings"].get(key, "absent")


def _now(study: Study) -> dict[str, Any]:
    settings = flat(study.config.model_dump(mode="json", exclude={"output"}))
    at = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    return {"at": at, "plan_sha256": study.plan_sha256, "settings": settings}
