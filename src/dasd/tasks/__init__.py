"""Problems, their verifiers, their step checkers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dasd.tasks.base import AnswerFormat, Grade, GradeStatus, Problem, StepCheck, Task

__all__ = ["Grade", "GradeStatus", "Problem", "StepCheck", "Task", "make_task"]


def make_task(name: str, answer_format: AnswerFormat = "auto", settings: Mapping[str, Any] | None = None) -> Task:
    """The task of this name: one of `dasd.config.TASKS`, `reasoning_gym/NAME`, or `path/to/file.py:function`.

    Raises KeyError for another name, ValueError for settings that the task does not take, ImportError for a task whose package
    is not installed.
    """
    settings = dict(settings or {})
    if ".py:" in name:
        from dasd.tasks.own import load_task

        return load_task(name, settings)
    if name.startswith("reasoning_gym/"):
        from dasd.tasks.reasoning_gym import ReasoningGymTask

        return ReasoningGymTask(name.removeprefix("reasoning_gym/"), settings, answer_format)
    if name == "word_problems":
        from dasd.tasks.word_problems import WordProblemTask, read_settings

        return WordProblemTask(answer_format, spec=read_settings(settings))
    if name == "products":
        from dasd.tasks.products import ProductsTask
        from dasd.tasks.products import read_settings as read_products

        return ProductsTask(spec=read_products(settings))
    if settings:
        raise ValueError(f"task {name} has no settings, got {', '.join(map(repr, settings))}")
    if name == "countdown":
        from dasd.tasks.countdown import CountdownTask

        return CountdownTask()
    if name == "math":
        from dasd.tasks.math import MathTask

        return MathTask(answer_format)
    if name == "choice":
        from dasd.tasks.choice import ChoiceTask

        return ChoiceTask(answer_format)
    raise KeyError(name)
