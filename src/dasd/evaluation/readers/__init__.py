"""Whose samples are these? Evaluations as `dasd eval`, lm-eval or inspect_ai wrote them, all read into one shape.

A reader is one file with `finds(path)`, the places under a path that it can read, and `read(place)`, the evaluation there.
"""

from __future__ import annotations

from pathlib import Path

from dasd.config import BadInput
from dasd.evaluation.readers import inspect_ai, lm_eval, own
from dasd.evaluation.readers.base import OnFile, Run
from dasd.trained import is_run

__all__ = ["OnFile", "Run", "read_run"]
READERS = (own, lm_eval, inspect_ai)


def read_run(path: Path) -> Run:
    """The evaluations in a folder and below, by benchmark; or those of one file of another tool.

    Of a quickstart's folder those of the trained model are read. Raises BadInput: nothing there, unfinished, several models.
    """
    if not path.exists():
        raise BadInput(f"{path} does not exist; give a folder that dasd eval has written, or another tool's log")
    home = path / "after" if is_run(path) and (path / "after").is_dir() else path
    found: dict[str, OnFile] = {}
    for reader in READERS:
        for place in reader.finds(home):
            evaluation = reader.read(place)
            if evaluation.name in found:
                raise BadInput(
                    f"{path} holds {evaluation.name} twice, in {found[evaluation.name].folder} and {evaluation.folder}: give "
                    "the folder of one model"
                )
            found[evaluation.name] = evaluation
    if not found:
        raise BadInput(
            f"{path} holds no evaluation: no {own.IDENTITY} of dasd eval, no samples_*.jsonl of lm-eval, no log of inspect_ai. "
            f"Make one with: dasd eval MODEL --output {path}"
        )
    return Run(path, found)
