"""Problems, their verifiers, their step checkers."""

from dasd.tasks.base import AnswerFormat, Grade, GradeStatus, Problem, StepCheck, Task

__all__ = ["Grade", "GradeStatus", "Problem", "StepCheck", "Task", "make_task"]


def make_task(name: str, answer_format: AnswerFormat = "auto") -> Task:
    """The task of this name: `countdown`, `math` or `choice`. Raises KeyError for another."""
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
