"""Set before anything is imported: no network, no telemetry, a dataset cache that is thrown away, no word of a terminal.

A parent that imported readline leaves COLUMNS=80 to its children: whether a table wraps would depend on who starts the tests.
"""

import atexit
import os
import shutil
import tempfile

_cache = tempfile.mkdtemp(prefix="dasd-datasets-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=_cache)
for _name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
    os.environ.pop(_name, None)
