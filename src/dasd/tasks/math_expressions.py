"""What does math-verify read in a text, and are two such expressions alike in value?

The only file that speaks to math-verify and sympy about expressions. A text inside a box is read whole or not at all:
math-verify by itself would take the last number of what it cannot read.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

Row = tuple[str, str]  # of a function by cases: value, condition

TOLERANCE = 1e-12  # relative; where a decimal is involved, math-verify's 6 decimals:
DECIMAL_TOLERANCE = 1e-5


@lru_cache(maxsize=512)  # samples of one problem share its gold answer and often each other's
def read(text: str) -> tuple[Any, ...]:
    """What math-verify makes of a whole answer: the expression, where it can read it, then the text."""
    from math_verify import LatexExtractionConfig, parse

    whole = LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)
    return tuple(parse(f"\\boxed{{{text}}}", [whole], parsing_timeout=None))


@lru_cache(maxsize=512)
def read_last(completion: str) -> tuple[Any, ...]:
    """What math-verify takes for the final expression of a text without a box."""
    from math_verify import parse

    # Without a box, "5/6." at the end would be read as no fraction.
    return tuple(parse(completion.rstrip(" \n."), parsing_timeout=None))


def expression(text: str) -> Any:
    """The expression that `text` is, None where it cannot be read."""
    return next((value for value in read(text) if not isinstance(value, str)), None)


def equal(gold: Any, answer: Any) -> bool:
    """math-verify's verdict on two readings, taken back where they differ in value."""
    from math_verify import verify

    return (verify(gold, answer, timeout_seconds=None) and not _apart(gold, answer)) or _equal_numbers(gold, answer)


def _apart(first: Any, second: Any) -> bool:
    """Whether two expressions differ in value at two points by more than rounding: math-verify compares 6 or 15 decimals."""
    from sympy import Expr, Float, Rational, UnevaluatedExpr

    if not (isinstance(first, Expr) and isinstance(second, Expr)) or first.free_symbols != second.free_symbols:
        return False
    if first.has(UnevaluatedExpr) or second.has(UnevaluatedExpr):  # a percentage equals the number before its sign
        return False
    symbols = sorted(first.free_symbols, key=str)
    tolerance = DECIMAL_TOLERANCE if first.has(Float) or second.has(Float) else TOLERANCE
    for shift in (0, 1) if symbols else (0,):
        point = {symbol: Rational(7 + 3 * i + 5 * shift, 4 + i) for i, symbol in enumerate(symbols)}
        try:
            a, b = (value.subs(point).doit().evalf(40) for value in (first, second))
            known = a.is_number and b.is_number and a.is_finite and b.is_finite
            if known and abs(a - b) > tolerance * max(abs(a), abs(b)):
                return True
        except (TypeError, ValueError, ArithmeticError, AttributeError):
            return False
    return False


def _equal_numbers(first: Any, second: Any) -> bool:
    """What math-verify misses: i is the imaginary unit where no other letter stands, and factorials cancel."""
    from sympy import Expr, I, Symbol, factorial, gamma, gammasimp

    if not (isinstance(first, Expr) and isinstance(second, Expr)):
        return False
    letters = first.free_symbols | second.free_symbols
    try:
        if (letters or first.has(I) or second.has(I)) and all(isinstance(s, Symbol) and s.name == "i" for s in letters):
            a, b = (value.subs(dict.fromkeys(letters, I)).doit().evalf(40) for value in (first, second))
            return bool(a.is_number and b.is_number and abs(a - b) <= 1e-30 * max(abs(a), abs(b), 1e-300))
        if first.has(factorial) or second.has(factorial):
            return bool(gammasimp((first - second).doit().rewrite(gamma)) == 0)
    except (TypeError, ValueError, ArithmeticError, AttributeError):
        return False
    return False


def values_differ(first: list[Row] | str, second: list[Row] | str) -> bool:
    """Whether two functions of one variable, by cases or not, differ at a point where both are defined."""
    from sympy import Rational

    functions = [
        [(expression(value), True if condition == "otherwise" else expression(condition)) for value, condition in side]
        if isinstance(side, list)
        else [(expression(side), True)]
        for side in (first, second)
    ]
    parts = [part for rows in functions for row in rows for part in row]
    if any(part is None for part in parts):
        return False
    symbols = {symbol for part in parts if part is not True for symbol in getattr(part, "free_symbols", ())}
    if len(symbols) != 1:
        return False
    symbol = symbols.pop()
    for point in [Rational(n, 4) for n in range(-40, 41)]:
        values = [_value_at(rows, symbol, point) for rows in functions]
        if None not in values and abs(complex(values[0] - values[1])) > 1e-9:
            return True
    return False


def _value_at(rows: list[tuple[Any, Any]], symbol: Any, point: Any) -> Any:
    """The value of the first row whose condition holds, None where that is not to be told."""
    for value, condition in rows:
        holds = str(condition if condition is True else condition.subs(symbol, point).doit())
        if holds == "True":
            number = value.subs(symbol, point).doit().evalf()
            return number if number.is_number and number.is_finite else None
        if holds != "False":
            return None
    return None


def is_malformed(text: str) -> bool:
    """A group that is empty or an operation that lacks its second half."""
    return re.search(r"\{\s*\}|\\[dt]?frac\s*$|[-+*/^=]\s*$", text) is not None
