"""What is a problem, and what does it mean to grade a completion?

Everything above this layer (training, evaluation, reports) speaks of `Problem`, `Grade` and `StepCheck` and never of a
particular task. Imports neither torch nor any other part of dasd.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Literal, Protocol, runtime_checkable

AnswerFormat = Literal[
    "auto", "boxed", "last"
]  # where an answer counts: in a box if the problem asks for one, only there, anywhere


class GradeStatus(StrEnum):
    """Outcome of grading one completion. Only `CORRECT` earns reward.

    `UNDECIDED`: an answer is there, but the grader cannot tell whether it is right. `GRADER_ERROR`: it failed, or ran out of
    time. Both are counted apart, as neither says anything about the completion.
    """

    CORRECT = "correct"
    INCORRECT = "incorrect"
    NO_ANSWER = "no_answer"
    UNDECIDED = "undecided"
    GRADER_ERROR = "grader_error"


@dataclass(frozen=True)
class Problem:
    """One problem with its reference.

    `problem` is what the student sees, `answer` the gold answer, `solution` a worked reference (privileged, may be None),
    `hint` an optional privileged hint, `id` unique within its dataset. `prompt` are the chat messages that ask it, where
    they are more than `problem` said by a user; `question` is the problem without the words that were put around it; `further`
    are other columns of its row, for rewards.
    """

    id: str
    problem: str
    answer: str
    solution: str | None = None
    hint: str | None = None
    prompt: tuple[dict[str, Any], ...] | None = None
    question: str | None = None
    further: tuple[tuple[str, str | None], ...] = ()

    @property
    def messages(self) -> list[dict[str, Any]]:
        return list(self.prompt) if self.prompt is not None else [{"role": "user", "content": self.problem}]

    @property
    def digest(self) -> str:
        """Hash of the question and the turns before it, however they are spaced and whatever words stand around them."""
        earlier = [str(message["content"]) for message in self.messages[:-1] if message["role"] in ("user", "assistant")]
        words = " ".join(" ".join([*earlier, self.question or self.problem]).split()).casefold()
        return hashlib.sha256(words.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass(frozen=True)
class Grade:
    """Status of a completion, the answer text it was judged by (None if no answer was found), and partial credit from 0 to 1
    where the task gives any: a second figure, which earns no reward. `reason`: why the verifier failed, where that is known."""

    status: GradeStatus
    extracted: str | None = None
    score: float | None = None
    reason: str | None = field(default=None, compare=False)

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


def wants_box(problem: Problem, answer_format: AnswerFormat) -> bool:
    """Whether only a boxed answer counts: `auto` goes by the words that ask the problem, a system message's too."""
    asks = any("\\boxed" in str(message.get("content")) for message in problem.messages if message.get("role") != "assistant")
    return answer_format == "boxed" or (answer_format == "auto" and asks)


def grade_completions(task: Task, pairs: Sequence[tuple[Problem, str]], cut_off: Sequence[bool]) -> list[Grade]:
    """Grades in order. A completion that ran out of tokens before it stated its answer has none, whatever it stopped at."""
    states = task.states_answer if isinstance(task, StatesAnswer) else lambda _: True
    return [
        Grade(GradeStatus.NO_ANSWER)
        if cut and not states(completion) and grade.status is not GradeStatus.GRADER_ERROR
        else grade
        for (_, completion), grade, cut in zip(pairs, task.grade_all(pairs), cut_off, strict=True)
    ]


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
class MakesProblems(Protocol):
    """A task that has problems of its own: `data.source: bundled`."""

    @property
    def splits(self) -> tuple[str, ...]: ...

    def make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        """`count` distinct problems of one split, the same list for the same arguments; no problem is in two splits.

        Raises ValueError where there are too few.
        """
        ...


@runtime_checkable
class StatesAnswer(Protocol):
    """A task that knows an answer that was given from a text that merely stops at something like one."""

    def states_answer(self, completion: str) -> bool: ...


@runtime_checkable
class ReadsAnswers(Protocol):
    """A task that compares answers by their meaning."""

    def unreadable(self, answers: Sequence[str]) -> list[str | None]:
        """Why no completion can be compared with each of these gold answers, None where one can."""
        ...

    def same_answers(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        """Whether two extracted answers are one answer; None where the comparison failed."""
        ...


@runtime_checkable
class TellsSolutionsApart(Protocol):
    """A task that knows when two right completions solve a problem in the same way."""

    def solution_key(self, problem: Problem, completion: str) -> str | None:
        """The same text for the same way, None for a completion that is not right."""
        ...
