"""How is a function that may never return called safely? In worker processes that the kernel ends on time.

A worker sets an alarm before each call and dies of it when the call takes too long, whatever the call is doing and even if
the parent is gone by then; the parent sees the broken pipe, gives that one call up and starts another worker. Workers are
plain `python -c` processes: unlike multiprocessing's they neither fork torch's threads nor run the user's script again.
"""

from __future__ import annotations

import atexit
import importlib
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection, wait
from typing import Any

START_SECONDS = 120.0  # importing sympy takes a second or two, on a busy machine many
MAX_BYTES = 4 * 2**30  # address space of one worker; beyond it a call ends with MemoryError


def serve(descriptor: int, module: str, function: str, warm_up: tuple[Any, ...] | None) -> None:
    """A worker's life: it warms up and says so, then answers (arguments, seconds) with the function's value or None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's; a closed pipe ends this process
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    signal.setitimer(signal.ITIMER_REAL, START_SECONDS)
    resource.setrlimit(resource.RLIMIT_AS, (MAX_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))
    logging.disable(logging.CRITICAL)
    connection = Connection(descriptor)
    call = getattr(importlib.import_module(module), function)
    result = call(*warm_up) if warm_up is not None else None
    while True:
        signal.setitimer(signal.ITIMER_REAL, 0)
        try:
            connection.send(result)
            arguments, seconds = connection.recv()
        except (EOFError, OSError):
            return
        signal.setitimer(signal.ITIMER_REAL, seconds)
        try:
            result = call(*arguments)
        except Exception:  # the caller counts None as a failure of its own function
            result = None


class _Worker:
    def __init__(self, module: str, function: str, warm_up: tuple[Any, ...] | None) -> None:
        self.connection, theirs = Pipe()
        code = f"from {__name__} import serve; serve({theirs.fileno()}, {module!r}, {function!r}, {warm_up!r})"
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], pass_fds=[theirs.fileno()], env=environment, stdin=subprocess.DEVNULL,
            stdout=2,  # what it prints is no figure of ours
        )  # fmt: skip
        theirs.close()
        self.ready = False
        self.calls = 0

    def stop(self) -> None:
        self.connection.close()
        self.process.kill()
        self.process.wait()


class WorkerPool:
    """Calls `function` of `module` in up to `size` processes, started when first needed, each replaced after `max_calls`.

    `warm_up` holds arguments of a call that each process makes before its first, so that no call pays for late imports.
    """

    def __init__(
        self,
        module: str,
        function: str,
        warm_up: tuple[Any, ...] | None = None,
        size: int | None = None,
        max_calls: int = 2000,
    ) -> None:
        self._target = module, function, warm_up
        self._size = size or max(2, min(8, os.cpu_count() or 1))
        self._max_calls = max_calls
        self._workers: list[_Worker] = []
        self._owner = os.getpid()
        self._lock = threading.Lock()
        atexit.register(self.stop)

    def map(self, calls: Sequence[tuple[Any, ...]], seconds: float) -> list[Any]:
        """The function's value for each tuple of arguments, in order.

        None for a call that raised, took longer than `seconds`, or whose process died. Raises RuntimeError where no worker
        can be started.
        """
        results: list[Any] = [None] * len(calls)
        waiting = deque(range(len(calls)))
        running: dict[_Worker, int] = {}
        with self._lock:
            if self._owner != os.getpid():  # a forked child: these are its parent's workers
                self._workers, self._owner = [], os.getpid()
            try:
                while waiting or running:
                    self._hand_out(calls, seconds, waiting, running)
                    self._collect(results, running)
            finally:  # interrupted: a result that nobody took must not answer the next call
                for worker in running:
                    self._drop(worker)
        return results

    def stop(self) -> None:
        if self._owner == os.getpid():
            for worker in list(self._workers):
                self._drop(worker)

    def _hand_out(
        self, calls: Sequence[tuple[Any, ...]], seconds: float, waiting: deque[int], running: dict[_Worker, int]
    ) -> None:
        free = [worker for worker in self._workers if worker not in running]
        for _ in range(min(self._size - len(self._workers), len(waiting) - len(free))):
            self._workers.append(_Worker(*self._target))
        for worker in free:
            if worker.ready and waiting:
                index = waiting.popleft()
                running[worker] = index
                try:
                    worker.connection.send((calls[index], seconds))
                except OSError:  # it died while idle: the call has not been tried yet
                    waiting.appendleft(running.pop(worker))
                    self._drop(worker)

    def _collect(self, results: list[Any], running: dict[_Worker, int]) -> None:
        """Waits until a worker has something to say and listens to all that have."""
        speaking = {w.connection: w for w in self._workers if w in running or not w.ready}
        for connection in wait(list(speaking)) if speaking else ():  # none: all that were free had died
            worker = speaking[connection]  # type: ignore[index]
            index = running.pop(worker, None)
            try:
                value = worker.connection.recv()
            except (EOFError, OSError):
                if not worker.ready:
                    worker.process.wait(START_SECONDS)  # its own exit code, not that of being killed
                self._drop(worker)
                if not worker.ready:
                    raise RuntimeError(
                        f"a worker for {self._target[0]} ended with exit code {worker.process.returncode} before it "
                        f"was ready: run `{sys.executable} -c 'import {self._target[0]}'` to see why"
                    ) from None
                continue
            if index is None:
                worker.ready = True
                continue
            results[index] = value
            worker.calls += 1
            if worker.calls >= self._max_calls:  # sympy's caches only grow
                self._drop(worker)

    def _drop(self, worker: _Worker) -> None:
        worker.stop()
        self._workers.remove(worker)
