"""What does the teacher see that the student does not?

The teacher's prompt is the student's prompt with the last user message rewritten by a template that adds the privileged
context. The completion is never touched: both roles score the same token ids.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from dasd.teacher.templates import TEACHER_TEMPLATES

Prompt = str | list[dict[str, Any]]  # plain text, or chat messages


@dataclass(frozen=True)
class PrivilegedContext:
    """Where the context comes from and how it is put into words.

    kind      `solution`: the dataset's column of that name
    template  text with `{problem}` and `{context}`; None takes the kind's own

    Raises ValueError for an unknown kind and for a template without `{context}`.
    """

    kind: str = "solution"
    template: str | None = None

    def __post_init__(self) -> None:
        if self.kind not in TEACHER_TEMPLATES:
            raise ValueError(f"context kind {self.kind!r} is not one of {', '.join(TEACHER_TEMPLATES)}")
        if "{context}" not in self.text or "{problem}" not in self.text:
            raise ValueError(f"a teacher template needs {{problem}} and {{context}}, got {self.text!r}")

    @property
    def text(self) -> str:
        return self.template if self.template is not None else TEACHER_TEMPLATES[self.kind]

    def prompt(self, row: Mapping[str, Any]) -> Prompt | None:
        """The teacher's prompt for a dataset row with `prompt` and the context's column; None where the context is empty.

        Raises KeyError for a row without the column, ValueError for a conversation without a user message.
        """
        if self.kind not in row:
            raise KeyError(f"the teacher needs a column {self.kind!r}; this dataset has {', '.join(row)}")
        context = row[self.kind]
        if context is None or not str(context).strip():
            return None
        student = row["prompt"]
        if isinstance(student, str):
            return self._fill(student, str(context))
        for index in reversed(range(len(student))):
            if student[index]["role"] == "user":
                told = {**student[index], "content": self._fill(student[index]["content"], str(context))}
                return [*student[:index], told, *student[index + 1 :]]
        raise ValueError("a conversation needs a user message for the privileged context to go into")

    def _fill(self, problem: str, context: str) -> str:
        values = {"{problem}": problem, "{context}": context}  # in one pass: what a value says is never replaced
        return re.sub(r"\{problem\}|\{context\}", lambda match: values[match[0]], self.text)


def tokenize_prompt(tokenizer: Any, prompt: Prompt, **chat_template_kwargs: Any) -> list[int]:
    """Token ids of a prompt, chat messages with the template's generation prefix."""
    if isinstance(prompt, str):
        return tokenizer(prompt)["input_ids"]
    encoded = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True, **chat_template_kwargs)
    return encoded["input_ids"]
