"""Token credit: from student and teacher scores to one advantage a token. Start with `direction.py`. Imports torch only."""

from dasd.credit.direction import DirectionAdaptive
from dasd.credit.methods import METHODS, GroupRelative, Method, assign_credit, make_method
from dasd.credit.signals import Credit, TokenSignals, ratios

__all__ = [
    "METHODS",
    "Credit",
    "DirectionAdaptive",
    "GroupRelative",
    "Method",
    "TokenSignals",
    "assign_credit",
    "make_method",
    "ratios",
]
