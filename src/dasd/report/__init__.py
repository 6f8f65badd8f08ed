"""What did a run do, and is another one better? Files or plain data in, one self-contained HTML page out.

Imports neither torch nor the rest of dasd; and matplotlib only where a page is made, not for the names of figures.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dasd.report.build import build_report
    from dasd.report.comparison import build_comparison

__all__ = ["build_comparison", "build_report"]
_HOMES = {"build_comparison": "dasd.report.comparison", "build_report": "dasd.report.build"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
