"""A task from a user's own file: `data.task: path/to/file.py:make_task`.

The file's function is called with `data.task_settings` and returns an object with methods of `dasd.tasks.base.Task`; `grade` is
enough to begin with. What judges a completion runs in worker processes with a hard time limit: a verifier that hangs, raises
or dies costs that one grade, which is counted as GRADER_ERROR.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from dasd.own_files import load_file, offered
from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck
from dasd.tasks.workers import WorkerPool

logger = logging.getLogger("dasd")
LOAD = ""  # in place of a method: the file is run once before the first call, in nobody's time
MOST_OF_A_REASON = 400  # characters
_FAILED = GradeStatus.GRADER_ERROR
SECONDS = 10.0  # of one call, unless the task has an attribute `seconds`


def load_task(name: str, settings: Mapping[str, Any]) -> OwnTask:
    """The task that `path/to/file.py:function` makes. Raises ValueError with what is wrong with the file."""
    path, _, function = name.rpartition(":")
    return OwnTask(str(Path(path).expanduser().resolve()), function, json.dumps(dict(settings), sort_keys=True))


class OwnTask:
    """A user's task, called safely. Problems of its own and gold completions are made here, all else in workers."""

    def __init__(self, path: str, function: str, settings: str) -> None:
        self._target = path, function, settings
        self.task = _make(*self._target)
        if not callable(getattr(self.task, "grade", None)):
            raise ValueError(
                f"{function} in {path} returned {type(self.task).__name__}, which has no method grade(problem, completion)"
            )
        self.name = str(getattr(self.task, "name", function))
        self.seconds = float(getattr(self.task, "seconds", SECONDS))
        self._said: set[str] = set()  # kinds of reasons why it failed
        self._pool = WorkerPool("dasd.tasks.own", "call", warm_up=(*self._target, LOAD, None, ""))
        if callable(getattr(self.task, "make_problems", None)):
            self.make_problems = self._make_problems
            self.splits = tuple(getattr(self.task, "splits", ("train", "validation", "test")))
        if callable(getattr(self.task, "solution_key", None)):
            self.solution_key = self._solution_key

    def _make_problems(self, count: int, seed: int, split: str) -> list[Problem]:
        """The task's own. Raises ValueError where it fails, returns no problems, or gives two of them one id."""
        says = f"make_problems of task {self.name}"
        try:
            made = self.task.make_problems(count, seed, split)
        except (Exception, SystemExit) as error:
            raise ValueError(f"{says}({count}, {seed}, {split!r}) failed: {type(error).__name__}: {error}") from error
        if not isinstance(made, list | tuple) or not made:
            raise ValueError(f"{says} must return a list of dasd.tasks.base.Problem, got {made!r:.80}")
        seen: set[str] = set()
        for index, problem in enumerate(made):
            if not isinstance(problem, Problem):
                kind = type(problem).__name__
                raise ValueError(f"{says} must return a list of dasd.tasks.base.Problem, entry {index} is of type {kind}")
            for name in ("id", "problem", "answer"):
                if not isinstance(getattr(problem, name), str):
                    raise ValueError(f"{says}: {name} of entry {index} must be text, got {getattr(problem, name)!r}")
            if problem.id in seen:
                raise ValueError(f"{says}: two problems have the id {problem.id!r}; each needs one of its own")
            seen.add(problem.id)
        if len(made) != count:
            logger.warning("%s returned %d problems, asked for %d", says, len(made), count)
        return list(made)

    def gold_completion(self, problem: Problem) -> str:
        """The task's own, or a box around the answer. Raises ValueError where the task's own fails."""
        if not callable(own := getattr(self.task, "gold_completion", None)):
            return f"\\boxed{{{problem.answer}}}"
        try:
            return str(own(problem))
        except (Exception, SystemExit) as error:
            raise ValueError(f"gold_completion of task {self.name} failed: {type(error).__name__}: {error}") from error

    def grade(self, problem: Problem, completion: str) -> Grade:
        return self.grade_all([(problem, completion)])[0]

    def grade_all(self, pairs: Sequence[tuple[Problem, str]]) -> list[Grade]:
        found = self._pool.map([(*self._target, "grade", *pair) for pair in pairs], self.seconds)
        silent = f"no answer in {self.seconds:g} s, or its process ended"
        grades = [each if isinstance(each, Grade) else failed_with(each or silent) for each in found]
        failed = [grade.reason or "it says GRADER_ERROR and no reason" for grade in grades if grade.status is _FAILED]
        new = {_kind(reason): reason for reason in sorted(failed, reverse=True) if _kind(reason) not in self._said}
        if new:
            self._said |= set(new)
            logger.warning(
                "task %s: grade failed on %d of %d completions: %s", self.name, len(failed), len(grades), min(new.values())
            )
        return grades

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """The task's own; no step can be checked where it has none or it fails."""
        if not callable(getattr(self.task, "check_steps", None)):
            return StepCheck.of([])
        return self._call("check_steps", problem, completion) or StepCheck.of([])

    def _solution_key(self, problem: Problem, completion: str) -> str | None:
        return self._call("solution_key", problem, completion)

    def _call(self, method: str, problem: Problem, completion: str) -> Any:
        return self._pool.map([(*self._target, method, problem, completion)], self.seconds)[0]


def call(path: str, function: str, settings: str, method: str, problem: Problem | None, completion: str) -> Any:
    """One method of a user's task, with its result in our types; of `grade`, the reason where it fails. Runs in a worker; what
    another raises is the caller's None."""
    task = _make(path, function, settings)
    if method == LOAD:
        return None
    if method == "grade":
        try:
            return as_grade(task.grade(problem, completion))
        except (Exception, SystemExit) as error:
            return f"{type(error).__name__}: {error}"
    result = getattr(task, method)(problem, completion)
    return StepCheck.of(list(result)) if method == "check_steps" and not isinstance(result, StepCheck) else result


def failed_with(reason: str) -> Grade:
    return Grade(_FAILED, reason=reason[:MOST_OF_A_REASON])


def _kind(reason: str) -> str:
    """Of a reason what it may have in common with others: after a colon stands what was read."""
    return reason.partition(":")[0]


def as_grade(result: Any) -> Grade:
    """A user's verdict: a `Grade`, true or false, or a number from 0 to 1 of which 1 is right. Raises TypeError for others."""
    if isinstance(result, Grade):
        extracted = None if result.extracted is None else str(result.extracted)[:200]
        reason = None if result.reason is None else str(result.reason)[:MOST_OF_A_REASON]
        return Grade(GradeStatus(result.status), extracted, result.score, reason)
    if isinstance(result, bool | int | float) and 0 <= result <= 1:
        return Grade(GradeStatus.CORRECT if result == 1 else GradeStatus.INCORRECT, None, float(result))
    raise TypeError(f"grade must return a Grade, a bool or a number from 0 to 1, got {result!r}")


@lru_cache(maxsize=4)
def _make(path: str, function: str, settings: str) -> Any:
    made = load_function(path, function)
    try:
        return made(**json.loads(settings))
    except (Exception, SystemExit) as error:
        raise ValueError(f"{function} in {path} with data.task_settings {settings}: {type(error).__name__}: {error}") from error


def load_function(path: str, function: str) -> Any:
    """A function of a user's file. Raises ValueError with what is wrong."""
    module = load_file(Path(path))
    found = getattr(module, function, None)
    if not callable(found):
        raise ValueError(f"{path} has no function {function!r}; it has: {offered(module)}")
    return found
