"""Which samples does a page show, and how much of each? Texts of any length and content, cut so that the page stays light."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from dasd.report.data.inputs import mapping
from dasd.report.data.metrics import UNKNOWN
from dasd.report.data.rollouts import inert

TEXT_BYTES, PROBLEM_BYTES, ANSWER_BYTES = 6000, 2500, 400  # of one text, as the page holds it
OUTCOMES = {
    "gained": "only B is right", "lost": "only A is right", "all": "all are right", "some": "some are right",
    "none": "none is right",
    "correct": "right", "incorrect": "wrong", "no_answer": "no answer", "undecided": "undecided",
    "grader_error": "grader error",
}  # fmt: skip
_MARKS = {
    "correct": "✓ right",
    "incorrect": "✗ wrong",
    "no_answer": "○ no answer",
    "undecided": "? undecided",
    "grader_error": "! grader error",
}


@dataclass(frozen=True)
class Side:
    name: str
    status: str
    mark: str
    extracted: Markup
    facts: str
    text: Markup
    left_out: int  # characters


@dataclass(frozen=True)
class Sample:
    benchmark: int  # its place among the page's benchmarks
    title: Markup
    outcome: str
    label: str
    problem: Markup
    answer: Markup
    sides: list[Side]


def show_samples(shown: list[dict[str, Any]], benchmarks: list[str], letters: list[str]) -> list[Sample]:
    return [_sample(mapping(each), benchmarks, letters) for each in shown if mapping(each).get("benchmark") in benchmarks]


def cut(value: Any, most: int) -> tuple[Markup, int]:
    """The text, inert, in at most about `most` bytes: its start and its end; and how many characters are left out."""
    text = UNKNOWN if value is None else str(value)
    keep = min(len(text), most)
    while True:
        head, tail = keep - keep // 3, keep // 3
        whole = keep >= len(text)
        parts = [inert(text)] if whole else [inert(text[:head]), inert(text[len(text) - tail :])]
        if keep < 2 or sum(len(part.encode()) for part in parts) <= most:
            return Markup("\n[…]\n").join(parts), 0 if whole else len(text) - keep
        keep //= 2


def _sample(example: dict[str, Any], benchmarks: list[str], letters: list[str]) -> Sample:
    outcome = example.get("outcome")
    listed = example.get("sides")
    sides = [mapping(side) for side in listed] if isinstance(listed, list) else []
    names = letters if len(sides) > 1 else [""]
    return Sample(
        benchmark=benchmarks.index(example["benchmark"]),
        title=cut(f"{example.get('problem_id')}, sample {example.get('sample')}", ANSWER_BYTES)[0],
        outcome=outcome if outcome in OUTCOMES else "other",
        label=OUTCOMES.get(str(outcome), "not graded"),
        problem=cut(example.get("problem"), PROBLEM_BYTES)[0],
        answer=cut(example.get("answer"), ANSWER_BYTES)[0],
        sides=[_side(name, side) for name, side in zip(names, sides, strict=False)],
    )


def _side(name: str, side: dict[str, Any]) -> Side:
    text, left_out = cut(side.get("text", ""), TEXT_BYTES)
    status, tokens = side.get("status"), side.get("tokens")
    facts = [
        f"{tokens:,} tokens" if isinstance(tokens, int) else "",
        "cut off" if side.get("finish_reason") == "length" else "",
    ]
    facts.append(f"{side.get('correct')} of {side.get('samples')} samples of this problem are right")
    return Side(
        name=name,
        status=status if status in _MARKS else "other",
        mark=_MARKS.get(str(status), "not graded"),
        extracted=cut(side.get("extracted"), ANSWER_BYTES)[0],
        facts=", ".join(filter(None, facts)),
        text=text,
        left_out=left_out,
    )
