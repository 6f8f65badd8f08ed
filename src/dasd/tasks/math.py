"""Mathematics with a checkable final answer, graded by math-verify.

math-verify may take for ever on a hostile answer (a power tower), and its own time limit needs the main thread's signals. So
it runs in a worker process with a hard wall-clock limit; a worker that exceeds it is killed and replaced, and only that
answer becomes GRADER_ERROR.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from dasd.tasks.base import Grade, GradeStatus, Problem, StepCheck

MAX_CHARS = 20_000  # the final answer is looked for in the completion's last characters


def _verify(gold: str, completion: str) -> tuple[str, str | None]:
    """(status, extracted answer), in the worker."""
    from math_verify import parse, verify

    expected = parse(f"\\boxed{{{gold}}}", parsing_timeout=None)
    answer = parse(completion, parsing_timeout=None)
    if not expected:
        return GradeStatus.GRADER_ERROR, None
    if not answer:
        return GradeStatus.NO_ANSWER, None
    right = verify(expected, answer, timeout_seconds=None)
    return (GradeStatus.CORRECT if right else GradeStatus.INCORRECT), str(answer[-1])[:200]


def _serve(connection: Connection) -> None:
    import logging

    logging.disable(logging.CRITICAL)  # math-verify logs every answer it cannot parse
    while True:
        try:
            gold, completion = connection.recv()
        except (EOFError, KeyboardInterrupt):
            return
        try:
            connection.send(_verify(gold, completion))
        except Exception:  # sympy raises anything at all; it is our grader's fault, not the model's
            connection.send((GradeStatus.GRADER_ERROR, None))


class _Worker:
    """One grading process, started when first needed."""

    def __init__(self) -> None:
        self._process: Any = None
        self._connection: Connection | None = None
        self._owner = 0  # a forked child must not use its parent's worker
        self._lock = threading.Lock()

    def __call__(self, gold: str, completion: str, seconds: float) -> tuple[str, str | None]:
        with self._lock:
            try:
                if self._process is None or self._owner != os.getpid() or not self._process.is_alive():
                    self._start()
                assert self._connection is not None
                self._connection.send((gold, completion))
                if self._connection.poll(seconds):
                    return self._connection.recv()
            except (BrokenPipeError, EOFError, ConnectionResetError):
                pass  # the worker died; the next call starts another
            self.stop()
            return GradeStatus.GRADER_ERROR, None

    def _start(self) -> None:
        self._owner = os.getpid()
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's threads
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        self._connection.send(("1", "\\boxed{1}"))  # importing sympy takes seconds that no answer should pay for
        if self._connection.poll(120):
            self._connection.recv()

    def stop(self) -> None:
        if self._process is not None and self._owner == os.getpid() and self._process.pid is not None:
            self._process.kill()
            self._process.join()
        self._process = None


_worker = _Worker()
atexit.register(_worker.stop)


@dataclass(frozen=True)
class MathTask:
    """Grades the final answer of a completion (boxed, or the last expression) against `Problem.answer`."""

    name: str = "math"
    seconds: float = 5.0

    def gold_completion(self, problem: Problem) -> str:
        return f"\\boxed{{{problem.answer}}}"

    def grade(self, problem: Problem, completion: str) -> Grade:
        status, extracted = _worker(problem.answer, completion[-MAX_CHARS:], self.seconds)
        return Grade(GradeStatus(status), extracted)

    def check_steps(self, problem: Problem, completion: str) -> StepCheck:
        """No step of free text is checked yet: (0, 0), which leaves StepAcc undefined."""
        return StepCheck(right=0, checked=0)
