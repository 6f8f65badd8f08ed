"""What did a run do, and is another one better? Files or plain data in, one self-contained HTML page out.

Imports neither torch nor the rest of dasd; and matplotlib only where a page is made, not for the names of figures.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dasd.report.build import build_report, build_token_map
    from dasd.report.comparison import build_comparison
    from dasd.report.probe_page import build_probe_page

__all__ = ["build_comparison", "build_probe_page", "build_report", "build_token_map"]
_HOMES = {
    "build_comparison": "dasd.report.comparison",
    "build_probe_page": "dasd.report.probe_page",
    "build_report": "dasd.report.build",
    "build_token_map": "dasd.report.build",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
