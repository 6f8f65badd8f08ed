"""`python -m dasd.study.child PARENT FOLDER COMMAND...`: a `dasd` command that ends with the process that started it.

One that outlives a killed parent for a moment keeps the next one out of its folder until it is gone.
"""

from __future__ import annotations

import os
import runpy
import sys

from filelock import FileLock

from dasd import processes

if __name__ == "__main__":
    parent, folder, *command = sys.argv[1:]
    processes.end_with(int(parent))
    with FileLock(os.path.join(folder, ".child.lock"), timeout=60):
        sys.argv = ["dasd", *command]
        runpy.run_module("dasd", run_name="__main__")
