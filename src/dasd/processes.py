"""Which of the processes that a launcher started is this one? From the environment that torchrun and `accelerate launch` set.

And how does one end with the process that started it? No torch: messages and the progress bar ask before it is loaded.
"""

from __future__ import annotations

import atexit
import os
import sys
import threading
import time
from typing import NoReturn

SECONDS_BETWEEN_LOOKS = 0.5
UNWRITTEN = 120  # Python's own exit code where the last words cannot be written


def count() -> int:
    """Processes of this run, on all machines."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "LOCAL_RANK" in os.environ else 1


def rank() -> int:
    """This process's number, counted from 0."""
    return int(os.environ.get("RANK", "0")) if count() > 1 else 0


def is_main() -> bool:
    """Whether this is the one that speaks, and writes what is written once."""
    return rank() == 0


def leave() -> None:
    """Ends the work with the others, once all of it is done."""
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end(code: int) -> NoReturn:
    """Ends this process with exit code `code`; one of several without shutting its interpreter down.

    A model and its optimizer keep the process group, so its threads outlive `leave`, and live on while the interpreter shuts
    down. Now and then that aborts the process ("terminate called without an active exception"), and the launcher calls a run
    that is done a failure. What is registered to be done at exit is done.
    """
    global _exit_code
    if count() > 1:
        _exit_code = code
    sys.exit(code)


_exit_code: int | None = None


@atexit.register  # here, before others register theirs: the first is called last
def _exit() -> None:
    if _exit_code is None:
        return
    code = _exit_code
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None and not stream.closed:
                stream.flush()
        except OSError:
            code = code or UNWRITTEN
    os._exit(code)


def end_with(parent: int) -> None:
    """From now on this process ends when the one that started it, `parent`, is gone."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
