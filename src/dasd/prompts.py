"""What does a model read? The one place where a prompt becomes text and token ids, for every command.

A prompt is plain text, which is read as it is, or chat messages, which the tokenizer's chat template puts into words up to
where the assistant is to go on. The template's arguments (`enable_thinking`, `tools`, ...) are the model's,
`model.chat_template_kwargs`; a teacher's own go over them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import TemplateError

from dasd.config import BadInput, nearest

Message = dict[str, Any]
Prompt = str | list[Message]  # plain text, or chat messages

_MARK = "What is 2 + 3?"
_CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
_PLAIN = "{% for message in messages %}{{ message['content'] }}\n\n{% endfor %}"
_TURNS = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'] | capitalize }}: {% endif %}"
    "{{ message['content'] }}\n\n{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
# name -> (template, the token that ends a turn; None: the tokenizer's own end token)
NAMED: dict[str, tuple[str, str | None]] = {"chatml": (_CHATML, "<|im_end|>"), "plain": (_PLAIN, None), "turns": (_TURNS, None)}


def tokenize_prompt(tokenizer: Any, prompt: Prompt, **arguments: Any) -> list[int]:
    """Token ids of a prompt, chat messages with the template's generation prefix. Raises BadInput, see `prompt_text`."""
    if isinstance(prompt, str):
        return list(tokenizer(prompt)["input_ids"])
    return list(tokenizer(prompt_text(tokenizer, prompt, **arguments), add_special_tokens=False)["input_ids"])


def prompt_text(tokenizer: Any, prompt: Prompt, **arguments: Any) -> str:
    """A prompt as the model reads it. Raises BadInput where the template refuses it, or would leave the question out."""
    if isinstance(prompt, str):
        return prompt
    takes = _takes(tokenizer, arguments.get("chat_template") or _default_template(tokenizer))
    return _render(tokenizer, [_with_content(message, takes) for message in prompt], arguments)


def content_text(content: Any) -> str:
    """The text of a message's content: the text itself, or its text parts joined."""
    return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content or ())


def without_answer(prompt: Prompt) -> Prompt:
    """A conversation up to its last user message where an assistant's answer follows it; anything else as it is."""
    if isinstance(prompt, str) or not prompt or prompt[-1]["role"] != "assistant":
        return prompt
    last = max((index for index, message in enumerate(prompt) if message["role"] == "user"), default=None)
    if last is None:
        raise ValueError("a conversation needs a user message, which the assistant is to answer")
    return prompt[: last + 1]


def with_system_prompt(messages: Sequence[Message], text: str | None) -> list[Message]:
    """The messages with this system message in place of their own, if any; None leaves them alone."""
    if text is None:
        return list(messages)
    return [{"role": "system", "content": text}, *(m for m in messages if m["role"] not in ("system", "developer"))]


def set_chat_template(tokenizer: Any, wanted: str) -> None:
    """Gives a freshly loaded tokenizer the template of a name in NAMED or of a file. Raises BadInput where it does not fit."""
    if wanted in NAMED:
        template, end = NAMED[wanted]
        unknown = [token for token in ("<|im_start|>", "<|im_end|>") if token in template and not _has(tokenizer, token)]
        if unknown:
            raise BadInput(
                f"model.chat_template {wanted} needs {unknown[0]} in the vocabulary, where it is not: take plain or turns"
            )
        begins = tokenizer.bos_token_id is not None and tokenizer("")["input_ids"][:1] == [tokenizer.bos_token_id]
        tokenizer.chat_template = ("{{ bos_token }}" if begins else "") + template
        if end is not None:
            tokenizer.eos_token = end
        return
    path = Path(wanted).expanduser()
    if not path.is_file():
        raise BadInput(
            f"model.chat_template {wanted} is no file here, and no name{nearest(wanted, list(NAMED))} Names: {', '.join(NAMED)}"
        )
    try:
        tokenizer.chat_template = path.read_text(encoding="utf-8")
        _render(tokenizer, [{"role": "user", "content": _MARK}], {})
    except (OSError, UnicodeDecodeError) as error:
        raise BadInput(f"model.chat_template {path} cannot be read: {error}") from None


def _default_template(tokenizer: Any) -> str | None:
    """The template as it is now; None where the tokenizer has several, of which it chooses itself."""
    return tokenizer.chat_template if isinstance(tokenizer.chat_template, str) else None


def _has(tokenizer: Any, token: str) -> bool:
    return tokenizer.convert_tokens_to_ids(token) not in (None, tokenizer.unk_token_id)


def _with_content(message: Message, takes: str) -> Message:
    """The message with its content in the form that the template reads."""
    content = message.get("content")
    if takes == "text" and isinstance(content, list):
        others = [part.get("type") for part in content if part.get("type") != "text"]
        if others:
            raise BadInput(f"the model's chat template reads text only, and a message has a part of type {others[0]!r}")
        return {**message, "content": content_text(content)}
    if takes == "parts" and isinstance(content, str):
        return {**message, "content": [{"type": "text", "text": content}]}
    return message


@lru_cache(maxsize=16)
def _takes(tokenizer: Any, template: str | None) -> str:
    """Which form of content the template reads: "text", "parts" (a list of {"type": "text", "text": ...}), or "both"."""
    arguments = {} if template is None else {"chat_template": template}

    def shown(content: Any) -> bool | None:
        """Whether a user's message is in what the template makes of it; None where it makes nothing."""
        try:
            text = _render(tokenizer, [{"role": "user", "content": content}], arguments)
        except (BadInput, TypeError, AttributeError):
            return None
        return _MARK in text and "'text'" not in text  # a list that is printed as Python does is not read

    text, parts = shown(_MARK), shown([{"type": "text", "text": _MARK}])
    if text is False and not parts:
        raise BadInput("the model's chat template leaves out what a user says: give another with model.chat_template")
    return "both" if text == parts else "parts" if parts else "text"


def _render(tokenizer: Any, messages: Sequence[Message], arguments: Mapping[str, Any]) -> str:
    try:
        text: str = tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False, **arguments)
    except TemplateError as error:
        raise BadInput(f"the model's chat template refuses a prompt: {' '.join(str(error).split())[:300]}") from None
    return text
