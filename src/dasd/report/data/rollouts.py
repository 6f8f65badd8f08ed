"""What does the token map show? `rollouts.json` as the compact data of the page's script.

Nothing of the file is trusted: texts only show (characters that act are spelled out), numbers are numbers or null, tokens are
places in the table of texts, and the data cannot leave its script tag.
"""

from __future__ import annotations

import json
import re
from typing import Any

import numpy as np
from markupsafe import Markup, escape
from numpy.typing import NDArray

from dasd.report.data.inputs import mapping, number
from dasd.report.data.metrics import COUNT

UNIT = 10_000  # numbers are whole multiples of 1 / UNIT on the page: short, and exact enough to read
MAX_TOKENS = 20_000  # of one rollout
MAX_BYTES = 4_500_000  # of all data, so that the page stays below 5 MB
COLUMNS = ("omega", "entropy", "gap", "credit")
_STATUSES = {
    "correct": "correct",
    "incorrect": "incorrect",
    "no_answer": "no answer",
    "undecided": "undecided",
    "grader_error": "grader error",
}
# Controls, direction overrides, zero-width characters, separators and lone surrogates; not newline and tab.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")
_IN_SCRIPT = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def spelled(value: Any) -> str:
    """Any value as text, its acting characters spelled out as \\u0000."""
    return _ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", str(value))


def inert(value: Any) -> Markup:
    """Any value as text that only shows: markup escaped, acting characters spelled out."""
    return Markup(spelled(escape(str(value))))


def script_data(value: Any) -> Markup:
    """A value as JSON that can stand in a script tag: nothing in it can end the tag or open another."""
    return Markup(_json(value).translate(_IN_SCRIPT))


def token_map(data: dict[str, Any], max_bytes: int = MAX_BYTES) -> dict[str, Any] | None:
    """The page's data: texts, the value of each colouring's full colour, and rollouts; None without any rollout.

    Rollouts that would make it larger than `max_bytes` are left out and counted.
    """
    texts, listed = data.get("texts"), data.get("rollouts")
    if not isinstance(texts, list) or not isinstance(listed, list):
        return None
    packed = [rollout for each in listed if (rollout := _rollout(mapping(each), len(texts))) is not None]
    table = [spelled(text) for text in texts]
    used, kept = len(_json(table)), list[dict[str, Any]]()
    for rollout in packed:
        used += len(_json(rollout))
        if kept and used > max_bytes:
            break
        kept.append(rollout)
    if not kept:
        return None
    scales = {name: _full_color([rollout[name] for rollout in kept]) for name in COLUMNS}
    taught = any(rollout["teacher"] or rollout["gap"] or rollout["reference"] for rollout in kept)
    counts = {"taught": taught, "left_out": len(packed) - len(kept)}
    return {"unit": UNIT, "texts": table, "scales": scales, "rollouts": kept, **counts}


def _rollout(rollout: dict[str, Any], num_texts: int) -> dict[str, Any] | None:
    tokens = _places(rollout.get("tokens"), num_texts)
    if not tokens:
        return None
    status, shown = rollout.get("status"), tokens[:MAX_TOKENS]
    columns = {name: _column(rollout.get(name), len(tokens), len(shown)) for name in COLUMNS}
    if columns["omega"] is not None and not any(columns["omega"]):
        columns["omega"] = None  # a method without direction
    return {
        "id": spelled(rollout.get("problem_id", "")),
        "problem": spelled(rollout.get("problem") or ""),
        "reference": spelled(rollout.get("reference") or ""),
        "right": status == "correct",
        "status": _STATUSES.get(str(status), spelled(status or "not graded")),
        "advantage": COUNT.write(number(rollout.get("advantage")), sign=True),
        "length": len(tokens),
        "tokens": shown,
        **columns,
        **{side: _likely(mapping(rollout.get(side)), len(tokens), len(shown), num_texts) for side in ("student", "teacher")},
    }


def _likely(side: dict[str, Any], length: int, shown: int, num_texts: int) -> dict[str, list[Any]] | None:
    """The most likely tokens of each place and their probabilities, one place after the other."""
    tokens = _places(side.get("tokens"), num_texts)
    count = len(tokens) // length
    probabilities = _column(side.get("probabilities"), length * count, shown * count) if count else None
    if probabilities is None or len(tokens) != length * count:
        return None
    return {"tokens": tokens[: shown * count], "probabilities": probabilities}


def _places(values: Any, num_texts: int) -> list[int]:
    """A list of places in the table of texts; empty where it is anything else."""
    if not isinstance(values, list) or not all(type(value) is int and 0 <= value < num_texts for value in values):
        return []
    return values


def _column(values: Any, length: int, shown: int) -> list[int | None] | None:
    """The first `shown` of `length` numbers in units of 1 / UNIT, null where one is none; None without such a column."""
    if not isinstance(values, list) or len(values) != length:
        return None
    numbers: NDArray[np.float64] = np.array([number(value) for value in values[:shown]]) * UNIT
    return [None if value != value else round(value) for value in numbers.tolist()]


def _full_color(columns: list[list[int | None] | None]) -> float:
    """The size that gets the full colour: the 95th percentile, so that typical values can be seen. Never 0."""
    sizes = np.abs([value for column in columns for value in column or [] if value])
    return max(1.0, float(np.quantile(sizes, 0.95))) if sizes.size else 1.0


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
