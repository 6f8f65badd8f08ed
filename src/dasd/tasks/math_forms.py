"""What shape does an answer have: congruence, cases, tuple, list, named values, interval, inequality?

Readers only: each takes a tidy text and returns its parts as text, or None where the text has another shape. What the parts
are worth is `math_judge`'s question.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dasd.tasks.math_notation import balanced, plain_words, top_level

_COMMA = re.compile(r"\s*[,;]\s*(?:\\text\s*\{\s*(?:and|or)\s*\}|(?:and|or)(?![a-zA-Z]))?\s*")
_CONJUNCTION = re.compile(r"\s*\\text\s*\{\s*(?:and|or)\s*\}\s*|\s+(?:and|or)\s+|\s*\\(?:land|lor|wedge|vee)(?![a-zA-Z])\s*")
_OR = re.compile(r"\s*\\text\s*\{\s*,?\s*or\s*\}\s*|\s*,?\s+or\s+|\s*\\(?:lor|vee)(?![a-zA-Z])\s*")
_AND = re.compile(r"\s*\\text\s*\{\s*,?\s*and\s*\}\s*|\s*,?\s+and\s+|\s*\\(?:land|wedge)(?![a-zA-Z])\s*|\s*,\s*")
_MOD = re.compile(r"\\?\(?\s*\\?(?:pmod|bmod|mod)(?![a-zA-Z])\s*(.+)$", re.DOTALL)
_CASES = re.compile(r"(?:.*?=\s*)?\\begin\s*\{[dr]?cases\}(.*)\\end\s*\{[dr]?cases\}", re.DOTALL)
_VECTOR = re.compile(r"\\begin\s*\{[pb]matrix\}(.*)\\end\s*\{[pb]matrix\}", re.DOTALL)
_NAME = r"[a-zA-Z](?:_\{?\w+\}?|')?|\\[a-z]+"
_RELATION = re.compile(r"\\(?:le|ge|lt|gt|ne)(?![a-zA-Z])|<|>")
_CLOCK = re.compile(r"(\d{1,2}):(\d{2})\s*(?:([ap])\.?\s?m\.?)?", re.IGNORECASE)
_RATIO = re.compile(r"(?:[^:,=]+\s*:\s*)+[^:,=]+")
_NUMERAL = re.compile(r"([0-9A-Z]+)_\{?(?:(\d{1,2})|\\text\{\s*([a-z]+)\s*\})\}?")
_BASES = {"two": 2, "three": 3, "four": 4, "five": 5, "six": 6, "seven": 7, "eight": 8, "nine": 9, "ten": 10, "sixteen": 16}


@dataclass(frozen=True)
class Congruence:
    """`subject` (may be empty) is congruent to one of `residues` modulo `modulus`."""

    subject: str
    residues: tuple[str, ...]
    modulus: str


@dataclass(frozen=True)
class Clock:
    """A time of day in minutes since midnight; `half` is a, p or "" where it was not said."""

    minutes: int
    half: str


def clock(text: str) -> Clock | None:
    match = _CLOCK.fullmatch(plain_words(text).replace(" : ", ":"))
    if match is None or int(match[1]) > 23 or int(match[2]) > 59:
        return None
    half = (match[3] or "").lower()
    hour = int(match[1]) % 12 + (12 if half == "p" else 0) if half else int(match[1])
    return Clock(60 * hour + int(match[2]), half)


def ratio(text: str) -> list[str] | None:
    """Terms of 3:4, `3 to 4`, 1:2:3."""
    text = re.sub(r"\s+to\s+", ":", plain_words(text))
    return [term.strip() for term in text.split(":")] if _RATIO.fullmatch(text) else None


def numeral(text: str) -> tuple[str, int] | None:
    """(digits, base) of 1A_{16}, where the digits are of that base and one of them is a figure."""
    match = _NUMERAL.fullmatch(text.replace(" ", ""))
    base = int(match[2] or _BASES.get(match[3], 0)) if match else 0
    if match is None or not 2 <= base <= 36 or not re.search(r"\d", match[1]):
        return None
    return (match[1], base) if all(int(digit, 36) < base for digit in match[1]) else None


def congruence(text: str) -> Congruence | None:
    text = plain_words(text)
    if len(re.findall(r"\\?[pb]?mod(?![a-zA-Z])", text)) != 1:
        return None
    left, _, right = text.partition("\\equiv") if "\\equiv" in text else text.rpartition("=")
    match = _MOD.search(right)
    if match is None:
        return None
    residues = right[: match.start()].strip().removesuffix("(").strip()
    modulus = match[1].strip().removesuffix(")").strip().removeprefix("{").removesuffix("}").strip()
    listed = top_level(residues.strip("{} "), re.compile(r"\s*(?:,\s*(?:and|or)?|\s(?:and|or)\s)\s*"))
    residues_apart: list[str] = []
    for residue in listed:
        signs = re.fullmatch(r"\\pm\s*(.+)", residue)
        residues_apart += [signs[1], f"-{signs[1]}"] if signs else [residue]
    return Congruence(left.strip(), tuple(residues_apart), modulus)


def cases(text: str) -> list[tuple[str, str]] | None:
    """(value, condition) of each row; the condition of `otherwise` is that word."""
    match = _CASES.fullmatch(text)
    if match is None:
        return None
    rows = []
    for row in filter(str.strip, re.split(r"\\\\(?:\[[^\]]*\])?", match[1])):
        value, ampersand, condition = row.partition("&")
        if not ampersand:
            value, comma, condition = row.rpartition(",")
            if not comma:
                return None
        condition = re.sub(r"^(?:if|for|when|where)\b|^\\quad", "", plain_words(condition).strip(" ,;.")).strip()
        otherwise = re.match(r"(?:otherwise|else|elsewhere)\b", condition)
        rows.append((value.strip(" ,;"), "otherwise" if otherwise else condition.strip(" ,;.")))
    return rows or None


def ordered(text: str) -> list[str] | None:
    """Parts of (a, b, ...) or of a row or column of numbers, at least two."""
    vector = _VECTOR.fullmatch(text)
    if vector:
        rows = [row.split("&") for row in re.split(r"\\\\", vector[1]) if row.strip()]
        cells = [cell.strip() for row in rows for cell in row]
        return cells if len(cells) > 1 and (len(rows) == 1 or all(len(row) == 1 for row in rows)) else None
    inner = _inside(text, "(", ")")
    parts = top_level(inner, _COMMA) if inner is not None else []
    return parts if len(parts) > 1 and all(parts) else None


def unordered(text: str) -> list[str] | None:
    """Parts of a, b, ... or {a, b, ...} or `a or b`; both values of one plus-minus. None for a text that is no list."""
    inner = _inside(text, "\\{", "\\}")
    parts = top_level(text if inner is None else inner, _COMMA)
    parts = [piece for part in parts for piece in top_level(part, _CONJUNCTION)]
    if len(parts) == 1 and parts[0].count("\\pm") == 1 and "\\mp" not in parts[0]:
        plus = parts[0].replace("\\pm", "+", 1)
        parts = [re.sub(r"^(.*=\s*|\s*)\+\s*", r"\1", plus), parts[0].replace("\\pm", "-", 1)]
    return parts if all(parts) and (len(parts) > 1 or inner is not None) else None


def named(parts: list[str]) -> dict[str, str] | None:
    """name -> value where every part is `name = value` with a name of its own."""
    pairs = [re.fullmatch(rf"({_NAME})\s*=\s*([^=<>]+)", part) for part in parts]
    found = {pair[1]: pair[2].strip() for pair in pairs if pair}
    return found if len(found) == len(parts) else None


def bracketed(text: str) -> tuple[str, list[str], str] | None:
    """(opening, two ends, closing) of an interval's text, which may also be a pair."""
    match = re.fullmatch(r"([\[(])(.*)([\])])", text, re.DOTALL)
    parts = top_level(match[2], re.compile(r"\s*[,;]\s*")) if match and balanced(match[2]) else []
    return (match[1], parts, match[3]) if match and len(parts) == 2 and all(parts) else None


def alternatives(text: str) -> list[list[list[str]]] | None:
    """An inequality as alternatives of conjunctions of chains: `x < 1 or 2 <= x < 3` is [[[x, <, 1]], [[2, <=, x, <, 3]]]."""
    if not _RELATION.search(text):
        return None
    return [[_chain(part) for part in top_level(branch, _AND)] for branch in top_level(text, _OR)]


def _chain(text: str) -> list[str]:
    signs = {"\\lt": "<", "\\gt": ">", "\\le": "<=", "\\ge": ">=", "\\ne": "!="}
    pieces = re.split(rf"({_RELATION.pattern})", text)
    return [signs.get(piece.strip(), piece.strip()) for piece in pieces]


def _inside(text: str, opening: str, closing: str) -> str | None:
    """What stands between a bracket at the very start and its partner at the very end."""
    if not (text.startswith(opening) and text.endswith(closing)):
        return None
    inner = text[len(opening) : -len(closing)]
    return inner if balanced(inner) else None
