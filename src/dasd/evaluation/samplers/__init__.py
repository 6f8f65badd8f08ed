"""Who writes the samples: transformers in this process, vLLM in this process, or a server that speaks OpenAI's protocol.

No torch here: a backend is imported when it is asked for.
"""

from __future__ import annotations

from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers.base import NEUTRAL, Request, Sampled, Sampler, SamplingFailed, SamplingParams, Watch

__all__ = [
    "NEUTRAL", "Request", "Sampled", "Sampler", "SamplingFailed", "SamplingParams", "Watch", "check_loadable", "make_sampler",
]  # fmt: skip


def check_loadable(config: SamplerConfig, model: ModelConfig) -> None:
    """Raises BadInput where it can be told, without its weights, that this model cannot be loaded. A server's is not asked."""
    if config.backend != "openai":
        from dasd.models import load_tokenizer

        load_tokenizer(model)


def make_sampler(config: SamplerConfig, model: ModelConfig) -> Sampler:
    """The sampler that `config.backend` names, ready to sample. Raises BadInput for what it cannot load or reach."""
    if config.backend == "vllm":
        from dasd.evaluation.samplers.vllm import VllmSampler

        return VllmSampler(config, model)
    if config.backend == "openai":
        from dasd.evaluation.samplers.openai import OpenAISampler

        return OpenAISampler(config, model)
    import torch

    from dasd.evaluation.samplers.transformers import TransformersSampler
    from dasd.models import load_model

    loaded, tokenizer = load_model(model)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    return TransformersSampler(loaded.to(device), tokenizer, config.batch_size, model.chat_template_kwargs)
