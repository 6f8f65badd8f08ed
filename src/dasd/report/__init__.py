"""What did a run do, and is another one better? Files or plain data in, one self-contained HTML page out.

`data` reads what is there, `figures` draws it, `pages` puts it on a page, `parts` is what every page is made of.
Imports neither torch nor the rest of dasd; and matplotlib only where a page is made, not for the names of figures.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dasd.report.pages.card import write_card
    from dasd.report.pages.comparison import build_comparison
    from dasd.report.pages.probe import build_probe_page
    from dasd.report.pages.run import build_report
    from dasd.report.pages.runs import build_runs_page
    from dasd.report.pages.study import build_study_page
    from dasd.report.pages.tokens import build_token_map

__all__ = [
    "build_comparison",
    "build_probe_page",
    "build_report",
    "build_runs_page",
    "build_study_page",
    "build_token_map",
    "write_card",
]
_HOMES = {
    "write_card": "dasd.report.pages.card",
    "build_comparison": "dasd.report.pages.comparison",
    "build_probe_page": "dasd.report.pages.probe",
    "build_report": "dasd.report.pages.run",
    "build_runs_page": "dasd.report.pages.runs",
    "build_study_page": "dasd.report.pages.study",
    "build_token_map": "dasd.report.pages.tokens",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
