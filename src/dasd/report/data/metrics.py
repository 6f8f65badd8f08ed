"""What is each figure called, what does it say, and how is it written? One table for terminals and pages; data, no arithmetic.

`docs/metrics.md` has the formulas. A key may hold a number of samples: `pass_at_8` is described by the line `pass_at_(\\d+)`.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, replace
from functools import cache

MINUS = "\N{MINUS SIGN}"
UNKNOWN = "\N{EN DASH}"


@dataclass(frozen=True)
class Unit:
    """How values are written: `scale` times the value, with `decimals` and a suffix; differences have their own suffix."""

    scale: float
    decimals: int
    suffix: str
    difference_suffix: str

    def write(self, value: float, sign: bool = False) -> str:
        """The bare number, with a true minus; never a negative zero."""
        if math.isnan(value):
            return UNKNOWN
        shown = round(value * self.scale, self.decimals) + 0.0  # + 0.0 turns -0.0 into 0.0
        return f"{shown:{'+' if sign else ''},.{self.decimals}f}".replace("-", MINUS)


def signed(value: float) -> str:
    """A difference with three decimals and its sign."""
    return _DIFFERENCE.write(value, sign=True) if math.isfinite(value) else UNKNOWN


_DIFFERENCE = Unit(1, 3, "", "")
RATE = Unit(100, 1, " %", " points")
COUNT = Unit(1, 2, "", "")
STEPS = Unit(1, 2, "", " steps")
NATS = Unit(1, 3, "", " nats")
TOKENS = Unit(1, 1, "", " tokens")


@dataclass(frozen=True)
class Metric:
    """One figure. `better`: +1 more is better, -1 less is, 0 neither can be said. `role`: `answers` (is it right?), `health`
    (how is it written?) or `other`; `main` figures come first on a page, as cards, and in the tables of a terminal."""

    pattern: str
    label: str
    unit: Unit
    meaning: str
    better: int = 0
    role: str = "health"
    main: bool = False


# In the order in which they are shown.
METRICS = (
    Metric(r"avg_at_(\d+)", r"Avg@\1", RATE, "samples that are right", 1, "answers", True),
    Metric(r"pass_at_(\d+)", r"Pass@\1", RATE, r"problems solved by at least one of \1 samples", 1, "answers", True),
    Metric(r"maj_at_(\d+)", r"Maj@\1", RATE, r"problems whose most frequent answer of \1 samples is right", 1, "answers"),
    Metric(r"score/(.+)", r"\1", RATE, "points won of those possible", 1, "answers", True),
    Metric("step_accuracy", "Step accuracy", RATE, "checkable steps that are right", 1, "health", True),
    Metric("correct_step_rate", "Correct steps (CSR)", RATE, "checkable steps that are right, each response counting alike", 1),
    Metric("no_wrong_step", "No wrong step", RATE, "responses with checkable steps, all of them right", 1),
    Metric("first_wrong_step", "First wrong step (FES)", STEPS, "place of the first wrong step, where there is one"),
    Metric("claims_true", "Answers that hold", RATE, "given answers that are right", 1, "answers"),
    Metric("epistemic_per_response", "E(y) per response", COUNT, "words of doubt: wait, perhaps, check, …", 0, "health", True),
    Metric("epistemic_per_100_words", "E(y) per 100 words", COUNT, "words of doubt among 100 words"),
    Metric("epistemic_substrings_per_response", "E(y) as substrings", COUNT, "words of doubt, inside longer words too"),
    Metric("backtracks_per_response", "Backtracks per response", COUNT, "turns such as “wait” and “alternatively”"),
    Metric("revision_rate", "Revisions (RevRate)", RATE, "responses that turn back and take another path"),
    Metric(r"distinct_trigrams_at_(\d+)", r"Dist-3@\1", RATE, r"different ones among all trigrams of a problem's \1 samples"),
    Metric(r"distinct_at_(\d+)", r"Distinct solutions@\1", COUNT, r"different right solutions in \1 samples of a problem", 1),
    Metric("entropy_mean", "Entropy", NATS, "mean entropy of a token"),
    Metric("entropy_top_fifth", "Entropy, top fifth", NATS, "mean entropy of the most uncertain fifth of a response"),
    Metric("entropy_end", "Entropy at the end", NATS, "mean entropy in the last tenth of a response"),
    Metric("fork_rate", "Forks", RATE, "tokens whose entropy is above 0.672 nats"),
    Metric("judged_correct_step_rate", "Right steps, judged", RATE, "steps before the first that the judge finds wrong", 1),
    Metric("judged_no_wrong_step", "No wrong step, judged", RATE, "judged responses without a wrong step", 1),
    Metric("judged_first_wrong_step", "First wrong step, judged", STEPS, "place of the first step that the judge finds wrong"),
    Metric("judge_failed", "Judge failed", RATE, "judgements that could not be read", -1),
    Metric("mean_length", "Mean length", TOKENS, "tokens per response", 0, "health", True),
    Metric("truncated", "Truncated", RATE, "responses that ran out of tokens", -1, "health", True),
    Metric("loops", "Loops", RATE, "responses that end in a repetition loop", -1),
    Metric("no_answer", "No answer", RATE, "gradable responses without an answer", -1),
    Metric("partial_credit", "Partial credit", RATE, "mean of the verifier's own score, of which only 100 % is right", 1),
    Metric("undecided", "Undecided", RATE, "gradable responses that the grader could not decide", -1),
    Metric("leakage", "Leakage", RATE, "responses that speak of a reference solution", -1),
)  # fmt: skip


@cache
def describe(name: str) -> Metric:
    """The table's line for a figure's key, with its number filled in; an unknown key stands for itself."""
    for metric in METRICS:
        match = re.fullmatch(metric.pattern, name)
        if match is not None:
            meaning = match.expand(metric.meaning).replace(" 1 samples", " 1 sample")
            return replace(metric, label=match.expand(metric.label), meaning=meaning)
    return Metric(name, name, COUNT, "", role="other")


def in_order(names: list[str]) -> list[str]:
    """Known figures in the table's order, then the others as they came."""
    place = {metric.pattern: index for index, metric in enumerate(METRICS)}
    return sorted(names, key=lambda name: place.get(describe(name).pattern, len(METRICS)))
