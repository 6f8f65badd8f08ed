"""What is asked of whatever writes the completions?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class SamplingParams:
    max_completion_length: int
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0


@dataclass(frozen=True)
class Request:
    """One completion to write. `key` is "problem_id/sample", `prompt` chat messages."""

    key: str
    prompt: list[dict[str, Any]]
    seed: int


@dataclass(frozen=True)
class Sampled:
    """One completion: token ids where they are known, text without special tokens, why it ended ("stop" or "length")."""

    token_ids: list[int] | None
    text: str
    finish_reason: str


class Sampler(Protocol):
    deterministic: bool
    batch_size: int
    context_length: int | None

    def longest_prompt(self, prompts: Sequence[list[dict[str, Any]]]) -> int | None: ...

    def sample(self, requests: Sequence[Request], params: SamplingParams) -> list[Sampled]: ...

    def describe(self) -> dict[str, Any]: ...

    def close(self) -> None: ...
