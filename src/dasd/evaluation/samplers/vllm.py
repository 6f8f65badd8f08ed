"""Sampling with vLLM in this process, for one machine with GPUs.

Prompts go in as token ids from the same tokenizer and template as everywhere else. vLLM seeds each completion, but its
arithmetic depends on what else is in the batch, so equal seeds do not promise equal samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from dasd.adapters import is_adapter
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
from dasd.models import end_tokens_on_file, load_tokenizer, model_path
from dasd.prompts import tokenize_prompt

# Arguments of `vllm.LLM` that have a setting of their own.
OF_MODEL = "revision", "dtype", "trust_remote_code"
OF_SAMPLER = "tensor_parallel_size", "gpu_memory_utilization", "max_model_len"


class VllmSampler:
    deterministic = False

    def __init__(self, config: SamplerConfig, model: ModelConfig) -> None:
        try:
            import vllm
        except ImportError as error:
            raise BadInput(
                f"--sampler.backend vllm needs vLLM ({error}): pip install 'vllm>=0.22,<0.32', or take the backend transformers"
            ) from None
        self.vllm, self.config, self.name = vllm, config, model_path(model)
        if is_adapter(Path(self.name)):
            raise BadInput(
                f"{self.name} is a LoRA adapter, and vLLM wants a plain model: make one with "
                f"`dasd merge {self.name} --output FOLDER`"
            )
        of_model = {name: getattr(model, name) for name in OF_MODEL}
        of_sampler = {name: getattr(config, name) for name in OF_SAMPLER}
        for name in config.engine:
            if name in ("model", *of_model, *of_sampler):
                own = f"--sampler.{name}" if name in of_sampler else f"--model.{'path' if name == 'model' else name}"
                raise BadInput(f"sampler.engine.{name} is set by dasd itself: use {own}")
        self.batch_size = config.batch_size
        self.tokenizer, self.template = load_tokenizer(model), model.chat_template_kwargs
        self.ends = sorted(end_tokens_on_file(model, self.tokenizer))  # vLLM knows its own tokenizer's alone
        try:
            self.engine = vllm.LLM(model=self.name, **of_model, **of_sampler, **config.engine)
        except (ValueError, RuntimeError, TypeError) as error:
            raise BadInput(f"vLLM cannot load {self.name}: {' '.join(str(error).split())[:400]}") from None
        self.context_length: int | None = self.engine.llm_engine.model_config.max_model_len

    def longest_prompt(self, prompts: Sequence[Messages]) -> int:
        return max(len(self._ids(prompt)) for prompt in prompts)

    def sample(self, requests: Sequence[Request], params: SamplingParams, watch: Watch = UNWATCHED) -> list[Sampled]:
        """`watch` hears of the completions when all of the call are written."""
        outputs = self.engine.generate(
            [{"prompt_token_ids": self._ids(request.prompt)} for request in requests],
            [
                self.vllm.SamplingParams(
                    max_tokens=params.max_completion_length,
                    temperature=params.temperature,
                    top_p=params.top_p,
                    seed=request.seed,
                    stop_token_ids=self.ends,
                    **NEUTRAL,
                )
                for request in requests
            ],
            use_tqdm=False,
        )
        written = [(request, output.outputs[0]) for request, output in zip(requests, outputs, strict=True)]
        finished = [
            (request, Sampled(list(one.token_ids), one.text, one.finish_reason))
            for request, one in written
            if one.finish_reason in ("stop", "length")
        ]
        for request, sampled in finished:
            watch.finished(request, sampled)
            watch.tokens(len(sampled.token_ids or ()))
        if len(finished) < len(requests):
            request, one = next(pair for pair in written if pair[1].finish_reason not in ("stop", "length"))
            raise SamplingFailed(f"vLLM did not finish {request.key}: {one.finish_reason}")
        return [sampled for _, sampled in finished]

    def _ids(self, prompt: Messages) -> list[int]:
        return tokenize_prompt(self.tokenizer, prompt, **self.template)

    def describe(self) -> dict[str, Any]:
        return {
            "backend": "vllm",
            "model": self.name,
            "dtype": str(self.engine.llm_engine.model_config.dtype).removeprefix("torch."),
            "tensor_parallel_size": self.config.tensor_parallel_size,
            "deterministic": self.deterministic,
            "vllm": self.vllm.__version__,
        }

    def close(self) -> None:
        self.engine.llm_engine.engine_core.shutdown()
        del self.engine
