"""What does one cell say? A text as the file has it, a conversation, nothing, or something that no text can stand for.

A cell is refused with the reason (ValueError, "holds ...") rather than turned into some text: a grader and a teacher would take
`[3, 5]`, `True` or `nan` for the answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from typing import Any

from dasd.data.files import Moment, Number, float_text

Message = dict[str, Any]
ROLES = ("system", "developer", "user", "assistant")


def text_of(value: Any) -> str | None:
    """A cell's text, None where it is empty. Raises ValueError for what has no text of its own."""
    if value is None:
        return None
    if isinstance(value, str):
        text = str(value)
    elif isinstance(value, bool):
        raise ValueError(f"holds {str(value).lower()}, not text: write it as the text that is meant")
    elif isinstance(value, int):
        text = str(value)
    elif isinstance(value, Decimal):
        text = format(value, "f")
    elif isinstance(value, float):
        text = float_text(value)
    else:
        raise ValueError(f"holds {_name(value)}")
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise ValueError("holds half of a surrogate pair, which is no character: was it cut in the middle?")
    return text if text.strip() else None


def json_of(value: Any) -> str | None:
    """A cell's text, and of what has none of its own (a list, an object, true or false) the JSON; None where it is empty.

    Raises ValueError where that has none either.
    """
    if not isinstance(value, bool | list | dict):
        return text_of(value)
    return json.dumps(_unwrapped(value), ensure_ascii=False)


def _unwrapped(value: Any) -> Any:
    """Numbers as numbers again, within lists and objects."""
    if isinstance(value, list):
        return [_unwrapped(each) for each in value]
    if isinstance(value, dict):
        return {name: _unwrapped(each) for name, each in value.items()}
    if isinstance(value, Number):
        return json.loads(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"holds {_name(value)} within it")


def is_conversation(value: Any) -> bool:
    """Whether a cell is a list of chat messages."""
    return (
        isinstance(value, Sequence)
        and not isinstance(value, str | bytes)
        and len(value) > 0
        and all(isinstance(message, Mapping) and "role" in message for message in value)
    )


def question_of(value: Sequence[Mapping[str, Any]]) -> list[Message]:
    """A conversation up to its last user message: what the student may see. The assistant's answer after it is left out.

    Raises ValueError where there is no user message, or a message has something besides text.
    """
    messages = [_message(message) for message in value]
    last = max((index for index, message in enumerate(messages) if message["role"] == "user"), default=None)
    if last is None:
        raise ValueError("holds a conversation without a user message")
    return messages[: last + 1]


def reply_of(value: Sequence[Mapping[str, Any]]) -> str | None:
    """What the assistant says after the last user message: a worked reference. None where it says nothing."""
    messages = [_message(message) for message in value]
    said = messages[len(question_of(value)) :]
    return "\n".join(message["content"] for message in said if message["role"] == "assistant") or None


def _message(message: Mapping[str, Any]) -> Message:
    role, content = message["role"], message.get("content")
    if role not in ROLES:
        raise ValueError(f"holds a message of role {role!r}; roles are {', '.join(ROLES)}")
    others = [key for key, value in message.items() if key not in ("role", "content") and value not in (None, [], {})]
    if others:
        raise ValueError(f"holds a message with {others[0]!r}; messages have role and content")
    if isinstance(content, str):
        return {"role": role, "content": str(content)}
    if not isinstance(content, Sequence) or not content:
        raise ValueError(f"holds a message of role {role!r} whose content is {_name(content)}, not text")
    return {"role": role, "content": "".join(map(_text_of_part, content))}


def _text_of_part(part: Any) -> str:
    if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
        kind = part.get("type") if isinstance(part, Mapping) else _name(part)
        raise ValueError(f"holds a message with a part of type {kind!r}: only text can be asked")
    return str(part["text"])


def _name(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, Moment | date | time | timedelta):
        shown = value.text if isinstance(value, Moment) else str(value)
        return f"the date or time {shown}: store the text that is meant"
    if isinstance(value, Mapping):
        return f"an object with the keys {', '.join(map(str, value))[:100]}, not text"
    if isinstance(value, bytes):
        return "bytes, not text"
    if is_conversation(value):
        return "a conversation, which only the problem's column may, and the solution's"
    if isinstance(value, Sequence):
        return f"a list ({str(list(value))[:60]}), not text: give one text a row"
    return f"a {type(value).__name__}, not text"
