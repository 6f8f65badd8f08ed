"""Does the model still think aloud? Counts of what a completion's text shows: words of doubt, backtracks.

Lexicons are data. Markers of uncertainty: 2603.24472.
"""

from __future__ import annotations

import re

EPISTEMIC_MARKERS = (
    "wait", "hmm", "perhaps", "maybe", "actually", "alternatively", "seems", "might", "likely", "check",
)  # fmt: skip
BACKTRACKS = ("wait", "hmm", "alternatively", "let me try", "try again", "go back")


def count_phrases(text: str, lexicon: tuple[str, ...]) -> int:
    """How often a phrase of `lexicon` occurs in `text`, as whole words, whatever the case."""
    if not lexicon:
        return 0
    pattern = "|".join(re.escape(phrase) for phrase in sorted(lexicon, key=len, reverse=True))
    return len(re.findall(rf"\b(?:{pattern})\b", text, flags=re.IGNORECASE))
