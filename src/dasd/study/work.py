"""How are the cells run? By worker processes, in order, each cell by one of them, whoever else works on the same folder.

A cell is locked while it is worked on. So several `dasd study` of one folder share the work, on one machine or on several
that share the file system (a Slurm array), and a cell whose process is killed is taken up by another.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from filelock import FileLock, Timeout

from dasd.config import dump_config
from dasd.files import write_json, write_text
from dasd.folders import as_begun, fails_by_its_settings
from dasd.progress import console
from dasd.study.cells import STATE, Cell, all_cells
from dasd.study.config import IDLE, OURS, Study
from dasd.study.outcome import keep
from dasd.study.search import chosen_for, read_choice, settle

LOG = "log.txt"
# What the machine lacked, as torch, CUDA's libraries, NumPy, Python and the system say it.
SHORT = re.compile(
    "OutOfMemory|out of memory|MemoryError|can't allocate memory|cannot allocate memory|ALLOC_FAILED|No space left on device",
    re.IGNORECASE,
)
LAST_LINES = 30
SECONDS_BETWEEN_LOOKS = 1.0
Run = Callable[[Cell], str | None]  # does the work of a cell; what went wrong, or None


def run_cell(cell: Cell) -> str | None:
    """Trains and evaluates in processes of their own, which write into the cell's log, and keeps the outcome.

    Returns the last words of a failure.
    """
    folder = cell.folder
    run = as_begun(folder, cell.run_config(chosen_for(cell)), [key for key in IDLE if key not in OURS])
    write_text(folder / "cell.yaml", dump_config(run))
    write_text(folder / "eval.yaml", dump_config(cell.eval_config(run)))
    if cell.suites:
        write_text(folder / "suites.yaml", dump_config(cell.suites_config(run)))
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    for command in cell.commands():
        start = [sys.executable, "-m", "dasd.study.child", str(os.getpid()), str(folder), *command]
        with (folder / LOG).open("a", encoding="utf-8") as log:
            before = log.tell()
            log.write(f"$ dasd {shlex.join(command)}\n")
            log.flush()
            code = subprocess.run(start, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment).returncode
        if code < 0:
            return f"killed by signal {-code}"
        if code:
            return f"dasd {command[0]} ended with {code}: {_last_words(folder / LOG, before)}"
    keep(cell, run)
    return None


def _last_words(log: Path, before: int) -> str:
    """Of what was said after the first `before` bytes: the last line, or the last one that says what the machine lacked, which
    libraries talk on after.
    """
    said = log.read_bytes()[before:].decode("utf-8", errors="replace").strip().splitlines()
    return next((line for line in said[: -LAST_LINES - 1 : -1] if SHORT.search(line)), said[-1])


class Work:
    """The work of one process on a study. `failed`: cell -> why, of the cells that it tried, or found failed by another."""

    def __init__(self, study: Study, workers: int, run: Run = run_cell) -> None:
        self.study, self.workers, self.run = study, workers, run
        self.cells = all_cells(study)
        self.failed: dict[str, str] = {}
        self._tried: set[str] = set()
        self._turn = threading.Lock()
        self._stop = threading.Event()
        self._started = time.time()
        self._errors: list[BaseException] = []

    def go(self) -> dict[str, str]:
        """Works until no cell is left that could be worked on; returns what failed."""
        if self.left():
            console.print(self.progress())
        threads = [threading.Thread(target=self._worker, daemon=True) for _ in range(self.workers)]
        for thread in threads:
            thread.start()
        try:
            for thread in threads:
                while thread.is_alive():
                    thread.join(0.2)
        finally:
            self._stop.set()
        if self._errors:
            raise self._errors[0]
        return self.failed

    def left(self) -> list[Cell]:
        return [cell for cell in self.cells if not cell.done]

    def progress(self) -> str:
        left = self.left()
        return f"{len(self.cells) - len(left)} of {len(self.cells)} cells done{time_left(self.cells, self.workers)}"

    def _worker(self) -> None:
        try:
            while not self._stop.is_set():
                taken = self._take()
                if taken == "wait":
                    self._stop.wait(SECONDS_BETWEEN_LOOKS)
                elif isinstance(taken, tuple):
                    self._do(*taken)
                else:
                    return
        except BaseException as error:
            self._errors.append(error)
            self._stop.set()

    def _take(self) -> tuple[Cell, FileLock] | str | None:
        """The first cell that nobody works on, locked; `wait` where others may yet leave one; None at the end."""
        with self._turn:
            waiting = False
            for cell in self.cells:
                if cell.name in self._tried or cell.done or self._failed_elsewhere(cell):
                    continue
                if cell.candidate is None and settle(self.study, cell.task, cell.arm, self._own_failures()) is None:
                    waiting = waiting or self._search_is_open(cell)
                    continue
                cell.folder.mkdir(parents=True, exist_ok=True)
                lock = FileLock(cell.folder / ".cell.lock", thread_local=False)
                try:
                    lock.acquire(timeout=0)
                except Timeout:
                    waiting = True
                    continue
                if cell.done:  # by whoever held the lock until now
                    lock.release()
                    continue
                self._tried.add(cell.name)
                return cell, lock
            return "wait" if waiting else None

    def _own_failures(self) -> dict[str, str]:
        """Those that tell something of a candidate's settings, and not of the machine."""
        failed = [cell for cell in self.cells if cell.name in self.failed and fails_by_its_settings(cell.folder)]
        return {cell.name: self.failed[cell.name] for cell in failed}

    def _search_is_open(self, cell: Cell) -> bool:
        mine = [each for each in self.cells if (each.task, each.arm) == (cell.task, cell.arm) and each.candidate is not None]
        return any(not each.done and each.name not in self.failed for each in mine)

    def _failed_elsewhere(self, cell: Cell) -> bool:
        """Another process tried it since this one began: what it found stands, until the command is given again."""
        state = cell.state
        if state.get("error") and state.get("at", 0) >= self._started:
            self.failed[cell.name] = state["error"]
            return True
        return False

    def _do(self, cell: Cell, lock: FileLock) -> None:
        began, before = time.time(), float(cell.state.get("seconds", 0.0))
        try:
            error = self.run(cell)
            seconds = time.time() - began
            write_json(cell.folder / STATE, {"seconds": before + seconds, "error": error, "at": time.time()})
            with self._turn:
                if error:
                    self.failed[cell.name] = error
        finally:
            lock.release()
        with self._turn:
            said = f"failed: {error}" if error else f"Avg@k {cell.score:.3f}, {seconds:.0f} s"
            console.print(f"{cell.name}: {said}; {self.progress()}", soft_wrap=True)


def time_left(cells: list[Cell], workers: int) -> str:
    seconds = estimate(cells, workers)
    return "" if seconds is None else f", {in_words(seconds)} left"


def estimate(cells: list[Cell], workers: int) -> float | None:
    """Seconds that the cells which are not done take: each as the middle one of those done of its task and arm, else of all.

    None where none is done yet. 0 where nothing is left.
    """
    took: dict[tuple[str, str, bool], list[float]] = {}
    left = []
    for cell in cells:
        key = (cell.task, cell.arm, cell.candidate is None)
        if not cell.done:
            left.append(key)
        elif seconds := cell.state.get("seconds"):
            took.setdefault(key, []).append(seconds)
    if not left:
        return 0.0
    every = [seconds for group in took.values() for seconds in group]
    return sum(median(took.get(key, every)) for key in left) / min(workers, len(left)) if every else None


def in_words(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:.0f} s" if seconds < 100 else f"{minutes} min" if minutes < 100 else f"{seconds / 3600:.1f} h"


def slurm_script(study: Study, tasks: int) -> str:
    """A Slurm array whose tasks share the cells through their locks. Makes the folder of their logs, for Slurm does not."""
    study.output.mkdir(parents=True, exist_ok=True)
    logs = shlex.quote(f"{study.output.resolve()}/slurm-%A-%a.txt")
    return f"""#!/bin/bash
#SBATCH --job-name=dasd-study
#SBATCH --array=1-{tasks}
#SBATCH --output={logs}
# Each task takes the next cell that nobody works on. The folder must be on a file system that all nodes share.
# Add what your cluster wants: --partition, --time, --gres=gpu:1, --cpus-per-task. A task that is killed loses no finished cell.
set -e
cd {shlex.quote(str(Path.cwd()))}
dasd study {shlex.quote(str(study.path))} --workers 1
"""


def waits_for_search(cell: Cell) -> bool:
    return cell.candidate is None and read_choice(cell.study, cell.task, cell.arm) is None
