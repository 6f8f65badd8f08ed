"""Which of the processes that a launcher started is this one? From the environment that torchrun and `accelerate launch` set.

And how does one end with the process that started it? No torch: messages and the progress bar ask before it is loaded.
"""

from __future__ import annotations

import os
import threading
import time

SECONDS_BETWEEN_LOOKS = 0.5


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
    """Ends the work with the others, once all of it is done: this process can then end by itself.

    Threads of torch.distributed that live on while the interpreter shuts down abort it now and then ("terminate called without
    an active exception"), and the launcher calls a run that is done a failure.
    """
    import torch.distributed

    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def end_with(parent: int) -> None:
    """From now on this process ends when the one that started it, `parent`, is gone."""
    threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)
