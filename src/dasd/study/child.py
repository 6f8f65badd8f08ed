"""`python -m dasd.study.child PARENT FOLDER COMMAND...`: a `dasd` command that ends with the process that started it.

One that outlives a killed parent for a moment keeps the next one out of its folder until it is gone.
"""

from __future__ import annotations

import os
import runpy
import sys
import threading
import time

from filelock import FileLock

SECONDS_BETWEEN_LOOKS = 0.5


def _end_with(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(SECONDS_BETWEEN_LOOKS)
    os._exit(1)


if __name__ == "__main__":
    parent, folder, *command = sys.argv[1:]
    threading.Thread(target=_end_with, args=(int(parent),), daemon=True).start()
    with FileLock(os.path.join(folder, ".child.lock"), timeout=60):
        sys.argv = ["dasd", *command]
        runpy.run_module("dasd", run_name="__main__")
