"""Mathematics with a checkable final answer, graded by math-verify in worker processes with a hard time limit.

math-verify may take for ever on a hostile answer (a power tower), and its own time limit needs the main thread's signals. A
worker that exceeds the limit is ended and replaced, and only that answer becomes GRADER_ERROR.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck
from dasd.tasks.equations import check_equations
from dasd.tasks.workers import WorkerPool

MAX_CHARS = 20_000  # the final answer is looked for in the completion's last characters

_pool = WorkerPool("dasd.tasks.math_judge", "judge", warm_up=("\\sqrt{2}", "\\boxed{\\frac{x + 1}{2}}"))


@dataclass(frozen=True)
class MathTask:
    """Grades the final answer of a completion (boxed, or the last expression) against `Problem.answer`."""

    name: str = "math"
    seconds: float = 5.0

    def gold_completion(self, problem: Problem) -> str:
        return f"\\boxed{{{problem.answer}}}"

    def grade(self, problem: Problem, completion: str) -> Grade:
        return self.grade_all([(problem, completion)])[0]

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        """Grades of many completions, in order, on all workers; one that takes for ever delays no other's grade but its own."""
        verdicts = _pool.map([(problem.answer, completion[-MAX_CHARS:]) for problem, completion in pairs], self.seconds)
        return [Grade(GradeStatus.GRADER_ERROR) if verdict is None else Grade(*verdict) for verdict in verdicts]

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """Every equation between numbers is a step; see `dasd.tasks.equations` for those that are left alone."""
        return check_equations(completion)
