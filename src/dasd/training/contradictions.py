"""Which settings of a trainer contradict each other, or its model? All that can be known before the first step."""

from __future__ import annotations

from typing import Any

from torch import nn

from dasd.analysis.attention import refuse_hidden_attention
from dasd.credit import unmet_needs
from dasd.models import without_adapter
from dasd.teacher.weights import refuse_sharded_copy


def refuse_contradictions(trainer: Any) -> None:
    """Raises ValueError for settings of a trainer that contradict each other, its model or how it is shared by processes."""
    args = trainer.args
    if unmet := unmet_needs(trainer.method):
        raise ValueError(unmet)
    if "attention_entropies" in trainer.needs:
        refuse_hidden_attention(without_adapter(trainer.accelerator.unwrap_model(trainer.model)))
    dropout = [name for name, module in trainer.model.named_modules() if isinstance(module, nn.Dropout) and module.p > 0]
    if dropout and trainer.has_teacher:
        raise ValueError(
            f"{dropout[0]} and {len(dropout) - 1} more modules drop out: the student would be scored with noise that the "
            "teacher, in evaluation mode, does not have. Set disable_dropout=True (and lora_dropout=0)."
        )
    if trainer.is_fsdp_enabled and trainer.accelerator.state.fsdp_plugin.fsdp_version == 1:
        raise ValueError("FSDP1 flattens the model's parameters: set fsdp_version: 2 in accelerate's config")
    zero = trainer.accelerator.state.deepspeed_plugin
    if zero is not None and zero.zero_stage == 3:
        if trainer.has_teacher:
            refuse_sharded_copy(args.teacher_weights)
        if trainer.compares_distributions:
            raise ValueError(
                "DeepSpeed ZeRO-3 shards the model, and this run compares whole distributions, which needs the whole "
                "output layer: use FSDP2 or ZeRO-2"
            )
    rollouts, group = args.generation_batch_size, args.num_generations
    if hasattr(trainer.train_dataset, "__len__") and (rows := len(trainer.train_dataset)) < rollouts // group:
        raise ValueError(
            f"the dataset has {rows} rows, and a batch of rollouts takes {rollouts // group} (generation_batch_size "
            f"{rollouts} / num_generations {group}): not one step could be made. Give more rows, or lower "
            "generation_batch_size"
        )
    if args.max_resamples and args.per_device_train_batch_size * args.steps_per_generation % args.num_generations:
        raise ValueError(
            f"dynamic sampling needs whole groups on every process: per_device_train_batch_size x steps_per_generation "
            f"({args.per_device_train_batch_size} x {args.steps_per_generation}) must be a multiple of num_generations "
            f"({args.num_generations})"
        )


def refuse_to_cast(model: Any) -> None:
    """Raises ValueError where TRL's cast of the head does not know its way about the model."""
    tied = model.config.tie_word_embeddings
    if not hasattr(model, "lm_head") or (tied and not hasattr(getattr(model, "model", None), "embed_tokens")):
        raise ValueError(
            f"cast_lm_head_to_fp32 looks for lm_head{' and model.embed_tokens' if tied else ''}, which {type(model).__name__} "
            "has under other names: leave it out, or load the model in float32"
        )
