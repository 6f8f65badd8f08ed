"""What does a local file say, to the letter? JSONL, JSON, CSV and Parquet as a table of rows.

A number of JSON or CSV stays the text that it is in the file (`Number`): no reader turns 717897987691852588770249 or 2e-5
into a float, or the text `NA` into nothing. Parquet has types in place of texts; a float there becomes its shortest decimal.
Everything that cannot be read is one message with the line. Imports no `datasets`.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from dasd.config import BadInput

MOST_DIGITS = 30  # of a float written without exponent


class Number(str):
    """A number, as the text it has in its file."""


@dataclass(frozen=True)
class Table:
    """Rows of a split in the file's order. Every row has every column; a missing cell is None."""

    columns: list[str]
    rows: Sequence[Mapping[str, Any]]


def read_file(path: Path) -> Table:
    """The rows of a file whose suffix is one of READERS. Raises BadInput naming the file, the line and the reason."""
    try:
        table = READERS[path.suffix](path)
    except OSError as error:
        raise BadInput(f"{path} cannot be read: {error.strerror or error}") from None
    if not table.rows:
        raise BadInput(f"{path} has no rows")
    return table


def join(tables: Sequence[Table]) -> Table:
    """The rows of several files of one split."""
    return _table([dict(row) for table in tables for row in table.rows])


def parted_otherwise(columns: Sequence[str]) -> str | None:
    """What is wrong with a header whose names are not parted by commas; None where they are."""
    if len(columns) != 1 or (mark := next((mark for mark in ";\t|" if mark in columns[0]), None)) is None:
        return None
    return f"has one column, {columns[0]!r}: its fields are parted by {mark!r}, commas are read"


def float_text(value: float, shortest: str | None = None) -> str:
    """A binary float as a decimal: 5.0 is 5, 2e-05 is 0.00002; `shortest` is its shortest form where it is no double.

    Raises ValueError for what no text can stand for: NaN, infinities, and whole numbers that have lost digits.
    """
    if math.isnan(value):
        raise ValueError("holds NaN (a missing value?)")
    if math.isinf(value):
        raise ValueError("holds an infinite number")
    if value.is_integer():
        if abs(value) >= 2**53:
            raise ValueError(f"holds {value!r}, a whole number as a float, which has lost digits: store it as text")
        return str(int(value))
    exact = Decimal(shortest or repr(value))
    return format(exact, "f") if len(exact.as_tuple().digits) - exact.adjusted() <= MOST_DIGITS else str(exact)


def _read_jsonl(path: Path) -> Table:
    objects = []
    for number, line in enumerate(_text(path).split("\n"), start=1):  # not splitlines: JSON may hold U+2028
        if line.strip():
            objects.append(_object(_parse(line, f"{path}, line {number}"), f"{path}, line {number}"))
    return _table(objects)


def _read_json(path: Path) -> Table:
    text = _text(path)
    if not text.strip():
        return Table([], [])
    try:
        rows = _parse(text, str(path))
    except BadInput:
        if "\n" not in text.strip() or not text.lstrip().startswith("{"):
            raise
        return _read_jsonl(path)  # JSON lines under another name
    if isinstance(rows, dict):
        rows = [rows] if not any(isinstance(value, list | dict) for value in rows.values()) else rows
    if not isinstance(rows, list):
        raise BadInput(f"{path} must be a list of objects, one a row, got {_kind(rows)}")
    return _table([_object(row, f"{path}, row {index}") for index, row in enumerate(rows)])


def _read_csv(path: Path) -> Table:
    csv.field_size_limit(2**31 - 1)  # a worked solution may be long
    reader = csv.reader(io.StringIO(_text(path), newline=""), strict=True)
    try:
        columns = next(reader, [])
        for name in columns:
            if columns.count(name) > 1:
                raise BadInput(f"{path}: the header names column {name!r} twice")
        rows = []
        for cells in reader:
            if not cells:
                continue  # an empty line
            if len(cells) != len(columns):
                if fault := parted_otherwise(columns):
                    raise BadInput(f"{path} {fault}")
                raise BadInput(
                    f"{path}, line {reader.line_num}: {len(cells)} fields, and the header has {len(columns)}: is a "
                    "comma not in quotes?"
                )
            rows.append(dict(zip(columns, cells, strict=True)))
    except csv.Error as error:
        raise BadInput(f"{path}, line {reader.line_num}: not CSV ({error})") from None
    return Table(columns, rows)


def _read_parquet(path: Path) -> Table:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return arrow_table(pq.read_table(path))
    except (pa.ArrowException, OSError) as error:
        raise BadInput(f"{path} cannot be read as Parquet: {' '.join(str(error).split())[:300]}") from None


def arrow_table(table: Any) -> Table:
    """An Arrow table's rows; floats are `Number`s where a text can stand for them, else floats."""
    columns = {name: _cells(column) for name, column in zip(table.column_names, table.columns, strict=True)}
    return Table(list(columns), [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)])


def _cells(column: Any) -> list[Any]:
    """An Arrow column's values. One that Python cannot hold (a time in nanoseconds, a date after 9999) is refused where it is
    used, and does not keep the other columns from being read."""
    import pyarrow as pa

    try:
        if pa.types.is_timestamp(column.type):
            return [None if text is None else Moment(text) for text in column.cast(pa.string()).to_pylist()]
        values: list[Any] = column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError, ImportError):
        return [Moment(f"of type {column.type}")] * len(column)
    if pa.types.is_floating(column.type):
        return [_shortest(value, column.type.bit_width) for value in values]
    return values


@dataclass(frozen=True)
class Moment:
    """A date with time of day, which has no text of its own."""

    text: str


def _shortest(value: Any, bits: int) -> Any:
    if value is None:
        return None
    import numpy as np

    try:
        return Number(float_text(float(value), None if bits == 64 else str(np.dtype(f"float{bits}").type(value))))
    except ValueError:
        return float(value)  # refused where it is used, with the row's number


def _text(path: Path) -> str:
    """A file's text. A byte order mark is no part of it."""
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise BadInput(
            f"{path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8; is the file in another encoding? For Latin-1: "
            f"iconv -f latin1 -t utf-8 {path} > NEW"
        ) from None


def _parse(text: str, where: str) -> Any:
    def refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise BadInput(f"{where}: the key {twice!r} is there twice")
        return values

    try:
        return json.loads(text, parse_int=Number, parse_float=Number, object_pairs_hook=refuse_twice)
    except json.JSONDecodeError as error:
        place = f"column {error.colno}" if error.lineno == 1 else f"line {error.lineno}, column {error.colno}"
        raise BadInput(f"{where}: not JSON ({error.msg}, {place})") from None
    except RecursionError:
        raise BadInput(f"{where}: not usable JSON (nested too deeply)") from None


def _object(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f'{where}: a row must be an object like {{"problem": ..., "answer": ...}}, got {_kind(value)}')
    return value


def _kind(value: Any) -> str:
    names = {dict: "one object", list: "a list", Number: "a number", str: "a text", bool: "true or false", float: "a number"}
    return names.get(type(value), "null")


def _table(rows: Sequence[dict[str, Any]]) -> Table:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return Table(columns, [{name: row.get(name) for name in columns} for row in rows])


READERS: dict[str, Callable[[Path], Table]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
    ".csv": _read_csv,
}
