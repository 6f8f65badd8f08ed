"""Sampling from servers that speak OpenAI's chat protocol: vLLM, SGLang, llama.cpp, hosted ones.

Servers stall, restart and limit their rate. A request that fails for such a reason is tried again, at another server if there
is one; a server that failed is left alone for a while: as long as it asks (Retry-After), or twice as long each time. A request
that is wrong (4xx) is the user's to correct and ends the run at once.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import random
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from dasd.config import BadInput, ModelConfig, SamplerConfig
from dasd.evaluation.samplers.base import (
    NEUTRAL,
    UNWATCHED,
    Messages,
    Request,
    Sampled,
    SamplingFailed,
    SamplingParams,
    Watch,
)
from dasd.models import model_path

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.5, 60.0
NOT_OPENAIS = ("top_k", "min_p", "repetition_penalty")  # fields of vLLM, SGLang and llama.cpp
PASSING = {408, 409, 429}  # these and 5xx: the same request may succeed later
log = logging.getLogger(__name__)


@dataclass
class _Server:
    url: str
    free_at: float = 0.0  # not asked before this time (time.monotonic)


class _Unusable(Exception):
    """An answer that is no completion, from which the server may recover, and the seconds it asks to be left alone."""

    def __init__(self, reason: str, pause: float = 0.0) -> None:
        super().__init__(reason)
        self.pause = pause


class OpenAISampler:
    """Keeps `concurrency` requests under way over all servers, each with its seed.

    `text` is the whole completion: reasoning that a server splits off is put back before the answer.
    """

    deterministic = False  # servers batch as requests come, and many ignore the seed
    context_length = None

    def __init__(self, config: SamplerConfig, model: ModelConfig) -> None:
        self.config, self.model, self.batch_size = config, model_path(model), config.batch_size
        self.template = model.chat_template_kwargs  # the server renders the prompt
        self.servers = [_Server(url.rstrip("/") + "/chat/completions") for url in config.base_urls]
        self.turns = itertools.count()
        self.left_out = list(NOT_OPENAIS) if config.openai_fields_only else []
        self.headers = {}
        if config.api_key_env is not None:
            key = os.environ.get(config.api_key_env)
            if not key:
                raise BadInput(f"sampler.api_key_env: the environment variable {config.api_key_env} is not set")
            self.headers["Authorization"] = f"Bearer {key}"

    def longest_prompt(self, prompts: Sequence[Messages]) -> None:
        return None

    def sample(self, requests: Sequence[Request], params: SamplingParams, watch: Watch = UNWATCHED) -> list[Sampled]:
        return asyncio.run(self._sample(requests, params, watch))

    def describe(self) -> dict[str, Any]:
        return {
            "backend": "openai",
            "model": self.model,
            "base_urls": list(self.config.base_urls),
            "deterministic": self.deterministic,
            **({"left_to_the_server": self.left_out} if self.left_out else {}),
        }

    def close(self) -> None:
        """Nothing stays open between calls."""

    async def _sample(self, requests: Sequence[Request], params: SamplingParams, watch: Watch) -> list[Sampled]:
        waiting, finished = deque(requests), dict[str, Sampled]()
        count = min(self.config.concurrency, len(requests))

        async def work(client: httpx2.AsyncClient) -> None:
            while waiting:
                request = waiting.popleft()
                finished[request.key] = sampled = await self._complete(client, request, params)
                watch.finished(request, sampled)
                watch.tokens(len(sampled.token_ids or ()))

        limits = httpx2.Limits(max_connections=count, max_keepalive_connections=count)
        timeout = httpx2.Timeout(self.config.timeout_s, connect=min(10.0, self.config.timeout_s))
        async with httpx2.AsyncClient(headers=self.headers, limits=limits, timeout=timeout) as client:
            workers = [asyncio.create_task(work(client)) for _ in range(count)]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)
        return [finished[request.key] for request in requests]

    async def _complete(self, client: httpx2.AsyncClient, request: Request, params: SamplingParams) -> Sampled:
        body = {
            "model": self.model,
            "messages": request.prompt,
            "max_tokens": params.max_completion_length,
            "temperature": params.temperature,
            "top_p": params.top_p,
            "seed": request.seed,
            **({"chat_template_kwargs": self.template} if self.template else {}),
            **{name: value for name, value in NEUTRAL.items() if name not in self.left_out},
            **({"return_token_ids": True} if self.config.return_token_ids else {}),
        }
        reason = ""
        for attempt in range(self.config.retries + 1):
            server = await self._free_server()
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2**attempt) * random.uniform(0.5, 1)
            try:
                async with asyncio.timeout(self.config.timeout_s):  # the client's own limit is for each read
                    response = await client.post(server.url, json=body)
                return _completion(response, params.max_completion_length)
            except (httpx2.TransportError, httpx2.DecodingError) as error:
                reason = f"{type(error).__name__} {error}".strip()
            except TimeoutError:
                reason = f"no answer within {self.config.timeout_s:g} s"
            except _Unusable as error:
                reason, pause = str(error), max(pause, error.pause)
            if pause > 10:
                log.warning(f"{server.url}: {reason}; not asked again for {pause:.0f} s")
            server.free_at = max(server.free_at, time.monotonic() + pause)
        raise SamplingFailed(
            f"{request.key} could not be sampled in {self.config.retries + 1} attempts, the last at {server.url}: {reason}"
        )

    async def _free_server(self) -> _Server:
        """The next one in turn that may be asked; waits until there is one."""
        while True:
            now, turn = time.monotonic(), next(self.turns) % len(self.servers)
            server = min(self.servers[turn:] + self.servers[:turn], key=lambda server: max(server.free_at, now))
            if server.free_at <= now:
                return server
            await asyncio.sleep((server.free_at - now) * random.uniform(1, 1.2))  # not all at the same moment


def _completion(response: httpx2.Response, longest: int) -> Sampled:
    """Raises BadInput where the request was wrong or its length not granted, _Unusable where the answer is no completion."""
    code = response.status_code
    if code in PASSING or code >= 500:
        raise _Unusable(f"HTTP {code}: {_message(response)}", _retry_after(response))
    if code != 200:
        said = _message(response)
        remedy = (
            ": --sampler.openai_fields_only true leaves such fields out" if any(name in said for name in NOT_OPENAIS) else ""
        )
        raise BadInput(f"{response.url} refuses the request with HTTP {code}: {said}{remedy}")
    try:
        choices = response.json()["choices"]
        if len(choices) != 1:
            raise _Unusable(f"{len(choices)} choices where one was asked for")
        message, finish = choices[0]["message"], choices[0]["finish_reason"]
        text = (message.get("reasoning") or message.get("reasoning_content") or "") + (message.get("content") or "")
        token_ids, usage = choices[0].get("token_ids"), response.json().get("usage") or {}
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise _Unusable(f"not a chat completion ({type(error).__name__}: {error}): {response.text[:200]!r}") from None
    if finish not in ("stop", "length"):
        raise _Unusable(f"the completion ended for the reason {finish!r}, not 'stop' or 'length'")
    written = usage.get("completion_tokens")
    if finish == "length" and written is not None and written < longest:
        raise BadInput(
            f"{response.url} cut a completion off after {written} tokens, {longest} were asked for, with "
            f"{usage.get('prompt_tokens')} tokens of prompt: its context or a limit of its own is shorter. Start it with more "
            f"(vLLM: --max-model-len, --generation-config vllm), or evaluate with --max_completion_length {written} or less"
        )
    return Sampled(token_ids, text, finish)


def _message(response: httpx2.Response) -> str:
    """What the server says of an error, where the usual servers put it."""
    try:
        body = response.json()
        error = body.get("error", body)
        said = error if isinstance(error, str) else error.get("message") or error.get("detail")
    except (ValueError, AttributeError):
        said = None
    return " ".join(str(said or response.text or response.reason_phrase).split())[:400]


def _retry_after(response: httpx2.Response) -> float:
    """Seconds from a Retry-After header, which holds seconds or a date; 0 without one."""
    value = response.headers.get("retry-after", "")
    try:
        return float(value)
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return 0.0
