"""Does the model still reason in the open, or is it collapsing? Figures of one completion, or of one problem's completions.

All are pure functions of text, token ids or per-token entropies. They return counts where a ratio is wanted, so that a runner
can sum numerators and denominators over problems; a figure that is undefined is NaN or None, never 0. Lexicons are data, and
phrases in lower case. Markers of uncertainty and the two ways to count them: 2603.24472.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import numpy as np

from dasd.tasks.base import GradeStatus, Problem, Task, TellsSolutionsApart

EPISTEMIC_MARKERS = (
    "wait", "hmm", "perhaps", "maybe", "actually", "alternatively", "seems", "might", "likely", "check",
)  # fmt: skip
BACKTRACKS = ("wait", "hmm", "alternatively", "let me try", "try again", "go back")
LEAKAGE_PHRASES = (
    "reference solution", "reference answer", "the reference says", "according to the reference", "provided solution",
    "given solution", "solution provided", "solution given", "according to the solution", "the solution says", "gold answer",
    "ground truth", "answer key", "as stated in the solution", "the hint says", "according to the hint", "official solution",
    "the known answer", "we are told the answer", "matches the expected answer",
)  # fmt: skip

Mode = Literal["words", "substrings"]


def count_phrases(text: str, lexicon: Sequence[str], mode: Mode = "words") -> int:
    """How often a phrase of `lexicon` occurs in `text`, whatever the case.

    `words` counts whole words, each once though phrases overlap; `substrings` is the published count: every phrase by itself,
    inside other words too (`check` in `unchecked`).
    """
    if not lexicon:
        return 0
    if mode == "substrings":
        lowered = text.lower()
        return sum(lowered.count(phrase) for phrase in lexicon)
    return len(_whole_words(tuple(lexicon)).findall(text))


@cache
def _whole_words(lexicon: tuple[str, ...]) -> re.Pattern[str]:
    phrases = "|".join(re.escape(phrase) for phrase in sorted(lexicon, key=len, reverse=True))
    return re.compile(rf"\b(?:{phrases})\b", flags=re.IGNORECASE)


def count_words(text: str) -> int:
    """Words of a text, as white space parts them: the denominator of densities per 100 words."""
    return len(text.split())


def epistemic_density(text: str, mode: Mode = "words") -> float:
    """E(y) of one response per 100 words, NaN where it has no word."""
    words = count_words(text)
    return 100 * count_phrases(text, EPISTEMIC_MARKERS, mode) / words if words else float("nan")


@dataclass(frozen=True)
class Loop:
    """A completion that ends in a loop: the last `period` tokens, `repeats` times (a last, cut one is not counted)."""

    period: int
    repeats: int


def find_loop(tokens: Sequence[Any], min_repeats: int = 4, min_span: int = 20, max_period: int = 500) -> Loop | None:
    """The shortest block that `tokens` (ids, or words) end with at least `min_repeats` times over, or None.

    All repeats together must cover `min_span` tokens: four zeros at the end are a number, no loop.
    """
    if min_repeats < 2:
        raise ValueError(f"a loop repeats at least twice, got min_repeats {min_repeats}")
    count = len(tokens)
    for period in range(1, min(max_period, count // min_repeats) + 1):
        same = 0
        while same + period < count and tokens[-1 - same] == tokens[-1 - same - period]:
            same += 1
        repeats = same // period + 1
        if repeats >= min_repeats and repeats * period >= min_span:
            return Loop(period, repeats)
    return None


def no_answer_share(statuses: Iterable[GradeStatus | str]) -> float:
    """Share of completions without an answer among those that could be graded, NaN where there is none."""
    graded = [status for status in statuses if status != GradeStatus.GRADER_ERROR]
    return sum(status == GradeStatus.NO_ANSWER for status in graded) / len(graded) if graded else float("nan")


def distinct_solutions(task: Task, problem: Problem, completions: Iterable[str]) -> int | None:
    """In how many different ways right completions solve the problem; None where the task cannot tell ways apart."""
    if not isinstance(task, TellsSolutionsApart):
        return None
    keys = {task.solution_key(problem, completion) for completion in completions}
    return len(keys - {None})


@dataclass(frozen=True)
class EntropyProfile:
    """Entropies of one completion in nats: mean, mean of the top fifth, and the mean of each tenth from start to end."""

    mean: float
    top_fifth: float
    by_position: tuple[float, ...]


def entropy_profile(entropies: Sequence[float], bins: int = 10) -> EntropyProfile:
    """All NaN for an empty completion; NaN for the tenths that a short one does not reach."""
    values = np.asarray(entropies, dtype=float)
    if values.size == 0:
        return EntropyProfile(float("nan"), float("nan"), (float("nan"),) * bins)
    top = np.sort(values)[-max(1, round(values.size / 5)) :]
    bin_of = np.arange(values.size) * bins // values.size
    parts = [values[bin_of == index] for index in range(bins)]
    means = tuple(float(part.mean()) if part.size else float("nan") for part in parts)
    return EntropyProfile(float(values.mean()), float(top.mean()), means)


def count_forks(entropies: Sequence[float], threshold: float) -> int:
    """Tokens with an entropy above `threshold` nats; over the number of tokens it is the fork rate.

    Compare models at one threshold, such as the 0.8 quantile of the base model's entropies: a model's own quantile would give
    every model the same rate.
    """
    return int((np.asarray(entropies, dtype=float) > threshold).sum())
