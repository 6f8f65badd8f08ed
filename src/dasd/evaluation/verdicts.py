"""What did a judge say of the steps of samples? The lines of `judge.jsonl`, and their figures.

`steps` is how many steps a response has as the judge was shown them, `first_wrong` the number of the first wrong one (null:
none), `error` why a judgement could not be read (null: it could). After the first wrong step nothing is judged, as in
ProcessBench (2412.06559), so the share of right steps is that of the steps before it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasd.files import read_lines

VERDICTS = "judge.jsonl"
Record = dict[str, Any]
Pair = tuple[NDArray[np.float64], NDArray[np.float64]]

_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=\S)")


def split_steps(text: str) -> list[str]:
    """The steps of a response: its paragraphs; where it has but one, its lines; where it has but one line, its sentences."""
    for parts in (re.split(r"\n\s*\n", text), text.split("\n"), _SENTENCE.split(text)):
        steps = [part.strip() for part in parts if part.strip()]
        if len(steps) > 1:
            return steps
    return [text.strip()] if text.strip() else []


def read_verdict(text: str, steps: int) -> tuple[int | None, str | None]:
    """(first wrong step or None, error or None) from a judge's text, which ends with `First wrong step: N` or `none`."""
    found = re.findall(r"first wrong step\W{0,6}(\d{1,6}|none)\b", text, flags=re.IGNORECASE)
    if not found:
        return None, "no verdict"
    if found[-1].lower() == "none":
        return None, None
    number = int(found[-1])
    return (number, None) if 1 <= number <= steps else (None, f"step {number} of {steps}")


def digest(text: str) -> str:
    """What a verdict keeps of the text it is about: sampled anew, a response is judged anew."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_verdicts(folder: Path) -> dict[tuple[str, int], Record]:
    """(problem id, sample) -> verdict."""
    return {(line["problem_id"], line["sample"]): line for line in read_lines(folder / VERDICTS)}


def verdict_sums(groups: Sequence[Sequence[Record]]) -> dict[str, Pair]:
    """Figures of the judged samples, (numerators, denominators) by problem; docs/metrics.md."""
    given = [[record["verdict"] for record in group if "verdict" in record] for group in groups]
    read = [[verdict for verdict in of_problem if verdict["error"] is None] for of_problem in given]
    wrong = [[verdict for verdict in of_problem if verdict["first_wrong"] is not None] for of_problem in read]

    def counts(parts: Sequence[Sequence[Record]]) -> NDArray[np.float64]:
        return np.array([len(part) for part in parts], dtype=float)

    def total(parts: Sequence[Sequence[Record]], value: Any) -> NDArray[np.float64]:
        return np.array([sum(value(verdict) for verdict in part) for part in parts], dtype=float)

    def right(verdict: Record) -> int:
        return verdict["steps"] if verdict["first_wrong"] is None else verdict["first_wrong"] - 1

    return {
        "judged_correct_step_rate": (total(read, right), total(read, lambda verdict: verdict["steps"])),
        "judged_no_wrong_step": (counts(read) - counts(wrong), counts(read)),
        "judged_first_wrong_step": (total(wrong, lambda verdict: verdict["first_wrong"]), counts(wrong)),
        "judge_failed": (counts(given) - counts(read), counts(given)),
    }
