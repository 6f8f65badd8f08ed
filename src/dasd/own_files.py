"""A user's own file as a module: methods, tasks and rewards are taken from it, by name.

Imports the standard library only: workers, which know no torch, and `dasd.credit` load this file.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from types import ModuleType


@cache
def load_file(file: Path) -> ModuleType:
    """The file, run once in a process whatever is taken from it. Raises ValueError with what is wrong with it."""
    if not file.is_file():
        raise ValueError(f"{file} does not exist")
    name = f"dasd_own_{sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickle look their module up
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script's last line may end the whole process
        del sys.modules[name]
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from error
    return module


def offered(module: ModuleType) -> str:
    """What a name may be taken of, for a message."""
    return ", ".join(key for key, value in vars(module).items() if callable(value) and not key.startswith("_")) or "nothing"
