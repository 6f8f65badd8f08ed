"""What did a run do? Files of a run folder in, one self-contained HTML page out. Imports neither torch nor the rest of dasd."""

from dasd.report.build import build_report, build_token_map

__all__ = ["build_report", "build_token_map"]
