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
from numpy.typing import ArrayLike, NDArray

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
    return len(whole_words(tuple(lexicon)).findall(text))


@cache
def whole_words(lexicon: tuple[str, ...]) -> re.Pattern[str]:
    """Matches the phrases of a lexicon as whole words in any case, the longest first."""
    phrases = "|".join(re.escape(phrase) for phrase in sorted(lexicon, key=len, reverse=True))
    return re.compile(rf"\b(?:{phrases})\b", flags=re.IGNORECASE)


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


_PIECE = re.compile(r"\w+|[^\w\s]")


def count_trigrams(texts: Iterable[str]) -> tuple[int, int]:
    """(different, all) trigrams of words and signs over the samples of one problem; Dist-3 is their ratio.

    Words, not tokens, so that models with different tokenizers compare; none reaches from one sample into the next. The more
    samples, the lower: compare the same number of them.
    """
    seen: set[tuple[str, ...]] = set()
    total = 0
    for text in texts:
        pieces = _PIECE.findall(text.lower())
        trigrams = list(zip(pieces, pieces[1:], pieces[2:], strict=False))
        seen.update(trigrams)
        total += len(trigrams)
    return len(seen), total


FORK_NATS = 0.672  # tokens above it are forks: the 80th percentile that 2506.01939 reports for its model (second-hand)
POSITION_BINS = 10


@dataclass(frozen=True)
class EntropyCounts:
    """What one completion's entropies (nats) add to sums over completions: `total` and `tokens`, the mean of its top fifth,
    `forks` above FORK_NATS, and for each tenth from start to end its sum and number of tokens."""

    total: float
    tokens: int
    top_fifth: float
    forks: int
    tenth_sums: NDArray[np.float64]
    tenth_tokens: NDArray[np.int64]


def count_entropies(entropies: ArrayLike, fork_nats: float = FORK_NATS) -> EntropyCounts:
    """One threshold for all models: a quantile of a model's own entropies would give every model the same fork rate.

    The top fifth holds at least one token, its mean is NaN for an empty completion; a completion of fewer than ten tokens
    leaves tenths empty.
    """
    values = np.asarray(entropies, dtype=float)
    bins = np.arange(values.size) * POSITION_BINS // max(values.size, 1)
    top = np.sort(values)[-max(1, round(values.size / 5)) :]
    return EntropyCounts(
        total=float(values.sum()),
        tokens=values.size,
        top_fifth=float(top.mean()) if top.size else float("nan"),
        forks=int((values > fork_nats).sum()),
        tenth_sums=np.bincount(bins, values, POSITION_BINS).astype(float),
        tenth_tokens=np.bincount(bins, minlength=POSITION_BINS),
    )
