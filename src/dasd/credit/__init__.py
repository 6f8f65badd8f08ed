"""Token credit: from student and teacher scores to one advantage a token. Start with `direction.py`. Imports torch only."""

from dasd.credit.advantage import GroupRelative
from dasd.credit.controls import CONTROLS, Controlled, without_control
from dasd.credit.direction import DirectionAdaptive
from dasd.credit.divergence import Divergence, chunked_divergence
from dasd.credit.methods import METHODS, Method, assign_credit, has_teacher, make_method, needs_of, unmet_needs
from dasd.credit.schedule import Schedule, at_step
from dasd.credit.signals import Credit, DivergenceTerm, TokenSignals, ratios

__all__ = [
    "CONTROLS",
    "METHODS",
    "Controlled",
    "Credit",
    "DirectionAdaptive",
    "Divergence",
    "DivergenceTerm",
    "GroupRelative",
    "Method",
    "Schedule",
    "TokenSignals",
    "assign_credit",
    "at_step",
    "chunked_divergence",
    "has_teacher",
    "make_method",
    "needs_of",
    "ratios",
    "unmet_needs",
    "without_control",
]
