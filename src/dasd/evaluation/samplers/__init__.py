"""Who writes the samples. No torch here: a backend is imported when it is asked for."""

from __future__ import annotations

from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers.base import Request, Sampled, Sampler, SamplingFailed, SamplingParams

__all__ = ["Request", "Sampled", "Sampler", "SamplingFailed", "SamplingParams", "make_sampler"]


def make_sampler(config: SamplerConfig, model: ModelConfig) -> Sampler:
    """The sampler that `config.backend` names, ready to sample. Raises BadInput for what it cannot load or reach."""
    import torch

    from dasd.evaluation.samplers.transformers import TransformersSampler
    from dasd.models import load_model

    loaded, tokenizer = load_model(model)
    return TransformersSampler(loaded.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, config.batch_size)
