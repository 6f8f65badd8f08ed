"""A model and its tokenizer from a config, or one clear reason why not."""

from __future__ import annotations

import hashlib
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import AuxiliaryTrainingWrapper, ModulesToSaveWrapper
from torch import Tensor
from torch.distributed.tensor import DTensor, Partial
from torch.utils.hooks import RemovableHandle
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.utils import logging as transformers_logging

from dasd.adapters import base_of, is_adapter
from dasd.assets import BASE_MODELS
from dasd.config import BASES, BUNDLED, BadInput, ModelConfig, is_bundled, nearest
from dasd.hub import check_hub
from dasd.model_fit import end_tokens, fit_tokenizer, neutral
from dasd.prompts import NAMED, set_chat_template

_WEIGHTS = ("*.safetensors", "*.safetensors.index.json", "pytorch_model*.bin*")


def model_path(config: ModelConfig) -> str:
    """Folder or hub id of a model. Raises BadInput for a bundled base that there is none of."""
    if not is_bundled(config.path):
        return config.path
    name = config.path.removeprefix(BUNDLED).removeprefix("/") or BASES[0]
    if name not in BASE_MODELS:
        known = [f"{BUNDLED}/{base}" for base in BASE_MODELS]
        raise BadInput(
            f"model.path {config.path} does not ship with this package{nearest(config.path, known)} {', '.join(known)} do"
        )
    return str(BASE_MODELS[name])


def weights_digest(config: ModelConfig) -> str | None:
    """Which weights a model has on file, an adapter's base included; of a hub id its commit. None where nothing says so."""
    folder = Path(model_path(config))
    if not folder.is_dir():
        commit: str | None = getattr(base_config(config), "_commit_hash", None)
        return commit
    found = hashlib.sha256()
    for file in sorted({file for pattern in _WEIGHTS for file in folder.glob(pattern)}):
        with file.open("rb") as content:
            found.update(f"{file.name} {hashlib.file_digest(content, 'sha256').hexdigest()}".encode())
    if is_adapter(folder):
        found.update(f"base {weights_digest(_of_base(config))}".encode())
    return found.hexdigest()[:16]


def load_model(config: ModelConfig) -> tuple[Any, Any]:
    """(model in evaluation mode, tokenizer). Raises BadInput for a missing folder, weights or chat template."""
    tokenizer, path, base = load_tokenizer(config), model_path(config), _of_base(config)
    model = load_weights(base)
    model.generation_config = neutral(model.generation_config, path)
    if is_adapter(Path(path)):
        try:
            model.load_adapter(path)
        except Exception as error:  # a torn file, a missing one, another model's shapes: each library raises its own kind
            raise BadInput(f"model.path {path} does not fit its base {base.path}: {_one_line(error)}") from None
    return model.eval(), tokenizer


def load_model_config(config: ModelConfig) -> Any:
    """The model's config.json alone. Raises BadInput where it cannot be had."""
    try:
        return _load(AutoConfig, config)
    except BadInput as error:
        remedy = "Its config.json alone is enough here: --model.path FOLDER, a folder that has it"
        raise BadInput(f"{str(error).rstrip('.')}. {remedy}") from None


def dtype_of(config: ModelConfig) -> torch.dtype:
    """The type of the loaded weights: `auto` is that of the model's config.json. Raises BadInput where it cannot be read."""
    if config.dtype != "auto":
        return getattr(torch, config.dtype)
    return base_config(config).dtype or torch.float32


def load_weights(config: ModelConfig) -> Any:
    """The model alone, of a folder or hub id that is no adapter. Raises BadInput where it cannot be loaded."""
    attention = {} if config.attn_implementation is None else {"attn_implementation": config.attn_implementation}
    return _load(AutoModelForCausalLM, config, dtype=config.dtype, **attention, **quantized(config))


def quantized(config: ModelConfig) -> dict[str, Any]:
    """What `from_pretrained` needs for a base in 8 or 4 bits, of which embeddings, norms and head stay as they are."""
    if config.quantization == "none":
        return {}
    if find_spec("bitsandbytes") is None:
        raise BadInput(f"model.quantization {config.quantization} needs bitsandbytes: pip install bitsandbytes")
    if config.quantization == "8bit":
        return {"quantization_config": BitsAndBytesConfig(load_in_8bit=True)}
    compute = torch.bfloat16 if torch.cuda.is_available() else torch.float32
    four_bit = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=compute
    )
    return {"quantization_config": four_bit}


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
    if not (folder / "tokenizer_config.json").exists():
        config = _of_base(config)
    tokenizer = _load(AutoTokenizer, config)
    if config.chat_template is not None:
        set_chat_template(tokenizer, config.chat_template)
    if tokenizer.chat_template is None:
        raise BadInput(
            f"model.path {path} has no chat template (a base model?): give it one with model.chat_template, a file or one of "
            f"{', '.join(NAMED)}"
        )
    fit_tokenizer(tokenizer, base_config(config), _generation_config(config), path)
    return tokenizer


def end_tokens_on_file(config: ModelConfig, tokenizer: Any) -> set[int]:
    """`end_tokens` of the model that transformers would load, for whoever loads it otherwise. Raises BadInput."""
    return end_tokens(_generation_config(config) or GenerationConfig.from_model_config(base_config(config)), tokenizer)


def base_config(config: ModelConfig) -> Any:
    """The model's config.json, of an adapter its base's. Raises BadInput where it cannot be had."""
    return _load(AutoConfig, _of_base(config))


def _of_base(config: ModelConfig) -> ModelConfig:
    """With the base in place of a LoRA adapter; any other model as it is. Raises BadInput where the adapter names none."""
    if not is_adapter(folder := Path(model_path(config))):
        return config
    base, revision = base_of(folder)
    return config.model_copy(update={"path": base, "revision": revision})


def keep_generation_config(config: ModelConfig, folder: Path) -> None:
    """Writes the base model's own generation settings, which training does not use, beside a model that was trained from it."""
    if (own := _generation_config(config)) is not None:
        own.save_pretrained(folder)


def _generation_config(config: ModelConfig) -> GenerationConfig | None:
    """A model's generation_config.json, None where it has none."""
    try:
        return GenerationConfig.from_pretrained(model_path(config), revision=config.revision)
    except (OSError, ValueError):
        return None


def _load(kind: Any, config: ModelConfig, **options: Any) -> Any:
    path = model_path(config)
    if not Path(path).is_dir():
        if path.startswith((".", "/", "~")) or path.count("/") > 1:
            raise BadInput(f"model.path {path} does not exist")
        try:
            check_hub("model", path, config.revision)
        except BadInput as error:
            raise BadInput(f"model.path {path}: {error}") from None
    try:
        return kind.from_pretrained(path, revision=config.revision, trust_remote_code=config.trust_remote_code, **options)
    except Exception as error:  # each library raises its own kinds: wrong name, no network, torn file
        kind_of_path = "" if Path(path).is_dir() else ", which is no folder here,"
        raise BadInput(f"model.path {path}{kind_of_path} cannot be loaded: {_one_line(error)}") from None


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:400]}"


def _hint(folder: Path) -> str:
    inside = sorted(path.parent for path in folder.glob("**/config.json"))
    return f"; did you mean {inside[-1]}?" if inside else ""


def without_adapter(model: Any) -> Any:
    """The language model under a PEFT adapter; itself where there is none."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def refuse_changed_head(model: Any) -> None:
    """Raises BadInput where logits are not hidden states times the head's own weight, which all scores are computed from."""
    layer = model.get_output_embeddings()
    if isinstance(layer, ModulesToSaveWrapper):  # its weight is the trained copy, or the base's where the adapter is off
        return
    if isinstance(layer, BaseTunerLayer | AuxiliaryTrainingWrapper):
        raise BadInput(
            "the adapter changes the output head (lm_head in target_modules): students and teachers are scored from the head's "
            "own weight, so it would neither be trained nor seen. Leave the head out, as all-linear does, or train it in full "
            "(training.lora_embeddings)"
        )
    if not layer.weight.is_floating_point():
        raise BadInput(
            f"the output head is quantised ({layer.weight.dtype}), and scores need its plain weight: leave it out of "
            "quantisation (llm_int8_skip_modules: [lm_head])"
        )


def keep_head_input_contiguous(model: Any) -> RemovableHandle:
    """From now on the output head gets its input in one piece. `remove()` of what is returned ends that.

    The last position of (B, T, d) hidden states is a view with gaps, for which torch copies a head without gradient, as a LoRA
    adapter's base has, once for each row: 16 rows of a 0.5 B model with a vocabulary of 152,000 take 5.6 GiB.
    """
    return model.get_output_embeddings().register_forward_pre_hook(lambda module, args: (args[0].contiguous(), *args[1:]))


@dataclass(frozen=True)
class LanguageModelHead:
    """The last layer: (n, d) hidden states to (n, V) logits at the sampling temperature.

    in_float32  whatever the type of both, the product is in float32, outside autocast (TRL's `cast_lm_head_to_fp32`)
    """

    weight: Tensor
    bias: Tensor | None
    scale: float
    softcap: float | None
    temperature: float
    in_float32: bool = False

    @classmethod
    def of(cls, model: Any, temperature: float, in_float32: bool = False) -> LanguageModelHead:
        """The head of a transformers language model, with the factors its config knows."""
        refuse_changed_head(model)
        layer: Any = model.get_output_embeddings()
        config = model.config.get_text_config()
        factors = [getattr(config, name, None) for name in ("logit_scale", "output_multiplier", "lm_head_multiplier")]
        scale = next((factor for factor in factors if factor is not None), 1.0)
        if (divisor := getattr(config, "logits_scaling", None)) is not None:
            scale = divisor if config.model_type == "hyperclovax" else 1.0 / divisor
        weight, bias = _whole(layer.weight), getattr(layer, "bias", None)
        softcap = getattr(config, "final_logit_softcapping", None)
        return cls(weight, None if bias is None else _whole(bias), scale, softcap, temperature, in_float32)

    def take(self, hidden: Tensor) -> Tensor:
        """Hidden states in the type that the product is made in."""
        return hidden.float() if self.in_float32 else hidden

    def precision(self, hidden: Tensor) -> AbstractContextManager[Any]:
        return torch.autocast(hidden.device.type, enabled=False) if self.in_float32 else nullcontext()

    def detached(self) -> LanguageModelHead:
        return replace(self, weight=self.weight.detach(), bias=None if self.bias is None else self.bias.detach())

    def cloned(self) -> LanguageModelHead:
        return replace(self, weight=self.weight.clone(), bias=None if self.bias is None else self.bias.clone())

    def __call__(self, hidden: Tensor) -> Tensor:
        hidden = self.take(hidden)
        bias = None if self.bias is None else self.bias.to(hidden.dtype)
        with self.precision(hidden):
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
