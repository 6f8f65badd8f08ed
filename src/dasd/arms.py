"""How are two arms of one experiment run side by side? Each trains and is evaluated in its own folder, in its own process.

A worker ends with the process that started it, even if that one is killed: two starts of the same job never meet in a folder.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from dasd import processes
from dasd.config import BadInput, RunFailed
from dasd.progress import console

LOG = "log.txt"


@contextmanager
def beside(work: Callable[..., Any], *arguments: Any, folder: Path) -> Iterator[None]:
    """While the body runs, `work(*arguments)` runs in another process on half of the threads; both are done when it ends.

    What the work prints goes to `folder/log.txt`. On a machine of one thread it runs after the body instead.
    Raises RunFailed with the work's last words where it failed; where the body fails, the work is ended.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield
        work(*arguments)
        return
    folder.mkdir(parents=True, exist_ok=True)
    worker = multiprocessing.get_context("spawn").Process(
        target=_work, args=(work, arguments, folder / LOG, threads // 2, os.getpid()), daemon=True
    )
    worker.start()
    torch.set_num_threads(threads - threads // 2)
    try:
        yield
        worker.join()
    finally:
        torch.set_num_threads(threads)
        if worker.is_alive():
            worker.terminate()
            worker.join()
    if worker.exitcode:
        said = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RunFailed(f"{folder} failed: {said[-1] if said else f'exit code {worker.exitcode}'} ({folder / LOG})")


def _work(work: Callable[..., Any], arguments: tuple[Any, ...], log: Path, threads: int, parent: int) -> None:
    processes.end_with(parent)
    with log.open("w", encoding="utf-8", buffering=1) as file:
        sys.stdout = sys.stderr = file
        console.file = file
        torch.set_num_threads(threads)
        try:
            work(*arguments)
        except (BadInput, RunFailed) as error:
            print(error)
            sys.exit(1)
        except Exception:
            traceback.print_exc()
            sys.exit(1)
