"""How do another tool's scores become figures? Its own scores, and what the texts and lengths tell.

The tool's first score decides which samples are right; where it is 0 or 1 for all of them it is Avg@k, and Pass@k follows.
Every other score is a figure of its own, `score/NAME`: numerators over denominators, so that scores of several parts (the
instructions of an IFEval prompt) weigh each part the same, as their makers do.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dasd.config import BadInput
from dasd.evaluation.readers.base import OnFile
from dasd.evaluation.summary import Record, Sums, metric_sums
from dasd.report.data.inputs import in_natural_order
from dasd.tasks.base import GradeStatus

FROM_RIGHT = ("avg_at_", "pass_at_", "maj_at_")
FROM_TEXT = ("epistemic", "backtracks", "loops")


@dataclass(frozen=True)
class Scored:
    """One sample of another tool. `scores`: name -> points won and points there were. `text` None: nothing was written."""

    problem_id: str
    scores: dict[str, tuple[float, float]]
    text: str | None = None
    answer: str | None = None  # as the tool read it
    tokens: int | None = None
    cut_off: bool | None = None
    problem: str | None = None
    gold: str | None = None


def evaluation(where: Path, suite: str, settings: Record, samples: Sequence[Scored], fingerprint: Any) -> OnFile:
    """Raises BadInput where problems have different numbers of samples, or samples different scores."""
    found: dict[str, list[Scored]] = defaultdict(list)
    for sample in samples:
        found[sample.problem_id].append(sample)
    by_problem = {name: found[name] for name in sorted(found, key=in_natural_order)}  # tools write samples as they finish
    counts = {len(group) for group in by_problem.values()}
    names = list(dict.fromkeys(name for sample in samples for name in sample.scores))
    if not names:
        raise BadInput(f"{where} has no scores: score it with the tool that wrote it")
    for sample in samples:
        if missing := [name for name in names if name not in sample.scores]:
            raise BadInput(f"{where}: a sample of problem {sample.problem_id} has no score {missing[0]}: finish the evaluation")
    if len(counts) > 1:
        few, many = min(counts), max(counts)
        raise BadInput(f"{where} has {few} samples of some problems and {many} of others: finish the evaluation")
    num_samples, ids = counts.pop(), list(by_problem)
    records = [_record(sample, number, names[0]) for group in by_problem.values() for number, sample in enumerate(group)]
    identity = {
        "suite": suite,
        "settings": settings | {"scored by": names[0]},
        "fingerprint": hashlib.sha256(repr(fingerprint).encode()).hexdigest()[:16],
    }
    asked = {name: {"problem": group[0].problem, "answer": group[0].gold} for name, group in by_problem.items()}
    return OnFile(where, identity, ids, num_samples, records, asked, _sums(by_problem, records, names, num_samples))


def _sums(by_problem: dict[str, list[Scored]], records: list[Record], names: list[str], num_samples: int) -> Sums:
    samples = [sample for group in by_problem.values() for sample in group]
    binary = all(sample.scores[names[0]] in ((0, 1), (1, 1)) for sample in samples)
    kept: tuple[str, ...] = FROM_RIGHT if binary else ()
    kept += FROM_TEXT if all(sample.text is not None for sample in samples) else ()
    kept += ("truncated",) if all(sample.cut_off is not None for sample in samples) else ()
    sums = {
        name: pair for name, pair in metric_sums(list(by_problem), records, num_samples).items()
        if name.startswith(kept) and not (name.startswith("maj_at_") and any(sample.answer is None for sample in samples))
    }  # fmt: skip

    def over_problems(value: Any) -> np.ndarray:
        return np.array([sum(value(sample) for sample in group) for group in by_problem.values()], dtype=float)

    if all(sample.tokens is not None for sample in samples):
        sums["mean_length"] = (over_problems(lambda sample: sample.tokens), over_problems(lambda sample: 1))
    scores = {
        f"score/{name}": (
            over_problems(lambda sample, name=name: sample.scores[name][0]),
            over_problems(lambda sample, name=name: sample.scores[name][1]),
        )
        for name in (names[1:] if binary else names)
    }
    return sums | scores if binary else scores | sums


def _record(sample: Scored, number: int, first: str) -> Record:
    won, possible = sample.scores[first]
    return {
        "problem_id": sample.problem_id,
        "sample": number,
        "status": (GradeStatus.CORRECT if won >= possible else GradeStatus.INCORRECT).value,
        "extracted": sample.answer,
        "text": sample.text or "",
        "token_ids": None,
        "num_tokens": sample.tokens,
        "finish_reason": {True: "length", False: "stop", None: None}[sample.cut_off],
        "steps_right": 0,
        "steps_checked": 0,
    }
