"""Which settings does an arm run with? One rule for every arm, baselines included: the highest mean Avg@k on validation
problems; ties go to the smaller learning rate, then to what the file names first. The choice is kept on file and stands.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from dasd.files import read_json, write_json
from dasd.study.cells import Cell, Settings, candidates, search_cells
from dasd.study.config import Study

RATE = "training.learning_rate"


def choose(scores: Sequence[tuple[Settings, float | None]]) -> Settings | None:
    """The best candidate. A score of None, of a candidate one of whose runs failed, is never chosen; None if all have none."""
    order = sorted(
        (-round(score, 9), float(settings.get(RATE, 0.0)), place)
        for place, (settings, score) in enumerate(scores)
        if score is not None
    )
    return scores[order[0][2]][0] if order else None


def choice_file(study: Study, task: str, arm: str) -> Path:
    return study.output / task / arm / "choice.json"


def read_choice(study: Study, task: str, arm: str) -> dict[str, Any] | None:
    """`chosen` and the `candidates` with their scores, if the search is over; without a search nothing is chosen."""
    if not candidates(study, arm):
        return {"chosen": {}, "candidates": []}
    return read_json(choice_file(study, task, arm))


def settle(study: Study, task: str, arm: str, failed: Mapping[str, str]) -> dict[str, Any] | None:
    """The choice, made and put on file if all cells of the search are done or among the `failed`; None while some are open."""
    known = read_choice(study, task, arm)
    if known is not None:
        return known
    path = choice_file(study, task, arm)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_name(".choice.lock")):  # several processes may come to the end of the search at once
        return read_choice(study, task, arm) or _settle(study, task, arm, failed)


def _settle(study: Study, task: str, arm: str, failed: Mapping[str, str]) -> dict[str, Any] | None:
    cells = search_cells(study, task, arm)
    if any(not cell.done and cell.name not in failed for cell in cells):
        return None
    rows: list[dict[str, Any]] = []
    for candidate in candidates(study, arm):
        scores = [cell.score if cell.done else None for cell in cells if cell.candidate == candidate]
        whole = [score for score in scores if score is not None]
        mean = float(np.mean(whole)) if len(whole) == len(scores) else None
        rows.append({"settings": candidate, "mean": mean, "scores": scores})
    chosen = choose([(row["settings"], row["mean"]) for row in rows])
    if chosen is None:
        return None  # nothing to run with: the failures of the search are said
    found = {"chosen": chosen, "candidates": rows}
    write_json(choice_file(study, task, arm), found)
    return found


def chosen_for(cell: Cell) -> Settings:
    """What a cell runs with beside its arm's settings; raises KeyError while its search is open."""
    if cell.candidate is not None:
        return {}
    known = read_choice(cell.study, cell.task, cell.arm)
    if known is None:
        raise KeyError(cell.name)
    return dict(known["chosen"])
