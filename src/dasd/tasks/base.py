"""What is a problem, and what does it mean to grade a completion?

Everything above this layer (training, evaluation, reports) speaks of `Problem`, `Grade` and `StepCheck` and never of a
particular task. Imports neither torch nor any other part of dasd.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol, runtime_checkable


class GradeStatus(StrEnum):
    """Outcome of grading one completion. Only `CORRECT` earns reward; `GRADER_ERROR` is a fault of ours, counted apart."""

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"
    GRADER_ERROR = "grader_error"


@dataclass(frozen=True)
class Problem:
    """One problem with its reference.

    `problem` is what the student sees, `answer` the gold answer, `solution` a worked reference (privileged, may be None),
    `hint` an optional privileged hint, `id` unique within its dataset.
    """

    id: str
    problem: str
    answer: str
    solution: str | None = None
    hint: str | None = None


@dataclass(frozen=True)
class Grade:
    """Status of a completion and the answer text it was judged by (None if no answer was found)."""

    status: GradeStatus
    extracted: str | None = None

    @property
    def correct(self) -> bool:
        return self.status is GradeStatus.CORRECT


@dataclass(frozen=True)
class StepCheck:
    """How many steps of a completion could be checked, and how many of those are right (StepAcc = right / checked).

    `first_wrong` counts the checkable steps up to and with the first wrong one, so 1 is the first step; None where none is
    wrong, or a task does not tell the order.
    """

    right: int
    checked: int
    first_wrong: int | None = field(default=None, compare=False)

    @classmethod
    def of(cls, verdicts: Sequence[bool]) -> StepCheck:
        """From the verdict on each step, in the order of the text."""
        first_wrong = next((place for place, right in enumerate(verdicts, start=1) if not right), None)
        return cls(sum(verdicts), len(verdicts), first_wrong)


class Task(Protocol):
    """A family of problems: grades a completion against its problem and checks the steps it can check."""

    @property
    def name(self) -> str: ...

    def gold_completion(self, problem: Problem) -> str:
        """A completion that must grade as right if the problem and its gold answer are sound."""
        ...

    def grade(self, problem: Problem, completion: str) -> Grade: ...

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """`grade` of each (problem, completion), in order; the way to grade many."""
        ...

    def check_steps(self, problem: Problem, completion: str) -> StepCheck: ...


@runtime_checkable
class TellsSolutionsApart(Protocol):
    """A task that knows when two right completions solve a problem in the same way."""

    def solution_key(self, problem: Problem, completion: str) -> str | None:
        """The same text for the same way, None for a completion that is not right."""
        ...
