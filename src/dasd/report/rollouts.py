"""Which tokens were pulled to the teacher, which pushed away? Example rollouts as text with a direction at every token.

Text of a model may hold anything: it is escaped first, and characters that act instead of showing are spelled out.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup, escape

from dasd.report.inputs import mapping, number
from dasd.report.metrics import COUNT

MAX_ROLLOUTS = 3
MAX_TOKENS = 1500  # of one rollout: three of them keep the page well below 2 MB
_STATUSES = {"correct": "✓ correct", "incorrect": "✗ incorrect", "no_answer": "○ no answer", "grader_error": "! grader error"}
# Controls, direction overrides, zero-width characters, separators and lone surrogates; not newline and tab.
_ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Token:
    """`side` is "attract", "repel" or ""; `weight` in [0, 1] is the strength of the colour."""

    text: Markup
    side: str
    weight: str
    title: str


@dataclass(frozen=True)
class Rollout:
    problem_id: str
    problem: str
    reference: str
    status: str
    status_label: str
    advantage: str
    tokens: list[Token]
    num_tokens: int
    attracted: str
    repelled: str


def inert(value: Any) -> Markup:
    """Any value as text that only shows: markup escaped, acting characters spelled out as \\u0000."""
    return Markup(_ACTING.sub(lambda match: f"\\u{ord(match[0]):04x}", str(escape(str(value)))))


def color_scale(rollouts: list[dict[str, Any]]) -> float:
    """|omega| of the full colour: the 95th percentile of what is shown, so that typical values can be seen; 0: no omega."""
    sizes = np.abs([number(mapping(token).get("omega")) for rollout in rollouts for token in _tokens(rollout)[:MAX_TOKENS]])
    sizes = sizes[np.isfinite(sizes) & (sizes > 0)]
    return float(np.quantile(sizes, 0.95)) if sizes.size else 0.0


def show_rollouts(data: dict[str, Any]) -> tuple[list[Rollout], float]:
    """The first rollouts of the file, and the |omega| of the full colour."""
    listed = data.get("rollouts")
    chosen = [mapping(rollout) for rollout in listed[:MAX_ROLLOUTS]] if isinstance(listed, list) else []
    scale = color_scale(chosen)
    return [_rollout(rollout, scale) for rollout in chosen], scale


def _rollout(rollout: dict[str, Any], scale: float) -> Rollout:
    tokens = _tokens(rollout)
    omega = np.array([number(mapping(token).get("omega")) for token in tokens])
    status = rollout.get("status")
    return Rollout(
        problem_id=str(rollout.get("problem_id", "")),
        problem=str(rollout.get("problem") or ""),
        reference=str(rollout.get("reference") or ""),
        status=status if status in _STATUSES else "other",
        status_label=_STATUSES.get(str(status), str(status or "not graded")),
        advantage=COUNT.write(number(rollout.get("advantage")), sign=True),
        tokens=[_token(mapping(token), scale) for token in tokens[:MAX_TOKENS]],
        num_tokens=len(tokens),
        attracted=f"{100 * np.mean(omega > 0):.0f} %" if scale else "",
        repelled=f"{100 * np.mean(omega < 0):.0f} %" if scale else "",
    )


def _tokens(rollout: dict[str, Any]) -> list[Any]:
    tokens = rollout.get("tokens")
    return tokens if isinstance(tokens, list) else []


def _token(token: dict[str, Any], scale: float) -> Token:
    omega = number(token.get("omega"))
    side = "" if math.isnan(omega) or omega == 0 else "attract" if omega > 0 else "repel"
    weight = min(abs(omega) / scale, 1.0) if side and scale else 0.0
    lines = [
        f"omega {COUNT.write(omega, sign=True)}{' (' + side + ')' if side else ''}",
        f"entropy {COUNT.write(number(token.get('entropy')))} nats",
        f"gap {COUNT.write(number(token.get('gap')), sign=True)} nats",
        f"advantage {COUNT.write(number(token.get('advantage')), sign=True)}",
    ]
    text = inert(token.get("text", ""))
    marked = str(text).replace("\n", "<i>↵</i>\n").replace("\t", "<i>⇥</i>\t")
    return Token(Markup(marked), side, f"{weight:.2f}", "\n".join(lines))
