"""Problems, their verifiers, their step checkers."""

from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck, Task

__all__ = ["Grade", "GradeStatus", "Problem", "StepCheck", "Task", "make_task"]


def make_task(name: str) -> Task:
    """The task of this name: `countdown`, `math` or `choice`. Raises KeyError for another."""
    if name == "countdown":
        from dasd.tasks.countdown import CountdownTask

        return CountdownTask()
    if name == "math":
        from dasd.tasks.math import MathTask

        return MathTask()
    if name == "choice":
        from dasd.tasks.choice import ChoiceTask

        return ChoiceTask()
    raise KeyError(name)
