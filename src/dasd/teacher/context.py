"""What does the teacher see that the student does not?

The teacher's prompt is the student's prompt with the last user message rewritten by a template that adds the privileged
context. The completion is never touched: both roles score the same token ids.

    solution, answer, hint   the dataset's column of that name
    peer                     another rollout of the same problem that the verifier accepts
    solution_else_peer       the solution where there is one, else a peer
    peer_else_solution       a peer where there is one, else the solution
    truncated                the first `fraction` of the solution's words
    none                     nothing: the student's own prompt

and the controls, which tell information from mere context:

    other_problem            the solution of another problem
    wrong_answer             another problem's answer, never the right one
    length_matched           the problem's own words, repeated to as many words as the solution has
"""

from __future__ import annotations

import itertools
import math
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dasd.credit.controls import without_control
from dasd.prompts import Prompt, content_text
from dasd.teacher.templates import TEACHER_TEMPLATES

Row = Mapping[str, Any]

COLUMNS = {
    "solution": "solution", "answer": "answer", "hint": "hint", "solution_else_peer": "solution",
    "peer_else_solution": "solution", "truncated": "solution",
    "other_problem": "solution", "wrong_answer": "answer", "length_matched": "solution",
}  # fmt: skip
_PEERS = ("peer", "solution_else_peer", "peer_else_solution")
KINDS = (*TEACHER_TEMPLATES, "none")


@dataclass(frozen=True)
class PrivilegedContext:
    """Where the context comes from and how it is put into words.

    kind      see above
    template  text with `{problem}` and `{context}`; None takes the kind's own
    fraction  `truncated`: the share of the solution's words that the teacher sees, in (0, 1)

    Raises ValueError for an unknown kind, for a template without `{context}` and for a fraction out of range.
    """

    kind: str = "solution"
    template: str | None = None
    fraction: float = 0.5

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"context kind {self.kind!r} is not one of {', '.join(KINDS)}")
        if self.kind != "none" and ("{context}" not in self.text or "{problem}" not in self.text):
            raise ValueError(f"a teacher template needs {{problem}} and {{context}}, got {self.text!r}")
        if not 0 < self.fraction < 1:
            raise ValueError(f"fraction must lie between 0 and 1, got {self.fraction}; the whole solution is kind 'solution'")

    @property
    def text(self) -> str:
        return self.template if self.template is not None else TEACHER_TEMPLATES[self.kind]

    @property
    def needs_peers(self) -> bool:
        return self.kind in _PEERS

    @property
    def column(self) -> str | None:
        """The dataset's column it is made from; None for `peer` and `none`."""
        return COLUMNS.get(self.kind)

    def prompt(self, row: Row, peers: Sequence[str] = (), others: Sequence[Row] = (), choice: int = 0) -> Prompt | None:
        """The teacher's prompt for a dataset row with `prompt` and the context's column; None where there is no context.

        peers   texts of other rollouts of this problem (that the verifier accepts), in order of preference
        others  rows to take another problem's context from
        choice  0 is the first of peers or others, 1 the next, and so on

        Raises KeyError for a row without the column, ValueError for a conversation without a user message.
        """
        if self.kind == "none":
            return row["prompt"]
        context = self.context(row, peers, others, choice)
        if context is None:
            return None
        student = row["prompt"]
        if isinstance(student, str):
            return self._fill(student, context)
        for index in reversed(range(len(student))):
            if student[index]["role"] == "user":
                told = {**student[index], "content": self._fill_content(student[index]["content"], context)}
                return [*student[:index], told, *student[index + 1 :]]
        raise ValueError("a conversation needs a user message for the privileged context to go into")

    def context(self, row: Row, peers: Sequence[str] = (), others: Sequence[Row] = (), choice: int = 0) -> str | None:
        """The privileged text alone, see `prompt`."""
        if self.kind in ("other_problem", "wrong_answer"):
            return self._of_another(row, others, choice)
        own = _cell(row, self.column) if self.column else None
        if self.needs_peers and (own is None or self.kind == "peer_else_solution"):
            return next(itertools.islice((peer for peer in peers if peer.strip()), choice, None), own)
        if own is not None and self.kind == "truncated":
            words = re.findall(r"\S+\s*", own)  # each with the space after it: solutions are written in lines, too
            return "".join(words[: max(1, math.floor(self.fraction * len(words)))]).rstrip()
        if own is not None and self.kind == "length_matched":
            return " ".join(itertools.islice(itertools.cycle(_problem_text(row).split()), len(own.split())))
        return own

    def wrong(self, hints_from: str = "other_problems") -> PrivilegedContext:
        """A wrong hint in the same words: context of `other_problems`, or `failed_rollouts`, which come as `peers`.

        Raises ValueError for kinds that have no such counterpart.
        """
        if hints_from == "failed_rollouts":
            if self.kind not in ("solution", *_PEERS):
                raise ValueError(
                    f"wrong hints from failed rollouts stand in for a solution, context is {self.kind!r}: take context "
                    f"solution, {', '.join(_PEERS)}, or hints_from other_problems"
                )
            return replace(self, kind="peer", template=self.text)
        kinds = {"solution": "other_problem", "answer": "wrong_answer"}
        if self.kind not in kinds:
            raise ValueError(
                f"wrong hints from other problems are made for context {' or '.join(kinds)}, got {self.kind!r}: take one of "
                "these, or hints_from failed_rollouts"
            )
        return replace(self, kind=kinds[self.kind])

    def _of_another(self, row: Row, others: Sequence[Row], choice: int) -> str | None:
        """Context of one of `others`, the same for the same row and choice, and never the row's own."""
        column = COLUMNS[self.kind]
        problem, own = _problem_text(row), _cell(row, column)
        start = zlib.crc32(f"{choice}/{problem}".encode())
        for index in range(min(len(others), 64)):  # where 64 in a row share this row's answer there is hardly another
            other = others[(start + index) % len(others)]
            context = _cell(other, column)
            if context is not None and context != own and _problem_text(other) != problem:
                return context
        return None

    def _fill_content(self, content: str | list[dict[str, Any]], context: str) -> str | list[dict[str, Any]]:
        """A message's content with the context: what the template says before the problem goes to its first part of text, what
        it says after it to the last; pictures and other parts stay where they are."""
        if isinstance(content, str):
            return self._fill(content, context)
        texts = [index for index, part in enumerate(content) if part.get("type") == "text"]
        if not texts:
            raise ValueError("a user message needs text for the privileged context to go to")
        before, _, after = self.text.partition("{problem}")
        parts = [dict(part) for part in content]
        whole = content_text(content)
        parts[texts[0]]["text"] = self._fill(whole, context, before) + parts[texts[0]]["text"]
        parts[texts[-1]]["text"] += self._fill(whole, context, after)
        return parts

    def _fill(self, problem: str, context: str, template: str | None = None) -> str:
        values = {"{problem}": problem, "{context}": context}  # in one pass: what a value says is never replaced
        return re.sub(r"\{problem\}|\{context\}", lambda match: values[match[0]], self.text if template is None else template)


def wrong_hints(context: PrivilegedContext, method: Any) -> PrivilegedContext | None:
    """What the teacher is told wrongly under a method that contrasts hints, None under others. Raises ValueError as `wrong`."""
    if "contrast_logps" not in method.needs:
        return None
    return context.wrong(getattr(without_control(method), "hints_from", "other_problems"))


def number_of_wrong_hints(method: Any) -> int:
    """How many wrong hints, `choice` 0 and on, a method that contrasts hints may be given; 1 of others."""
    return int(getattr(without_control(method), "wrong_hints", 1))


def choose_peers(texts: Sequence[str], fitting: Sequence[bool], index: int, group: range) -> list[str]:
    """Fitting (accepted, say) rollouts of `index`'s group whose text differs from its own, the next ones first."""
    following = [*range(index + 1, group.stop), *range(group.start, index)]
    return [texts[i] for i in following if fitting[i] and texts[i] != texts[index]]


def _problem_text(row: Row) -> str:
    prompt = row["prompt"]
    return prompt if isinstance(prompt, str) else " ".join(content_text(message.get("content")) for message in prompt)


def _cell(row: Row, column: str) -> str | None:
    """A column's text, None where it is empty."""
    if column not in row:
        raise KeyError(f"the teacher needs a column {column!r}; this dataset has {', '.join(row)}")
    value = row[column]
    return None if value is None or not str(value).strip() else str(value)
