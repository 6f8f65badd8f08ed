"""Files that survive a kill: a JSON file is replaced whole, a JSONL line is written whole or not at all."""

from __future__ import annotations

import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from dasd.config import BadInput

BLOCK = 65_536  # bytes that are looked at at once, from a file's end


def write_text(path: Path, text: str) -> None:
    """Writes to a neighbour, then renames: readers see the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def write_json(path: Path, value: Any) -> None:
    write_text(path, json.dumps(finite(value), indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path, remedy: str = "delete it and give the command that wrote it again") -> Any:
    """What a JSON file holds; None where there is no such file. Raises BadInput with the remedy where it holds no JSON."""
    if not path.exists():
        return None
    held = path.read_bytes()
    try:
        return json.loads(held.decode("utf-8"))
    except ValueError as error:
        fault = f"cut off or no JSON ({error})" if held.strip() else "empty"
        raise BadInput(f"{path} is {fault}: {remedy}") from None


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """One JSON object a line, all of them or none."""
    write_text(path, "".join(_line(record) for record in records))


def append_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Appends one JSON object a line: all of them, or none where it raises OSError (a full disk).

    A last line that was cut off before is taken away, as readers leave it out: what is appended would be glued to it.
    """
    left = memoryview("".join(_line(record) for record in records).encode("utf-8"))
    with path.open("a+b", buffering=0) as file:  # a buffer would try the rest again when it is closed
        end = _end_of_lines(file)
        try:
            if file.seek(0, os.SEEK_END) > end:
                file.truncate(end)
            while left:
                left = left[file.write(left) :]
            os.fsync(file.fileno())
        except OSError:
            file.truncate(end)
            raise


def _end_of_lines(file: io.FileIO) -> int:
    """Where the last whole line of a file ends, in bytes."""
    place = file.seek(0, os.SEEK_END)
    while place > 0:
        start = max(0, place - BLOCK)
        file.seek(start)
        if found := file.read(place - start).rfind(b"\n") + 1:
            return start + found
        place = start
    return 0


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The records of a JSONL file; a last line that was cut off is left out. No file: no records.

    Raises BadInput naming a line that is no record.
    """
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8", errors="replace")
    lines = text[: text.rfind("\n") + 1].split("\n")  # not splitlines: JSON may hold U+2028
    return [_record(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1) if line]


def _record(line: str, where: str) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        fault = f"not JSON ({error.msg}, column {error.colno})"
    else:
        if isinstance(record, dict):
            return record
        fault = f"no JSON object ({line:.40})"
    raise BadInput(f"{where}: {fault}. Was the disk full, or the file changed? Mend this line or delete it")


def repair_lines(path: Path, keep: Any = lambda record: True) -> list[dict[str, Any]]:
    """Drops a cut-off last line and the records that `keep` refuses, in place; returns what stays. Raises as `read_lines`."""
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
