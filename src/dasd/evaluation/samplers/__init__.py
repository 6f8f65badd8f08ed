"""Who writes the completions: one sampler for each engine."""

from __future__ import annotations

from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers.base import Request, Sampled, Sampler, SamplingParams

__all__ = ["Request", "Sampled", "Sampler", "SamplingParams", "make_sampler"]


def make_sampler(config: SamplerConfig, model: ModelConfig) -> Sampler:
    from dasd.evaluation.samplers.transformers import TransformersSampler

    return TransformersSampler(config, model)
