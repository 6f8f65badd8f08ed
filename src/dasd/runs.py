"""What is in this folder? Every training run and evaluation below it, with its state and last figures, as plain data.

A run is running while another process holds one of its locks, finished when its final model (and a quickstart's evaluation of
it) is there, failed where it said why it ended, and otherwise stopped: killed, or ended by hand.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from dasd.config import BadInput
from dasd.folders import CONFIG, FAILURE
from dasd.report.data.curves import edges, mean
from dasd.report.data.facts import data_line
from dasd.report.data.inputs import RunFiles, is_finished, last_change, mapping, method_settings, number, read_run, settings
from dasd.report.data.results import result_rows

Record = dict[str, Any]
EVALUATION = "eval.json"
# Figures that are logged: their means over the last tenth of a run stand for what was not evaluated.
LOGGED = {"reward": "reward", "mean_length": "completions/mean_length", "teacher_share": "credit/teacher"}


def list_runs(folder: Path) -> list[Record]:
    """One record for each run, in the order of their paths. Raises BadInput where the folder does not exist or holds none.

    `path` below the folder, `kind` (training, evaluation), `state`, `method`, `settings`, `model`, `data`, `seed`, `steps`,
    `planned`, `started`, `changed` (seconds), `figures` (name -> mean, low, high), `change` of the first of them, `page`, and
    `why` it is not finished.
    """
    if not folder.is_dir():
        raise BadInput(f"{folder} is not a folder; give one that holds runs")
    found = [_training(path, folder) for path in _trainings(folder)]
    inside = tuple(f"{folder / record['path']}/" for record in found)
    found += [_evaluation(path, folder) for path in _evaluations(folder) if not f"{path}/".startswith(inside)]
    if not found:
        raise BadInput(f"{folder} holds no run: nothing of dasd train, quickstart or eval is there")
    return sorted(found, key=lambda record: record["path"])


def _trainings(folder: Path) -> Iterator[Path]:
    for config in sorted(folder.rglob(CONFIG)):
        text = config.read_text(encoding="utf-8", errors="replace")
        if "\nmethod:" in f"\n{text}" and "\ntraining:" in f"\n{text}" and "checkpoints" not in config.parts:
            yield config.parent


def _evaluations(folder: Path) -> list[Path]:
    return [path.parent for path in sorted(folder.rglob(EVALUATION))]


def _training(path: Path, folder: Path) -> Record:
    try:
        files, why = read_run(path), None
    except ValueError as error:
        files, why = RunFiles(), str(error)
    config, method = settings(files), method_settings(files)
    training, model = mapping(config.get("training")), mapping(config.get("model"))
    figures, change = _figures(files)
    state, reason = _state(path)
    page = path / "report.html"
    return {
        "path": str(path.relative_to(folder)),
        "kind": "training",
        "state": "unreadable" if why else state,
        "method": method.get("name"),
        "settings": {name: value for name, value in method.items() if name != "name"},
        "model": model.get("path"),
        "data": data_line(mapping(config.get("data"))),
        "seed": training.get("seed"),
        "steps": 0 if files.series is None else int(files.series["step"][-1]),
        "planned": training.get("steps"),
        "started": (files.run or {}).get("started"),
        "changed": last_change(path),
        "figures": figures,
        "change": change,
        "page": str(page.relative_to(folder)) if page.is_file() else None,
        "why": why or reason,
    }


def _figures(files: RunFiles) -> tuple[Record, Record | None]:
    """The last of what was logged, and what the evaluation after it found, with the change of its first figure."""
    figures: Record = {}
    rows = result_rows(files.summary or {})
    for row in rows:
        if row.card and row.values[-1].known:
            figures[row.name] = {end: _known(getattr(row.values[-1], end)) for end in ("mean", "low", "high")}
    if files.series is not None:
        _, last = edges(len(files.series["step"]))
        for name, logged in LOGGED.items():
            if logged in files.series and name not in figures:
                figures[name] = {"mean": _known(mean(files.series[logged][last])), "low": None, "high": None}
    if not rows or not rows[0].difference.known:
        return figures, None
    difference = rows[0].difference
    ends = {end: _known(getattr(difference, end)) for end in ("mean", "low", "high")}
    return figures, {"figure": rows[0].name, **ends, "clear": difference.clear}


def _evaluation(path: Path, folder: Path) -> Record:
    facts = _read(path / EVALUATION)
    identity, summary = mapping(facts.get("identity")), _read(path / "summary.json")
    given, bounds = mapping(identity.get("settings")), mapping(summary.get("ci95"))
    figures = {}
    for name, ends in bounds.items():
        if name.startswith("avg_at_") or name in ("truncated", "mean_length"):
            figures[name] = {"mean": summary.get(name), "low": ends[0], "high": ends[1]}
    pages = [path / "eval.html", path.parent / "eval.html", path.parent.parent / "eval.html"]
    page = next((page for page in pages if page.is_file() and page.is_relative_to(folder)), None)
    state = "finished" if summary else "running" if _is_held(path) else "stopped"
    return {
        "path": str(path.relative_to(folder)),
        "kind": "evaluation",
        "state": state,
        "method": None,
        "settings": {name: given[name] for name in ("temperature", "top_p") if name in given},
        "model": mapping(given.get("model")).get("path"),
        "data": identity.get("suite"),
        "seed": given.get("seed"),
        "steps": None,
        "planned": None,
        "started": None,
        "changed": (path / EVALUATION).stat().st_mtime,
        "figures": figures,
        "change": None,
        "page": str(page.relative_to(folder)) if page else None,
        "why": None if summary else "not all samples are there",
    }


def _state(path: Path) -> tuple[str, str | None]:
    """The state of a training run, and why it is not finished where that is known."""
    if _is_held(path):
        return "running", None
    if is_finished(path):
        return "finished", None
    failure = _read(path / FAILURE).get("error")
    return ("failed", str(failure)) if failure else ("stopped", None)


def _is_held(path: Path) -> bool:
    """Whether another process writes here: it holds a lock of the run, or of one of its evaluations."""
    for lock in [*path.glob(".*.lock"), *path.glob("*/.*.lock")]:
        try:
            FileLock(lock, timeout=0).acquire().lock.release()
        except (Timeout, OSError):
            return True
    return False


def _read(path: Path) -> Record:
    """A JSON object, empty where there is none."""
    try:
        return mapping(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError):
        return {}


def _known(value: float) -> float | None:
    return None if number(value) != number(value) else value
