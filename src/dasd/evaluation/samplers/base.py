"""What is a sampler? Chat prompts in, completions out, in the same order.

Every completion has a seed of its own, so that it does not matter which batch, process or restart it is sampled in.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from dasd.config import RunFailed

Messages = list[dict[str, Any]]  # a chat prompt
# Sent with every request: what one leaves out, servers and models fill in with defaults of their own (a generation_config.json
# with top_k 20, say), and a benchmark would be another. Every token may be drawn, and none is made less likely.
NEUTRAL = {"top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0, "presence_penalty": 0.0, "frequency_penalty": 0.0}


@dataclass(frozen=True)
class SamplingParams:
    max_completion_length: int
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0


@dataclass(frozen=True)
class Request:
    """One completion to write."""

    key: str  # unique, "problem_id/sample"
    prompt: Messages
    seed: int  # this completion's own, 0 or more and below 2**63; below 2**31 suits every server


@dataclass(frozen=True)
class Sampled:
    """One completion: its token ids with the end token (None where the backend does not tell), its text without special
    tokens, why it ended."""

    token_ids: list[int] | None
    text: str
    finish_reason: str  # "stop" (end token) or "length"


@dataclass(frozen=True)
class Watch:
    """What a sampler tells while it works, so that progress is seen and what is finished can be put on file at once.

    finished   called with each completion as soon as it ends, in any order
    tokens     called with the number of tokens written since the last call; a backend that does not know them never calls it
    """

    finished: Callable[[Request, Sampled], None] = lambda request, sampled: None
    tokens: Callable[[int], None] = lambda count: None


UNWATCHED = Watch()


class Sampler(Protocol):
    @property
    def deterministic(self) -> bool:
        """Do the same seeds give the same samples, in whatever batches they come?"""

    @property
    def batch_size(self) -> int:
        """Requests to hand over at once."""

    @property
    def context_length(self) -> int | None:
        """Tokens that prompt and completion may have together; None if unknown."""

    def longest_prompt(self, prompts: Sequence[Messages]) -> int | None:
        """Tokens of the longest prompt; None if unknown."""

    def sample(self, requests: Sequence[Request], params: SamplingParams, watch: Watch = UNWATCHED) -> list[Sampled]:
        """One completion for each request, in order; `watch` hears of each. Raises BadInput, or SamplingFailed."""

    def describe(self) -> dict[str, Any]:
        """What a record of the evaluation says of its sampler: backend, model, versions, deterministic."""

    def close(self) -> None:
        """Gives back memory and connections."""


class SamplingFailed(RunFailed):
    """A completion could not be had. Those of the same call that could were told to the call's `watch`."""
