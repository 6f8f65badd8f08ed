"""What is a rollout worth? The task's verifier and further rewards, as functions that TRL calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from trl.rewards import get_soft_overlong_punishment

from dasd.config import RunConfig
from dasd.tasks.base import GradeStatus, Problem, Task, grade_completions

COUNTED = (GradeStatus.NO_ANSWER, GradeStatus.UNDECIDED, GradeStatus.GRADER_ERROR)


def make_reward(task: Task, ends: Collection[int] = ()) -> Callable[..., list[float | None]]:
    """A TRL reward: 1 for a right completion, 0 for a wrong one, None (left out of its group) where the grader cannot tell.

    `ends` holds the tokens a finished completion ends with; one that ends otherwise was cut off. Without it none is taken for
    cut off. The shares of completions without an answer, undecided and failed are logged as `grades/...`.
    """

    def correct(
        completions: list, id: list[str], problem: list[str], answer: list[str], solution: Sequence[str | None] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None, log_metric: Callable[[str, float], None] | None = None, **_: Any,
    ) -> list[float | None]:  # fmt: skip
        solutions = solution or [None] * len(completions)
        problems = [Problem(*columns) for columns in zip(id, problem, answer, solutions, strict=True)]
        texts = [completion[0]["content"] for completion in completions]
        known = completion_ids is not None and bool(ends)
        cut_off = [known and (not ids or ids[-1] not in ends) for ids in completion_ids or [[]] * len(texts)]
        grades = grade_completions(task, list(zip(problems, texts, strict=True)), cut_off)
        counts = Counter(grade.status for grade in grades)
        if log_metric is not None:
            for status in COUNTED:
                log_metric(f"grades/{status.value}", counts[status] / len(grades))
        return [None if grade.status in COUNTED[1:] else float(grade.correct) for grade in grades]

    return correct


def rewards(task: Task, config: RunConfig, ends: Collection[int] = ()) -> list[Callable[..., list[float | None]]]:
    """The verifier, and where asked for DAPO's penalty on what is nearly too long."""
    length = config.training.max_completion_length
    buffer = round(config.training.overlong_buffer * length)
    return [make_reward(task, ends), *([get_soft_overlong_punishment(length, buffer)] if buffer else [])]
