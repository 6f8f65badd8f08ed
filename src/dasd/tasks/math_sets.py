"""Which real numbers does a text name: (0, 7), 0 < x < 7, x < 1 or x > 3, x \\ne 2?"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from dasd.tasks.math_expressions import expression
from dasd.tasks.math_forms import alternatives, bracketed
from dasd.tasks.math_notation import top_level

_MEMBER = re.compile(r"([a-zA-Z])\s*\\in(?![a-zA-Z])\s*")
_UNION = re.compile(r"\s*\\cup(?![a-zA-Z])\s*")


@dataclass(frozen=True)
class RealSet:
    """A sympy set, the letter it was written with ("" for an interval), and whether it was written as an inequality."""

    points: Any
    letter: str
    relation: bool


def real_set(text: str) -> RealSet | None:
    """The set that an interval, a union of intervals, or an inequality in one letter names; None for other texts."""
    member = _MEMBER.match(text)
    branches = alternatives(text)
    if branches is None:
        points = _union(text[member.end() :] if member else text)
        return None if points is None else RealSet(points, member[1] if member else "", False)
    sets = [[_chain_set(chain) for chain in branch] for branch in branches]
    known = [found for branch in sets for found in branch if found is not None]
    if len(known) < sum(map(len, sets)) or len({letter for letter, _ in known}) != 1:
        return None
    from sympy import Intersection, Union

    parts = [Intersection(*[found[1] for found in branch if found]) for branch in sets]
    return RealSet(Union(*parts), known[0][0], True)


def _union(text: str) -> Any:
    from sympy import Interval, Union

    parts = []
    for part in top_level(text, _UNION):
        interval = bracketed(part)
        ends = [expression(end) for end in interval[1]] if interval else []
        if interval is None or not all(_is_real(end) for end in ends):
            return None
        parts.append(Interval(*ends, left_open=interval[0] == "(", right_open=interval[2] == ")"))
    return Union(*parts)


def _chain_set(chain: list[str]) -> tuple[str, Any] | None:
    """(letter, points) of a < x <= b or x \\ne a; for other inequalities in one letter sympy's solution."""
    from sympy import FiniteSet, Interval, Reals, oo

    sides, signs = chain[::2], chain[1::2]
    letters = [side for side in sides if re.fullmatch(r"[a-zA-Z]|\\(?!infty)[a-z]+", side)]
    if len(letters) != 1 or not signs:
        return _solved(chain)
    points = Reals
    for (left, right), sign in zip(pairwise(sides), signs, strict=True):
        bound = expression(right if left == letters[0] else left)
        if letters[0] not in (left, right) or not _is_real(bound):
            return _solved(chain)
        if sign == "!=":
            points -= FiniteSet(bound)
            continue
        below = (left == letters[0]) == (sign in ("<", "<="))
        strict = sign in ("<", ">")
        points = points.intersect(Interval(-oo, bound, True, strict) if below else Interval(bound, oo, strict, True))
    return letters[0], points


def _solved(chain: list[str]) -> tuple[str, Any] | None:
    from sympy.core.relational import Relational

    written = {"<=": "\\le ", ">=": "\\ge ", "!=": "\\ne ", "<": "<", ">": ">"}
    relation = expression(" ".join(written.get(piece, piece) for piece in chain))
    if not isinstance(relation, Relational) or len(relation.free_symbols) != 1:
        return None
    try:
        return str(next(iter(relation.free_symbols))), relation.as_set()
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None


def _is_real(end: Any) -> bool:
    return end is not None and not getattr(end, "free_symbols", True) and bool(getattr(end, "is_extended_real", False))
