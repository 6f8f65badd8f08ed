"""Mathematics with a checkable final answer, graded by math-verify in worker processes with a hard time limit.

math-verify may take for ever on a hostile answer (a power tower), and its own time limit needs the main thread's signals. A
worker that exceeds the limit is ended and replaced, and only that answer becomes GRADER_ERROR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dasd.tasks.base import AnswerFormat, Grade, GradeStatus, Problem, StepCheck, wants_box
from dasd.tasks.equations import check_equations
from dasd.tasks.math_notation import last_boxed
from dasd.tasks.workers import WorkerPool

MAX_CHARS = 20_000  # the final answer is looked for in the completion's last characters

_pool = WorkerPool("dasd.tasks.math_judge", "call", warm_up=("judge", "\\sqrt{2}", "\\boxed{\\frac{x + 1}{2}}"))


@dataclass(frozen=True)
class MathTask:
    """Grades the final answer of a completion (its last box, or without one its last expression) against `Problem.answer`.

    `answer_format`: `boxed` takes boxes only, `last` takes both, `auto` takes boxes only where the problem asks for one.
    """

    answer_format: AnswerFormat = "auto"
    name: str = "math"
    seconds: float = 5.0

    def gold_completion(self, problem: Problem) -> str:
        return f"\\boxed{{{problem.answer}}}"

    def grade(self, problem: Problem, completion: str) -> Grade:
        return self.grade_all([(problem, completion)])[0]

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """Grades of many completions, in order, on all workers; one that takes for ever delays no other's grade but its own."""
        calls = [("judge", p.answer, completion[-MAX_CHARS:], wants_box(p, self.answer_format)) for p, completion in pairs]
        verdicts = _pool.map(calls, self.seconds)
        return [Grade(GradeStatus.GRADER_ERROR) if verdict is None else Grade(*verdict) for verdict in verdicts]

    def states_answer(self, completion: str) -> bool:
        return last_boxed(completion[-MAX_CHARS:]) is not None

    def unreadable(self, answers: Sequence[str]) -> list[str | None]:
        """Why math-verify could compare nothing with each of these gold answers, None where it can."""
        reasons = _pool.map([("unreadable", answer) for answer in answers], self.seconds)
        return [reason or None if reason is not None else "reading it took too long or failed" for reason in reasons]

    def same_answers(self, pairs: Sequence[tuple[str, str]]) -> list[bool | None]:
        return _pool.map([("same", *pair) for pair in pairs], self.seconds)

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """Every equation between numbers is a step; see `dasd.tasks.equations` for those that are left alone."""
        return check_equations(completion)
