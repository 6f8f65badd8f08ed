"""Set before anything is imported: no network, no telemetry, a dataset cache that is thrown away."""

import atexit
import os
import shutil
import tempfile

_cache = tempfile.mkdtemp(prefix="dasd-datasets-")
atexit.register(shutil.rmtree, _cache, ignore_errors=True)
os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1", TOKENIZERS_PARALLELISM="false", HF_DATASETS_CACHE=_cache)
