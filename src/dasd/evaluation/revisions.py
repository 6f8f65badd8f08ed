"""Where does a response turn back and take another path? Text alone; the definition is ours, the paper (2605.22263) gives none.

A *revision* is a marker (`REVISION_MARKERS`, whole words) after which the path changes. The path is the sequence of equations
`expression = number`. Between a marker and the next one let `f` be the first equation that was not written before; the path
changes where an equation `e` precedes the marker and `f` does not go on from it, that is, takes no number that is `e`'s result:

    3 + 8 = 11, 11 * 7 = 77. wait, 3 * 7 = 21     a revision: 21 has nothing to do with 77
    3 * 7 = 21. wait, 21 + 8 = 29                 none: it goes on
    3 * 7 = 21. check: 3 * 7 = 21                 none: it says the same again

It changes as well where the last answer given before the marker (boxed, or `answer: ...`) and the first one after it differ.
A text whose calculations stand side by side, each from new numbers, looks revised after any marker: the figure is an upper
bound there. Where a given number happens to equal the last result it is a lower one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from dasd.evaluation.health import BACKTRACKS, whole_words

REVISION_MARKERS = (*BACKTRACKS, "actually", "instead", "mistake", "on second thought", "scratch that")
MAX_CHARS = 100_000  # only a text's last characters are read

_PLAIN = [  # signs that look alike are what texts mix
    (re.compile(r"\\(?:times|cdot)(?![a-zA-Z])|[×·⋅]"), "*"),  # noqa: RUF001
    (re.compile(r"\\div(?![a-zA-Z])|÷"), "/"),
    (re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}"), r"(\1)/(\2)"),
    (re.compile(r"[−–]"), "-"),  # noqa: RUF001
    (re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))"), ""),
    (re.compile(r"\\[()\[\]]|[$&]"), " "),
]
_NUMBER = r"[0-9]+(?:\.[0-9]+)?"
_LEFT = rf"(?<![\w.])[a-zA-Z]|(?<![\w.])[(\-]?\s?{_NUMBER}[0-9.+\-*/^() ]{{0,80}}?"
_EQUATION = re.compile(rf"(?P<left>{_LEFT})\s?=\s?(?P<result>-?{_NUMBER}(?:/[0-9]+)?)")
_BOXED = r"\\boxed\s*\{([^{}]*(?:\{[^{}]*\}[^{}]*)*)\}"
_ANSWER = re.compile(rf"{_BOXED}|\banswer(?::| is)\s*([^\n]{{1,200}}?)(?:\.\s|\.?(?:\n|$))", re.IGNORECASE)


@dataclass(frozen=True)
class Revision:
    """A marker after which the path changes: its place in the text (as it was given), its words, what changed."""

    start: int
    marker: str
    before: str
    after: str


def find_revisions(text: str) -> list[Revision]:
    """The revisions of a response, in order."""
    offset = max(0, len(text) - MAX_CHARS)
    text = text[offset:]
    markers = list(whole_words(REVISION_MARKERS).finditer(text))
    bounds = [*(marker.start() for marker in markers), len(text)]
    before, found = _Path(text[: bounds[0]]), []
    for marker, end in zip(markers, bounds[1:], strict=True):
        after = _Path(text[marker.end() : end])
        change = before.change(after)
        if change is not None:
            found.append(Revision(offset + marker.start(), marker[0], *change))
        before = before.joined(after)
    return found


class _Path:
    """The equations and the answers of a stretch of text, in order."""

    def __init__(self, text: str) -> None:
        for pattern, replacement in _PLAIN:
            text = pattern.sub(replacement, text)
        self.equations = [(_squeezed(match["left"]), match["result"]) for match in _EQUATION.finditer(text)]
        self.answers = [_squeezed(match[1] or match[2]).rstrip(".") for match in _ANSWER.finditer(text)]
        self.known = set(self.equations)

    def change(self, after: _Path) -> tuple[str, str] | None:
        """What stood before and what stands after, where `after` leaves this path."""
        fresh = next((equation for equation in after.equations if equation not in self.known), None)
        if self.equations and fresh is not None and self.equations[-1][1] not in re.findall(_NUMBER, fresh[0]):
            return " = ".join(self.equations[-1]), " = ".join(fresh)
        if self.answers and after.answers and self.answers[-1] != after.answers[0]:
            return self.answers[-1], after.answers[0]
        return None

    def joined(self, after: _Path) -> _Path:
        self.equations, self.answers = self.equations + after.equations, self.answers + after.answers
        self.known |= after.known
        return self


def _squeezed(text: str) -> str:
    return re.sub(r"\s+", "", text)
