"""What is a rollout worth? The task's verifier and further rewards, as functions that TRL calls."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from trl.rewards import get_soft_overlong_punishment

from dasd.config import RunConfig
from dasd.tasks.base import GradeStatus, Problem, Task


def make_reward(task: Task) -> Callable[..., list[float | None]]:
    """A TRL reward: 1 for a right completion, 0 for a wrong one, None (left out of the group) where the grader failed."""

    def correct(
        completions: list, id: list[str], problem: list[str], answer: list[str], solution: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[float | None]:  # fmt: skip
        solutions = solution or [None] * len(completions)
        problems = [Problem(*columns) for columns in zip(id, problem, answer, solutions, strict=True)]
        texts = [completion[0]["content"] for completion in completions]
        grades = task.grade_all(list(zip(problems, texts, strict=True)))
        return [None if grade.status is GradeStatus.GRADER_ERROR else float(grade.correct) for grade in grades]

    return correct


def rewards(task: Task, config: RunConfig) -> list[Callable[..., list[float | None]]]:
    """The verifier, and where asked for DAPO's penalty on what is nearly too long."""
    length = config.training.max_completion_length
    buffer = round(config.training.overlong_buffer * length)
    return [make_reward(task), *([get_soft_overlong_punishment(length, buffer)] if buffer else [])]
