"""What do a study's comparisons say together: is an arm better on every task, and how do two arms differ from each other?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from dasd.study import statistics

NOT_LOWER = 0.02  # Pass@k is not lower than the reference's if no interval reaches this far below it
Scores = Mapping[int, np.ndarray]  # seed -> (problems,) scores
Record = dict[str, Any]


def better(rows: Sequence[Record]) -> list[Record]:
    """Of each arm the tasks where Avg@k is `above` the reference's, and those where Pass@k is `not_lower`; `better`: both on
    every task. `rows` are a study's, judged."""
    own = [row for row in rows if row["own"] and not row["is_reference"]]
    tasks = dict.fromkeys(row["task"] for row in own)
    found = []
    for arm in dict.fromkeys(row["arm"] for row in own):
        of = [row for row in own if row["arm"] == arm]
        above = [row["task"] for row in of if row["avg"]["verdict"] == "above"]
        kept = [row["task"] for row in of if not_lower(row["pass"])]
        found.append({"arm": arm, "above": above, "not_lower": kept, "better": len(above) == len(kept) == len(tasks)})
    return found


def not_lower(of: Record | None) -> bool:
    """Whether both intervals of a measure's difference stay above -NOT_LOWER; one pair of seeds shows nothing."""
    difference = of and of["difference"]
    if not difference or difference["seeds"] < 2:
        return False
    return bool(min(difference["low"], difference["resampled"][0]) > -NOT_LOWER)


def paired(scores: Scores, theirs: Scores) -> Record | None:
    """`scores` minus `theirs`, paired over the seeds that both have; None where there is none. `p_holm` is still open."""
    shared = [seed for seed in scores if seed in theirs]
    if not shared:
        return None
    found = statistics.paired_difference(*(np.stack([side[seed] for seed in shared]) for side in (scores, theirs)))
    return {**vars(found), "resampled": list(found.resampled), "p_holm": float("nan")}
