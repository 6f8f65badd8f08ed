"""What does a run folder hold? Its files, read once; whatever is missing is None, and no value is trusted to be a number."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

FILES = ("config.yaml", "run.json", "metrics.jsonl", "summary.json", "rollouts.json", "validation.jsonl")
Series = dict[str, NDArray[np.float64]]  # metric -> one value a step, NaN where it was not logged; "step" is the axis


@dataclass(frozen=True)
class RunFiles:
    """The files of one run; None: the folder has no such file."""

    config: str | None = None
    run: dict[str, Any] | None = None
    series: Series | None = None
    summary: dict[str, Any] | None = None
    rollouts: dict[str, Any] | None = None
    validation: list[dict[str, Any]] | None = None
    result: dict[str, Any] | None = None


def read_run(run_dir: Path) -> RunFiles:
    """Raises ValueError where the folder is missing, holds none of `FILES`, or a file in it is broken."""
    if not run_dir.is_dir():
        raise ValueError(f"run folder {run_dir} does not exist")
    if not any((run_dir / name).is_file() for name in FILES):
        raise ValueError(f"{run_dir} is no run folder: it holds none of {', '.join(FILES)}")
    return RunFiles(
        config=_text(run_dir / "config.yaml"),
        run=_json_object(run_dir / "run.json"),
        series=_metrics(run_dir / "metrics.jsonl"),
        summary=_json_object(run_dir / "summary.json"),
        rollouts=_json_object(run_dir / "rollouts.json") or _json_object(run_dir / "tokens" / "rollouts.json"),
        result=_json_object(run_dir / "result.json"),
        validation=_records(run_dir / "validation.jsonl"),
    )


def is_finished(run_dir: Path) -> bool:
    """Whether the run has its final model; of a quickstart, the evaluation after it too."""
    result = _json_object(run_dir / "result.json")
    if result is None or ((run_dir / "before").is_dir() and not (run_dir / "summary.json").is_file()):
        return False
    config = settings(RunFiles(_text(run_dir / "config.yaml")))
    asked = number(mapping(config.get("training")).get("steps"))  # a finished run may have been given more to do
    return not number(result.get("steps")) < asked


def last_change(run_dir: Path) -> float:
    """When the newest of the run's files was written, seconds; 0 where there is none yet."""
    return max((path.stat().st_mtime for name in FILES if (path := run_dir / name).is_file()), default=0.0)


def settings(files: RunFiles) -> dict[str, Any]:
    """The config as data; empty where it cannot be read."""
    try:
        return mapping(yaml.safe_load(files.config or ""))
    except (yaml.YAMLError, RecursionError):
        return {}


def method_settings(files: RunFiles) -> dict[str, Any]:
    """The `method` section of the config; empty where it cannot be read."""
    method = settings(files).get("method")
    return {"name": method} if isinstance(method, str) else mapping(method)


def number(value: Any) -> float:
    """The value as a finite float; NaN for everything that is none (null, text, infinity)."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    try:
        result = float(value)
    except OverflowError:
        return math.nan
    return result if math.isfinite(result) else math.nan


def mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _text(path: Path) -> str | None:
    return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def _json_object(path: Path) -> dict[str, Any] | None:
    text = _text(path)
    return None if text is None else _parse(text, str(path))


def _parse(text: str, where: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{where} is not valid JSON: {error}") from None
    if not isinstance(value, dict):
        raise ValueError(f"{where} must hold a JSON object, got {type(value).__name__}")
    return value


def _metrics(path: Path) -> Series | None:
    """One array a metric, ordered by step. A step that was logged twice (a resumed run) counts once, the later values win."""
    rows: dict[float, dict[str, float]] = {}
    for record in _records(path) or []:
        values = {name: number(value) for name, value in record.items()}
        step = values.pop("step", math.nan)
        row = rows.setdefault(float(len(rows) + 1) if math.isnan(step) else step, {})
        row.update({name: value for name, value in values.items() if not math.isnan(value)})
    steps = sorted(rows)
    names = sorted({name for row in rows.values() for name in row}, key=in_natural_order)
    series = {name: np.array([rows[step].get(name, math.nan) for step in steps]) for name in names}
    return {"step": np.array(steps), **series} if steps else None


def _records(path: Path) -> list[dict[str, Any]] | None:
    """The objects of a JSONL file; a last line that was cut off is left out."""
    text = _text(path)
    if text is None:
        return None
    records = []
    lines = text.split("\n")  # not splitlines: JSON may hold U+2028
    for index, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            records.append(_parse(line, f"{path}, line {index},"))
        except ValueError:
            if index == len(lines):  # no newline after it: the run was killed while it wrote this line
                break
            raise
    return records


def in_natural_order(name: str) -> list[str | int]:
    """decile_2 before decile_10."""
    return [int(part) if index % 2 else part for index, part in enumerate(re.split("([0-9]{1,9})", name))]
