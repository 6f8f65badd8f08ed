"""What is a rollout worth? The task's verifier and further rewards, as functions that TRL calls."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from trl.rewards import get_soft_overlong_punishment

from dasd.config import BadInput, RunConfig
from dasd.tasks.base import GradeStatus, Problem, Task, grade_completions
from dasd.training.own_rewards import OwnReward

Reward = Callable[..., list[float | None]]
COUNTED = (GradeStatus.NO_ANSWER, GradeStatus.UNDECIDED, GradeStatus.GRADER_ERROR)


def make_reward(task: Task, ends: Collection[int] = ()) -> Reward:
    """A TRL reward: 1 for a right completion, 0 for a wrong one, None (left out of its group) where the grader cannot tell.

    `ends` holds the tokens a finished completion ends with; one that ends otherwise was cut off. Without it none is taken for
    cut off. The shares of completions without an answer, undecided and failed are logged as `grades/...`.
    """

    def correct(
        completions: list, id: list[str], problem: list[str], answer: list[str], solution: Sequence[str | None] | None = None,
        prompts: Sequence[list[dict[str, Any]]] | None = None,
        completion_ids: Sequence[Sequence[int]] | None = None, log_metric: Callable[[str, float], None] | None = None, **_: Any,
    ) -> list[float | None]:  # fmt: skip
        nothing = [None] * len(completions)
        asked = [tuple(prompt) for prompt in prompts] if prompts else nothing
        columns = zip(id, problem, answer, solution or nothing, nothing, asked, strict=True)
        problems = [Problem(*row) for row in columns]
        texts = [completion[0]["content"] for completion in completions]
        known = completion_ids is not None and bool(ends)
        cut_off = [known and (not ids or ids[-1] not in ends) for ids in completion_ids or [[]] * len(texts)]
        grades = grade_completions(task, list(zip(problems, texts, strict=True)), cut_off)
        counts = Counter(grade.status for grade in grades)
        if log_metric is not None:
            for status in COUNTED:
                log_metric(f"grades/{status.value}", counts[status] / len(grades))
            if scores := [grade.score for grade in grades if grade.score is not None]:
                log_metric("grades/partial_credit", sum(scores) / len(scores))
        return [None if grade.status in COUNTED[1:] else float(grade.correct) for grade in grades]

    return correct


def rewards(task: Task, config: RunConfig, ends: Collection[int] = ()) -> list[Reward]:
    """The verifier, where asked for DAPO's penalty on what is nearly too long, and the user's own. Raises BadInput."""
    length, buffer = config.training.max_completion_length, config.training.overlong_tokens
    try:
        own = [OwnReward(name) for name in config.training.rewards]
    except ValueError as error:
        raise BadInput(f"training.rewards: {error}") from None
    return together([make_reward(task, ends), *([get_soft_overlong_punishment(length, buffer)] if buffer else []), *own])


def together(functions: Sequence[Reward]) -> list[Reward]:
    """The same rewards, but for completions that the verifier (the first) or a function of the user's could not judge: those
    have no reward at all. TRL adds up what there is, so a missing one would count as 0.

    TRL calls them in order with the same batch; all are worked out at the first call.
    """
    if len(functions) == 1:
        return list(functions)
    columns: list[list[float | None]] = []

    def view(index: int) -> Reward:
        def reward(completions: list, **others: Any) -> list[float | None]:
            if index == 0:
                columns[:] = [function(completions=completions, **others) for function in functions]
                for row, values in enumerate(zip(*columns, strict=True)):
                    if values[0] is None or any(value is not None and math.isnan(value) for value in values):
                        for column in columns:
                            column[row] = None
            return columns[index]

        reward.__name__ = functions[index].__name__
        return reward

    return [view(index) for index in range(len(functions))]
