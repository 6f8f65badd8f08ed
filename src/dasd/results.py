"""Runs and evaluations as objects for a notebook: `Run("runs/quickstart")`, `Evaluation("runs/eval/bundled")`.

They read what the commands wrote, nothing is loaded or sampled. Shown in a notebook as a table, printed as a line. No torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

from dasd.config.core import read_yaml
from dasd.files import read_json, read_lines
from dasd.report.data.inputs import is_finished, mapping
from dasd.report.data.methods import describe_method
from dasd.report.data.metrics import MINUS
from dasd.report.data.results import Row, result_rows, rival_rows


@dataclass(frozen=True)
class Run:
    """A run folder of `dasd train` or `dasd quickstart`. Raises ValueError where the folder is none.

    config      the settings, resolved
    metrics     one mapping for each optimisation step
    validation  one mapping for each evaluation while it trained
    summary     figures before and after, None where nothing was evaluated
    """

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        object.__setattr__(self, "folder", Path(folder).expanduser())
        if not (self.folder / "config.yaml").is_file():
            raise ValueError(f"{self.folder} is no run folder: it has no config.yaml")

    @cached_property
    def config(self) -> dict[str, Any]:
        return mapping(read_yaml((self.folder / "config.yaml").read_text(encoding="utf-8")))

    @property
    def metrics(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "metrics.jsonl")

    @property
    def validation(self) -> list[dict[str, Any]]:
        return read_lines(self.folder / "validation.jsonl")

    @property
    def summary(self) -> dict[str, Any] | None:
        return read_json(self.folder / "summary.json")

    @property
    def is_finished(self) -> bool:
        return is_finished(self.folder)

    @property
    def model(self) -> Path:
        """Folder of the final model, which is there once the run is finished."""
        return self.folder / "checkpoints" / "final"

    def series(self, name: str) -> list[float | None]:
        """One metric, a value for each step. Raises KeyError naming those that were logged."""
        logged = self.metrics
        if not any(name in line for line in logged):
            known = sorted({key for line in logged for key in line})
            raise KeyError(f"{name!r} was not logged; logged: {', '.join(known)}")
        return [line.get(name) for line in logged]

    def __repr__(self) -> str:
        method, steps = mapping(self.config.get("method")).get("name"), mapping(self.config.get("training")).get("steps")
        last = self.metrics[-1] if self.metrics else {}
        state = "finished" if self.is_finished else f"step {last.get('step', 0)} of {steps}"
        reward = f", reward {last['reward']:.2f}" if isinstance(last.get("reward"), float) else ""
        return f"Run({str(self.folder)!r}: {method}, {state}{reward})"

    def _repr_html_(self) -> str:
        title, explanation = describe_method(str(mapping(self.config.get("method")).get("name", "")))
        parts = [f"<h4>{escape(title)}</h4><p>{escape(explanation)}</p><p><code>{escape(repr(self))}</code></p>"]
        if self.summary is not None:
            parts.append(_table(("", "before", "after", "difference"), _compared(result_rows(self.summary))))
            if against := rival_rows(self.summary):
                name = str(mapping(self.summary.get("rival")).get("method"))
                parts.append(_table(("", name, "this run", f"this run {MINUS} {name}"), _compared(against)))
        return "".join(parts)


@dataclass(frozen=True)
class Evaluation:
    """A folder that `dasd eval` wrote for one model on one set of problems. Raises ValueError where the folder is none.

    summary  the figures with their 95 % intervals
    samples  each sample: problem id, text, token ids, extracted answer, grade
    """

    folder: Path

    def __init__(self, folder: str | Path) -> None:
        object.__setattr__(self, "folder", Path(folder).expanduser())
        if not (self.folder / "summary.json").is_file() or not any(self.folder.glob("samples*.jsonl")):
            raise ValueError(f"{self.folder} holds no finished evaluation: it has no summary.json with samples beside it")

    @property
    def summary(self) -> dict[str, Any]:
        return read_json(self.folder / "summary.json") or {}

    @property
    def samples(self) -> list[dict[str, Any]]:
        return [sample for path in sorted(self.folder.glob("samples*.jsonl")) for sample in read_lines(path)]

    def __repr__(self) -> str:
        shown = [f"{row.label} {row.plain()}" for row in self._rows() if row.card]
        return f"Evaluation({str(self.folder)!r}: {', '.join(shown)})"

    def _repr_html_(self) -> str:
        head = f"{self.summary.get('model')} on {self.summary.get('benchmark')}"
        rows = [(row.label, f"{row.plain()} <small>{row.interval()}</small>") for row in self._rows()]
        return f"<h4>{escape(head)}</h4>" + _table(("", "value"), rows)

    def _rows(self) -> list[Row]:
        return result_rows({"after": self.summary})


def _compared(rows: list[Row]) -> Iterator[tuple[str, ...]]:
    for row in rows:
        change = f"{row.change()} <small>{row.change_interval()}</small>"
        yield row.label, row.plain(0), row.plain(1), f"<b>{change}</b>" if row.difference.clear else change


def _table(heads: tuple[str, ...], rows: Any) -> str:
    body = "".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        f"<table><thead><tr>{''.join(f'<th>{escape(head)}</th>' for head in heads)}</tr></thead><tbody>{body}</tbody></table>"
    )
