"""Files that survive a kill: a JSON file is replaced whole, a JSONL line is written whole or not at all."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any


def write_text(path: Path, text: str) -> None:
    """Writes to a neighbour, then renames: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """What a JSON file holds; None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else None


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, all of them or none."""
    write_text(path, "".join(_line(record) for record in records))


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends one JSON object a line, in one write."""
    lines = "".join(_line(record) for record in records)
    with path.open("a", encoding="utf-8") as file:
        file.write(lines)
        file.flush()
        os.fsync(file.fileno())


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; a last line that was cut off is left out. No file: no records."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    return [
        json.loads(line) for line in text[: text.rfind("\n") + 1].split("\n") if line
    ]  # not splitlines: JSON may hold U+2028


def repair_lines(path: Path, keep: Any = lambda record: True) -> list[dict[str, Any]]:
    """Drops a cut-off last line and the records that `keep` refuses, in place; returns what stays."""
    records = [record for record in read_lines(path) if keep(record)]
    if path.exists():
        write_lines(path, records)
    return records


def _line(record: Mapping[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"
    except ValueError:  # rare, so that most records are not walked through twice
        return json.dumps(finite(record), ensure_ascii=False) + "\n"


def finite(value: Any) -> Any:
    """NaN and infinities are not JSON: they become null."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    return value
