"""A method from a user's own file: `method.name: path/to/file.py:name`. Imports no torch.

`name` is a method (any callable from `TokenSignals` to `Credit`, with `needs`), or a class whose defaults make one; settings of
a dataclass are set as those of the methods that ship.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from dasd.own_files import load_file, offered


def is_own(name: str) -> bool:
    """Whether this is a place in a file and not the name of a method that ships."""
    return name.rpartition(":")[0].endswith(".py")


def load_own(name: str) -> Any:
    """The method at `path/to/file.py:name`. Raises ValueError with what is wrong with the file."""
    path, _, attribute = name.rpartition(":")
    try:
        module = load_file(Path(path).expanduser().resolve())
    except ValueError as error:
        raise ValueError(f"method {name!r}: {error}") from None
    if not hasattr(module, attribute):
        raise ValueError(f"method {name!r}: {path} has no {attribute!r}; it has: {offered(module)}")
    found = getattr(module, attribute)
    method = found() if isinstance(found, type) else found
    if not callable(method) or not isinstance(getattr(method, "needs", None), frozenset | set):
        raise ValueError(
            f"method {name!r} must be callable with TokenSignals and have `needs`, the set of the signals that it reads "
            "(frozenset() for none)"
        )
    return method
