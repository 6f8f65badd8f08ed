"""What did a run do, and is another one better? Files or plain data in, one self-contained HTML page out.

Imports neither torch nor the rest of dasd.
"""

from dasd.report.build import build_report
from dasd.report.comparison import build_comparison

__all__ = ["build_comparison", "build_report"]
