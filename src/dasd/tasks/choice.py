"""Multiple choice: which letter, A to J, does a completion settle on?

The last box counts, else the last "answer is (B)" or "Answer: B", else a last line that is nothing but a letter. A completion
that names several letters there is wrong; one whose box holds no letter, or that never says which, has no answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from dasd.tasks.base import AnswerFormat, Grade, GradeStatus, Problem, StepCheck, wants_box
from dasd.tasks.equations import check_equations
from dasd.tasks.math_notation import last_boxed, tidy

LETTERS = "ABCDEFGHIJ"
MAX_CHARS = 20_000  # the final answer is looked for in the completion's last characters

# A letter of its own: no part of a word, a subscripted or a defined name (C_2, A = 5).
_LETTER = rf"[({{\[]?([{LETTERS}])(?![A-Za-z0-9'\u2019^]|_[\w{{]| ?[=+<>])[)}}\]]?"
# "answer is A common ..." and "answer is I think" name no letter: bare A and I are words before a word.
_NAMED = rf"(?!(?:A|I) +[a-z]){_LETTER}"
_ALSO = re.compile(rf"\s*(?:(?:/|&|or\b|and\b)\s*{_NAMED}|,\s*(?:or\s|and\s)?\s*{_LETTER}(?! (?!and\b|or\b)[a-z]))")
_STATED = re.compile(
    rf"\b[Aa](?i:nswer)(?: (?i:choice|option))?[*_]*\s*(?::|(?i:is|would be|must be|should be)\b:?)[\s*_$]*"
    rf"(?:(?i:option|choice|letter) )?{_NAMED}"
)
_ALONE = re.compile(rf"[\s*_$]*{_LETTER}[\s*_.$]*")
_BEFORE = re.compile(r"(?:(?:the )?(?:correct |right |best )?(?:answer|option|choice|letter)(?: is|:)?\s*)+", re.IGNORECASE)
_DRESS = re.compile(r"\\(?:text|textbf|textit|mathrm|mathbf|mathbb|mathsf|bf|rm)(?![a-z])\s*|[{}$*]|\\[ ,;!]")


@dataclass(frozen=True)
class ChoiceTask:
    """Grades the letter of a completion against `Problem.answer`, a letter such as `B` or `(B)`.

    `answer_format`: `boxed` takes boxes only, `last` takes every way to name a letter, `auto` goes by the problem's words.
    """

    answer_format: AnswerFormat = "auto"
    name: str = "choice"

    def gold_completion(self, problem: Problem) -> str:
        """Raises ValueError where the gold answer is no letter from A to J."""
        if read_letter(problem.answer) is None:
            raise ValueError(f"its answer is {problem.answer!r}, a multiple choice needs a letter from A to J")
        return f"\\boxed{{{problem.answer}}}"

    def grade(self, problem: Problem, completion: str) -> Grade:
        gold = read_letter(problem.answer)
        if gold is None:
            return Grade(GradeStatus.GRADER_ERROR)
        answer = read_choice(completion, wants_box(problem, self.answer_format))
        if answer is None:
            return Grade(GradeStatus.NO_ANSWER)
        return Grade(GradeStatus.CORRECT if answer == gold else GradeStatus.INCORRECT, answer)

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        return [self.grade(problem, completion) for problem, completion in pairs]

    def states_answer(self, completion: str) -> bool:
        return last_boxed(completion[-MAX_CHARS:]) is not None

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """Every equation between numbers is a step; see `dasd.tasks.equations` for those that are left alone."""
        return check_equations(completion)


def read_letter(text: str) -> str | None:
    """The letter of a text that is one letter, dressed or not: B, (B), B., \\text{(B)}, b."""
    match = re.fullmatch(rf"[(\[]?([{LETTERS}])[)\].:]*", _DRESS.sub("", text).strip().upper())
    return match[1] if match else None


def read_choice(completion: str, boxed_only: bool = False) -> str | None:
    """The letter a completion settles on, several joined by a comma where it names several, None where it names none."""
    completion = completion[-MAX_CHARS:]
    boxed = last_boxed(completion)
    if boxed is not None:
        content = _BEFORE.sub("", _DRESS.sub("", tidy(boxed)).strip())
        return read_letter(content) or _listed(content)
    if boxed_only:
        return None
    stated = list(_STATED.finditer(completion))
    if stated:
        return _listed(completion[stated[-1].start(1) :])
    lines = completion.strip().splitlines()
    alone = _ALONE.fullmatch(lines[-1]) if lines else None
    return alone[1] if alone else None


def _listed(text: str) -> str | None:
    """Letters at the start of a text: `B) 42` has B, `B or C` has B,C."""
    match = re.match(_NAMED, text)
    letters = []
    while match:
        letters.append(next(filter(None, match.groups())))
        match = _ALSO.match(text, match.end())
    return ",".join(letters) or None
