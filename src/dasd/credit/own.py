"""A method from a user's own file: `method.name: path/to/file.py:name`. Imports the standard library only.

`name` is a method (any callable from `TokenSignals` to `Credit`, with `needs`), or a class whose defaults make one; settings of
a dataclass are set as those of the methods that ship.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any


def is_own(name: str) -> bool:
    """Whether this is a place in a file and not the name of a method that ships."""
    return name.rpartition(":")[0].endswith(".py")


def load_own(name: str) -> Any:
    """The method at `path/to/file.py:name`. Raises ValueError with what is wrong with the file."""
    path, _, attribute = name.rpartition(":")
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise ValueError(f"method {name!r}: {path} does not exist")
    module = _module(file)
    if not hasattr(module, attribute):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise ValueError(f"method {name!r}: {path} has no {attribute!r}; it has: {', '.join(known)}")
    found = getattr(module, attribute)
    method = found() if isinstance(found, type) else found
    if not callable(method) or not isinstance(getattr(method, "needs", None), frozenset | set):
        raise ValueError(
            f"method {name!r} must be callable with TokenSignals and have `needs`, the set of the signals that it reads "
            "(frozenset() for none)"
        )
    return method


@cache
def _module(file: Path) -> Any:
    name = f"dasd_own_{sha256(str(file).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ValueError(f"{file} cannot be run: {type(error).__name__}: {error}") from None
    return module
