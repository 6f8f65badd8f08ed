"""What is the exact value of an expression of numbers, as plain text or LaTeX write it?

A small recursive-descent reader over tokens, in `fractions.Fraction`; nothing is evaluated as code. It would rather not know
than guess: whatever people read in two ways (6/2(1+2), -2^2, 2^3^2, 1 1/2, 50 + 10 %), and whatever grows beyond `MAX_BITS`,
raises `Unsure`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

MAX_BITS = 512
MAX_EXPONENT = 100
MAX_DEPTH = 20
MAX_TOKENS = 200

_TOKEN = re.compile(
    r"(?P<number>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]{1,40})(?:\.[0-9]{1,40})?|\.[0-9]{1,40})"
    r"|(?P<other>[=!<>:+\-*/]=+|=>|->|\.{2,}|\\(?!frac(?![a-zA-Z])|sqrt(?![a-zA-Z]))(?:[a-zA-Z]+|.)|[a-zA-Z]{2,}|[a-zA-Z])"
    r"|(?P<power>\*\*|\^)|(?P<operator>[-+*/])|(?P<equals>=)|(?P<percent>%)"
    r"|(?P<fraction>\\frac)|(?P<root>\\sqrt|√)|(?P<open>[(\[{])|(?P<close>[)\]}])"
    r"|(?P<space>[ \t]+)|(?P<unknown>.)",
    re.DOTALL,
)
_CLOSING = {"(": ")", "[": "]", "{": "}"}


class Unsure(Exception):
    """The expression is not one whose value is beyond doubt."""


class Token(NamedTuple):
    kind: str
    text: str
    start: int
    end: int


@dataclass(frozen=True)
class Value:
    """An expression's value; how many operations it has; its first number; decimal places where it is a lone number."""

    value: Fraction
    operations: int
    first: Fraction | None
    places: int | None
    percent: bool


def tokenize(line: str) -> list[Token]:
    """Tokens without the spaces between them; `other` and `unknown` stand for whatever is no arithmetic."""
    return [
        Token(match.lastgroup or "", match[0], match.start(), match.end())
        for match in _TOKEN.finditer(line)
        if match.lastgroup != "space"
    ]


def evaluate(tokens: Sequence[Token]) -> Value:
    """Raises Unsure for anything but one complete and unambiguous expression."""
    if not 0 < len(tokens) <= MAX_TOKENS:
        raise Unsure
    reader = _Reader(tokens)
    value = reader.sum(0)
    if reader.position != len(tokens):
        raise Unsure
    numbers = [token for token in tokens if token.kind == "number"]
    percent = any(token.kind == "percent" for token in tokens)
    lone = len(numbers) == 1 and reader.operations == percent
    return Value(
        value=value,
        operations=reader.operations,
        first=_leading(tokens),
        places=len(numbers[0].text.partition(".")[2]) if lone else None,
        percent=percent,
    )


def _number(text: str) -> Fraction:
    return Fraction(text.replace(",", ""))


def _leading(tokens: Sequence[Token]) -> Fraction | None:
    sign = -1 if tokens[0].text == "-" else 1
    token = tokens[1 if sign < 0 else 0]
    return sign * _number(token.text) if token.kind == "number" else None


def _bounded(value: Fraction) -> Fraction:
    if max(value.numerator.bit_length(), value.denominator.bit_length()) > MAX_BITS:
        raise Unsure
    return value


def _divide(a: Fraction, b: Fraction) -> Fraction:
    if b == 0:
        raise Unsure
    return a / b


def _power(base: Fraction, exponent: Fraction) -> Fraction:
    size = max(base.numerator.bit_length(), base.denominator.bit_length())
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT or size * abs(exponent) > MAX_BITS:
        raise Unsure
    if base == 0 and exponent <= 0:
        raise Unsure
    return base ** int(exponent)


def _root(value: Fraction, degree: int) -> Fraction:
    """The exact root of a perfect power."""
    if value < 0 or not 2 <= degree <= 10:
        raise Unsure
    top, bottom = (_integer_root(part, degree) for part in (value.numerator, value.denominator))
    return Fraction(top, bottom)


def _integer_root(number: int, degree: int) -> int:
    root = math.isqrt(number) if degree == 2 else round(number ** (1 / degree))
    if root**degree != number:
        raise Unsure
    return root


class _Reader:
    def __init__(self, tokens: Sequence[Token]) -> None:
        self.tokens = tokens
        self.position = 0
        self.operations = 0
        self._exponent_value = Fraction(1)

    def sum(self, depth: int) -> Fraction:
        if depth > MAX_DEPTH:
            raise Unsure
        value, percent = self._product(depth)
        while self._at("operator", "+-"):
            minus = self._take().text == "-"
            term, other_percent = self._product(depth)
            if percent != other_percent:  # 50 + 10 % is 55 for some and 50.1 for others
                raise Unsure
            value = _bounded(value - term if minus else value + term)
            self.operations += 1
        return value

    def _product(self, depth: int) -> tuple[Fraction, bool]:
        """The product, and whether it is nothing but a percentage."""
        start = self.position
        value = self._signed(depth)
        percent = self.tokens[self.position - 1].kind == "percent"
        divided = False
        while True:
            if self._at("operator", "*/"):
                divides = self._take().text == "/"
                divided = divided or divides
                factor = self._signed(depth)
                value = _bounded(_divide(value, factor) if divides else value * factor)
            elif self._multiplies_silently(start):
                if divided:  # 6/2(1+2)
                    raise Unsure
                value = _bounded(value * self._powered(depth))
            else:
                return value, percent
            percent = False
            self.operations += 1

    def _multiplies_silently(self, start: int) -> bool:
        """2(3), (2)(3), 2 sqrt 9, but neither `1 1/2` nor `3 (4)`, which may be a mixed number or two things side by side."""
        if self.position >= len(self.tokens) or self.position == start:
            return False
        left, right = self.tokens[self.position - 1], self.tokens[self.position]
        if right.kind == "number" or (right.kind == "fraction" and left.kind == "number"):
            raise Unsure
        if right.kind == "open":
            if right.text == "{" or (left.kind == "number" and left.end != right.start) or left.kind == "percent":
                raise Unsure
            return True
        return right.kind in ("fraction", "root")

    def _signed(self, depth: int) -> Fraction:
        if not self._at("operator", "-"):
            return self._powered(depth)
        self._take()
        start = self.position
        value = self._powered(depth)
        squared = self._last_power(start)
        if squared is not None and squared % 2 == 0:  # -2^2
            raise Unsure
        return -value

    def _last_power(self, start: int) -> Fraction | None:
        """The exponent of a bare number just read from `start`, None where it has none."""
        if self.position - start > 1 and self.tokens[start + 1].kind == "power":
            return self._exponent_value
        return None

    def _powered(self, depth: int) -> Fraction:
        base = self._atom(depth)
        if not self._at("power"):
            return base
        self._take()
        if self._at("open"):
            exponent = self._group(depth)
        else:
            minus = self._at("operator", "-") and self._take()
            exponent = self._digits() * (-1 if minus else 1)
        if self._at("power"):  # 2^3^2
            raise Unsure
        self._exponent_value = exponent
        self.operations += 1
        return _bounded(_power(base, exponent))

    def _atom(self, depth: int) -> Fraction:
        if self._at("open", "(["):
            return self._group(depth)
        if self._at("fraction"):
            self._take()
            top, bottom = self._group(depth, "{"), self._group(depth, "{")
            self.operations += 1
            return _bounded(_divide(top, bottom))
        if self._at("root"):
            return self._rooted(depth)
        value = self._digits()
        if self._at("percent"):
            self._take()
            self.operations += 1
            return value / 100
        return value

    def _rooted(self, depth: int) -> Fraction:
        sign, degree = self._take(), Fraction(2)
        if sign.text != "√" and self._at("open", "["):
            degree = self._group(depth)
        if degree.denominator != 1:
            raise Unsure
        bare = sign.text == "√" and self._at("number")
        value = self._digits() if bare else self._group(depth)
        self.operations += 1
        return _root(value, int(degree))

    def _group(self, depth: int, kind: str = "([{") -> Fraction:
        if not self._at("open", kind):
            raise Unsure
        opening = self._take()
        value = self.sum(depth + 1)
        if not self._at("close", _CLOSING[opening.text]):
            raise Unsure
        self._take()
        return value

    def _digits(self) -> Fraction:
        if not self._at("number"):
            raise Unsure
        return _bounded(_number(self._take().text))

    def _at(self, kind: str, texts: str | None = None) -> bool:
        if self.position >= len(self.tokens):
            return False
        token = self.tokens[self.position]
        return token.kind == kind and (texts is None or token.text in texts)

    def _take(self) -> Token:
        token = self.tokens[self.position]
        self.position += 1
        return token
