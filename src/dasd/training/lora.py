"""Which weights are trained beside a frozen base? The LoRA adapter that a config asks for."""

from __future__ import annotations

import re
from typing import Any

from peft import LoraConfig

from dasd.config import RunConfig


def adapter(config: RunConfig, model: Any) -> LoraConfig | None:
    """The LoRA adapter to train, None where all weights are trained."""
    training = config.training
    if training.lora_rank == 0:
        return None
    targets: str | list[str] = training.lora_targets
    if re.fullmatch(r"\w+(\s*,\s*\w+)*", training.lora_targets):  # peft takes a lone text for an expression of whole paths
        targets = re.split(r"\s*,\s*", training.lora_targets)
    ends, tied = (model.get_input_embeddings(), model.get_output_embeddings()), model.config.tie_word_embeddings
    whole = [name.rpartition(".")[2] for name, module in model.named_modules() if module in ends[: 1 if tied else 2]]
    return LoraConfig(
        r=training.lora_rank, lora_alpha=training.lora_alpha, target_modules=targets, task_type="CAUSAL_LM",
        modules_to_save=whole if training.lora_embeddings else None, ensure_weight_tying=training.lora_embeddings and tied,
    )  # fmt: skip
