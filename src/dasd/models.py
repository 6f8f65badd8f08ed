"""A model and its tokenizer from a config, or one clear reason why not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from dasd.assets import BASE_MODEL
from dasd.config import BUNDLED, BadInput, ModelConfig

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")


def model_path(config: ModelConfig) -> str:
    return str(BASE_MODEL) if config.path == BUNDLED else config.path


def load_model(config: ModelConfig) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer). Raises BadInput for a missing folder, weights or chat template."""
    tokenizer = load_tokenizer(config)
    model = _load(AutoModelForCausalLM, config, dtype=config.dtype)
    return model.eval(), tokenizer


def load_model_config(config: ModelConfig) -> Any:
    """The model's config.json alone. Raises BadInput where it cannot be had."""
    try:
        return _load(AutoConfig, config)
    except BadInput as error:
        raise BadInput(f"{error}. Its config.json alone is enough here: --model.path FOLDER, a folder that has it") from None


def load_tokenizer(config: ModelConfig) -> Any:
    """The tokenizer of a model that is all there. Raises BadInput for a missing folder, weights or chat template."""
    transformers_logging.disable_progress_bar()  # a command has its own
    path = model_path(config)
    folder = Path(path)
    if folder.is_dir():
        if not any((folder / name).exists() for name in ("config.json", "adapter_config.json")):
            raise BadInput(f"model.path {path} is not a model folder: it has no config.json{_hint(folder)}")
        if not any(file for pattern in _WEIGHTS for file in folder.glob(pattern)):
            raise BadInput(f"model.path {path} has no weights (model.safetensors): was its download or save cut off?")
    elif path.startswith((".", "/", "~")) or path.count("/") > 1:
        raise BadInput(f"model.path {path} does not exist")
    tokenizer = _load(AutoTokenizer, config)
    if tokenizer.chat_template is None:
        raise BadInput(
            f"model.path {path} has no chat template: give an instruction-tuned model, or add chat_template.jinja to its folder"
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _load(kind: Any, config: ModelConfig, **options: Any) -> Any:
    path = model_path(config)
    try:
        return kind.from_pretrained(path, revision=config.revision, trust_remote_code=config.trust_remote_code, **options)
    except Exception as error:  # each library raises its own kinds: wrong name, no network, torn file
        reason = " ".join(str(error).split())[:400]
        kind_of_path = "" if Path(path).is_dir() else ", which is no folder here,"
        raise BadInput(f"model.path {path}{kind_of_path} cannot be loaded: {type(error).__name__}: {reason}") from None


def _hint(folder: Path) -> str:
    inside = sorted(path.parent for path in folder.glob("**/config.json"))
    return f"; did you mean {inside[-1]}?" if inside else ""


@dataclass(frozen=True)
class LanguageModelHead:
    """The last layer: (n, d) hidden states to (n, V) logits at the sampling temperature."""

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    temperature: float

    @classmethod
    def of(cls, model: Any, temperature: float) -> LanguageModelHead:
        """The head of a transformers language model, with the factors its config knows."""
        layer: Any = model.get_output_embeddings()
        config = model.config.get_text_config()
        factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
        scale = next((factor for factor in factors if factor is not None), 1.0)
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            scale = divisor if config.model_type == "hyperclovax" else 1.0 / divisor
        weight, bias = _whole(layer.weight), getattr(layer, "bias", None)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(weight, None if bias is None else _whole(bias), scale, softcap, temperature)

    def detached(self) -> LanguageModelHead:
        return replace(self, weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def cloned(self) -> LanguageModelHead:
        return replace(self, weight=self.weight.clone(), bias=None if self.bias is None else self.bias.clone())

    def __call__(self, hidden: Tensor) -> Tensor:
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        logits = torch.nn.functional.linear(hidden, self.weight.to(hidden.dtype), bias).float() * self.scale
        if self.softcap is not None:
            logits = self.softcap * torch.tanh(logits / self.softcap)
        return logits / self.temperature


def _whole(parameter: Tensor) -> Tensor:
    """A parameter that is sharded over processes, gathered; gradient is averaged over them, as FSDP does."""
    if not isinstance(parameter, DTensor):
        return parameter
    mesh = parameter.device_mesh
    whole: Tensor = parameter.full_tensor(grad_placements=[Partial()] * mesh.ndim)  # else each keeps its shard of its own
    if whole.requires_grad:
        whole.register_hook(lambda gradient: gradient / mesh.size())
    return whole
