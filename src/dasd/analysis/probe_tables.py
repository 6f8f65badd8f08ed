"""What does a probe say on a terminal? Tables of effects, and one sentence for each method of training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from dasd.analysis.positions import KINDS
from dasd.analysis.probe_file import ACTIONS
from dasd.report.data.metrics import signed

NOT_VALIDATED = (
    "Predictions from single forced tokens, not validated: compared with training on two small tasks, they had the order of "
    "the effects on one and were undecided on the other."
)


def probe_tables(summary: Mapping[str, Any]) -> list[Table]:
    """For each context the effects of both actions on correctness at the three kinds of places; and the revisions."""
    tables = []
    for context, found in summary["contexts"].items():
        title = f"context {context}: {found['positions']} places in {found['problems']} rollouts, change against doing nothing"
        table = Table("", "baseline", *(f"{action} {end}" for action in ACTIONS for end in ("", "n")), title=title)
        for kind in KINDS:
            effects = found["effects"][kind]
            cells = [cell for action in ACTIONS for cell in _cells(effects[action]["correct"])]
            table.add_row(
                f"{kind} entropy" if kind != "random" else "random", _share(summary["baseline"][kind]["correct"]), *cells
            )
        tables.append(table)
    revisions = summary["revisions"]
    if revisions["preserve"]["n"]:
        table = Table("", "correct after it", "n", title=f"revisions of {revisions['rollouts']} rollouts")
        rows = {"preserve": revisions["preserve"], "suppress": revisions["suppress"]}
        rows |= {f"the teacher ({context}) writes on": cell for context, cell in revisions["teacher"].items()}
        for name, cell in rows.items():
            table.add_row(name, f"{_share(cell)} [{cell['low']:.3f}, {cell['high']:.3f}]", str(cell["n"]))
        table.add_row("preserve minus suppress", *_cells(revisions["preserve_minus_suppress"]))
        tables.append(table)
    return tables


def sentences(summary: Mapping[str, Any]) -> list[str]:
    said = []
    for context, found in summary["contexts"].items():
        said += ["", f"Teacher sees {context}. {NOT_VALIDATED}"]
        said += [f"  {method}: {each['sentence']}" for method, each in found["predictions"].items()]
        said.append(f"  {found['recommendation']['sentence']}")
    return said


def _cells(cell: Mapping[str, float]) -> tuple[str, str]:
    return f"{signed(cell['mean'])} [{signed(cell['low'])}, {signed(cell['high'])}]", str(cell["n"])


def _share(cell: Mapping[str, float]) -> str:
    return f"{cell['mean']:.3f}"
