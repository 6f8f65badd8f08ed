"""A step of a Countdown search: arithmetic of whole numbers, and how it is written."""

from __future__ import annotations

Step = tuple[int, str, int, int]  # (a, operator, b, result), read as "a operator b = result"

OPERATORS = "+-*/"
RESULT_LIMIT = 99  # results in bundled problems and written searches lie in 1..RESULT_LIMIT


def apply_operator(a: int, operator: str, b: int) -> int | None:
    """Result of `a operator b` in whole numbers, or None where division leaves a remainder."""
    match operator:
        case "+":
            return a + b
        case "-":
            return a - b
        case "*":
            return a * b
        case "/":
            return a // b if b != 0 and a % b == 0 else None
    raise ValueError(f"operator {operator!r} is not one of {OPERATORS}")


def write_step(step: Step) -> str:
    a, operator, b, result = step
    return f"{a} {operator} {b} = {result}"
