"""Does an answer of mathematics equal the gold answer? math-verify decides; this file finds and tidies what it compares.

The answer is the content of the last box (boxes joined by a comma, "and" or "or" count as one), or without a box what
math-verify takes for the final expression. A handful of notations that math-verify does not read are put into ones that it
does. What is still judged wrongly is listed, with reasons, in tests/golden/math_answers.jsonl.

`judge` may take for ever or fill the memory on a hostile answer: call it in a worker (`dasd.tasks.workers`) only.
"""

from __future__ import annotations

import re
from fractions import Fraction
from functools import lru_cache
from typing import Any

from dasd.tasks.base import GradeStatus

_RATIONAL = re.compile(r"([-+]?)(?:([0-9]{1,100})(?:/([0-9]{1,100}))?|\\[dt]?frac\{(-?[0-9]{1,100})\}\{([0-9]{1,100})\})")
_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_JOINED = re.compile(r"[\s$]*(?:,|,?\s*and|,?\s*or)[\s$]*")
_REPEATING = re.compile(r"(?<![\d.,])(\d{0,9})\.(\d{0,9})\\overline\{(\d{1,9})\}")
_NOTATION = [
    (re.compile(r"(?<=\d)(?:\\[,;:! ]|\{,\})(?=\d{3}(?!\d))"), ""),  # thousands: 1\,234 and 1{,}234
    (re.compile("°"), r"^\\circ "),
    (re.compile(r"[£€¥](?=\s*\d)"), ""),
    (re.compile(r"\\varnothing(?![a-zA-Z])"), r"\\emptyset"),
    (re.compile(r"\\langle(?![a-zA-Z])(.*?)\\rangle(?![a-zA-Z])", re.DOTALL), r"(\1)"),
    (re.compile(r"(?<=\d)\s*(?:mm|cm|km|kg|ft)(?:\^\{?[23]\}?)?\s*$"), ""),
]


def judge(gold: str, completion: str) -> tuple[GradeStatus, str | None]:
    """(status, extracted answer). GRADER_ERROR where the gold answer cannot be read."""
    from math_verify import verify

    boxed = last_boxed(completion)
    if boxed is not None and not boxed.strip():
        return GradeStatus.NO_ANSWER, None
    gold, answer = _tidy(gold).strip(), None if boxed is None else _tidy(boxed).strip()
    right = None if answer is None else _equal_at_sight(gold, answer)
    if right is None:
        # A percentage is also right as the number before its sign: "what percent" has the answers 12.5 and 12.5 %.
        expected = [value for reading in sorted({gold, gold.rstrip("\\% ")}) for value in _read(f"\\boxed{{{reading}}}")]
        if not expected:
            return GradeStatus.GRADER_ERROR, None
        # Without a box, "5/6." at the end would be read as no fraction.
        found = _read(completion.rstrip(" \n.") if answer is None else f"\\boxed{{{answer}}}")
        if not found:
            return GradeStatus.NO_ANSWER, None
        right, answer = verify(expected, list(found), timeout_seconds=None), str(found[-1])
    return (GradeStatus.CORRECT if right else GradeStatus.INCORRECT), (answer or "")[:200]


def _equal_at_sight(gold: str, answer: str) -> bool | None:
    """Most answers end here, hundreds of times as fast as LaTeX is parsed: the same text, or two fractions of integers."""
    if gold and gold == answer:
        return True
    exact = _rational(gold), _rational(answer)
    return None if None in exact else exact[0] == exact[1]


def _rational(text: str) -> Fraction | None:
    """The value of an integer or of a fraction of integers, None for any other text."""
    match = _RATIONAL.fullmatch(text)
    if match is None:
        return None
    sign, whole, below, top, bottom = match.groups()
    denominator = int(below or bottom or 1)
    return Fraction(int(whole or top), denominator) * (-1 if sign == "-" else 1) if denominator else None


@lru_cache(maxsize=512)  # samples of one problem share its gold answer and often each other's
def _read(text: str) -> tuple[Any, ...]:
    from math_verify import parse

    return tuple(parse(text, parsing_timeout=None))


def last_boxed(text: str) -> str | None:
    """Content of the last closed box, joined to the boxes it is listed with; None where there is no closed box."""
    contents: list[str] = []
    previous_end = None
    for match in _BOX.finditer(text):
        end = _closing_brace(text, match.end())
        if end is None or (previous_end is not None and match.start() < previous_end):
            continue  # cut off, or a box inside a box: math-verify unwraps it
        joined = previous_end is not None and _JOINED.fullmatch(text, previous_end, match.start())
        contents = [*contents, text[match.end() : end]] if joined else [text[match.end() : end]]
        previous_end = end + 1
    return ", ".join(contents) if contents else None


def _closing_brace(text: str, start: int) -> int | None:
    depth = 1
    for match in re.compile(r"\\.|[{}]", re.DOTALL).finditer(text, start):
        depth += {"{": 1, "}": -1}.get(match[0], 0)
        if depth == 0:
            return match.start()
    return None


def _tidy(answer: str) -> str:
    answer = _REPEATING.sub(_as_fraction, answer)
    for pattern, replacement in _NOTATION:
        answer = pattern.sub(replacement, answer)
    return answer


def _as_fraction(match: re.Match[str]) -> str:
    """0.1\\overline{6} as a fraction: the digits with one period, less those without, over as many nines and zeros."""
    whole, fixed, period = match.groups()
    numerator = int(whole + fixed + period) - int(whole + fixed or "0")
    return f"\\frac{{{numerator}}}{{{'9' * len(period)}{'0' * len(fixed)}}}"
