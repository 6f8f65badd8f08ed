"""A signal of your own for DASD's router, in one file:

    dasd train recipes/countdown/base.yaml --method.name examples/own_signal.py:BySurprise --method.beta 0.05

A signal says how unsure the student is at a token: high is unsure, and repelled. This one is the token's surprise, -log p,
which needs nothing but the student's own log-probs. It is entered into the table of signals, and a method names it.
"""

from dasd.credit import DirectionAdaptive, TokenSignals
from dasd.credit.routing import SIGNALS


def surprise(signals: TokenSignals):
    """(B, T) nats, -log p_student(y_t); 0 where masked."""
    return -signals.require("student_logps")


SIGNALS["surprise"] = (surprise, ())  # and what it reads of TokenSignals beside the log-probs: nothing

BySurprise = DirectionAdaptive(signal="surprise")
