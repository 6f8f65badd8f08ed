"""What does TRL's trainer get told? The config in TRL's terms, for this machine; contradictions are refused."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_type_hints

import torch
from pydantic import TypeAdapter, ValidationError
from trl import GRPOConfig

from dasd import processes
from dasd.config import BadInput, RunConfig, TrainingConfig, nearest
from dasd.models import dtype_of
from dasd.training.batches import whole_batches
from dasd.training.trainer import SelfDistillationConfig
from dasd.training.trl_options import refusal


def trainer_arguments(
    config: RunConfig, kind: type[SelfDistillationConfig] = SelfDistillationConfig, world_size: int | None = None,
    on_gpu: bool | None = None,
) -> SelfDistillationConfig:  # fmt: skip
    """The config in TRL's terms, for this machine unless told otherwise.

    Raises BadInput for a wrong or doubly set field under `training.trl`.
    """
    training = config.training
    count = world_size or processes.count()
    on_gpu = torch.cuda.is_available() if on_gpu is None else on_gpu
    per_pass = training.micro_batch_size * count
    if training.rollouts_per_step % per_pass:
        raise BadInput(
            f"training.rollouts_per_step ({training.rollouts_per_step}) must be a multiple of micro_batch_size x processes "
            f"({training.micro_batch_size} x {count})"
        )
    if training.reward_weights and "reward_weights" in training.trl:
        raise BadInput(
            "training.reward_weights and training.trl.reward_weights are both given, and only one can hold: leave out the "
            "first to weigh the verifier too, else the second"
        )
    check_reporters(training.report_to)
    defaults, ours = _defaults(config, on_gpu), _ours(config, per_pass)
    further = {name: _checked(name, value) for name, value in training.trl.items()}
    if world_size is None and {**defaults, **further}["use_cpu"]:
        refuse_sharding_that_is_left_out()
    try:
        arguments = kind(**{**defaults, **ours, **further})
    except (ValueError, TypeError) as error:
        raise BadInput(f"TRL refuses these settings: {error}") from None
    if world_size is None:
        refuse_other_precision(arguments)
    if arguments.world_size != count:
        raise BadInput(
            f"the launcher started {count} processes, and accelerate joins {arguments.world_size} of them: on CPUs "
            "set training.trl.use_cpu to true"
        )
    refuse_torn_batches(arguments)
    return arguments


def _ours(config: RunConfig, per_pass: int) -> dict[str, Any]:
    """What settings of ours decide, where a pass has so many rollouts on all processes."""
    training = config.training
    revision = config.model.revision if training.trl.get("beta") else None  # TRL loads the reference of a KL by its name
    arguments: dict[str, Any] = {
        "output_dir": str(Path(config.output) / "checkpoints"),
        "method": config.method.name,
        "method_settings": config.method.settings,
        "context": config.teacher.context,
        "context_template": config.teacher.template,
        "context_fraction": config.teacher.fraction,
        "chat_template_kwargs": config.model.chat_template_kwargs,
        "teacher_chat_template_kwargs": config.teacher.chat_template_kwargs,
        "teacher_weights": config.teacher.weights,
        "teacher_ema_rate": config.teacher.ema_rate,
        "teacher_sync_steps": config.teacher.sync_steps,
        "sampler": training.sampler,
        "max_resamples": training.dynamic_sampling,
        "max_steps": training.steps,
        "per_device_train_batch_size": training.micro_batch_size,
        "gradient_accumulation_steps": training.rollouts_per_step // per_pass,
        "num_generations": training.group_size,
        "num_iterations": training.num_iterations,
        "learning_rate": training.learning_rate,
        "warmup_steps": training.warmup_steps,
        "loss_type": training.loss_type,
        "temperature": training.temperature,
        "max_completion_length": training.max_completion_length,
        "save_steps": training.save_steps,
        "seed": training.seed,
        "model_init_kwargs": {"revision": revision} if revision else None,
        "trust_remote_code": config.model.trust_remote_code,  # of vLLM, which loads the model once more
        "report_to": list(training.report_to),
    }
    if training.rewards:  # the verifier's comes first, then the penalty on length where there is one
        before = [1.0] * (2 if training.overlong_tokens else 1)
        arguments["reward_weights"] = [*before, *(training.reward_weights or [1.0] * len(training.rewards))]
    return arguments


def _defaults(config: RunConfig, on_gpu: bool) -> dict[str, Any]:
    """What holds unless `training.trl` says otherwise."""
    return {
        "project": project_of(config),
        "lr_scheduler_type": "constant_with_warmup",
        "use_cpu": not torch.accelerator.is_available(),  # else accelerate would not join several processes on CPUs
        # As its base, the adapter too.
        "bf16": on_gpu or (config.training.lora_rank > 0 and dtype_of(config.model) == torch.bfloat16),
        "ddp_find_unused_parameters": False,  # every parameter of a language model takes part in every pass
        "logging_steps": 1,
        "save_total_limit": 2,
        "run_name": Path(config.output).name,
        "disable_tqdm": True,
        "gradient_checkpointing": on_gpu,
    }


def _checked(name: str, value: Any) -> Any:
    """The value of a field under training.trl, in the type that TRL declares. Raises BadInput."""
    types = _types()
    if name not in types:
        raise BadInput(f"unknown key 'training.trl.{name}'{nearest(name, list(types))} It must be a field of trl.GRPOConfig")
    if (reason := refusal(name, value)) is not None:
        raise BadInput(reason)
    try:
        return TypeAdapter(types[name]).validate_python(value)
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"][:1].lower() + fault["msg"][1:]
        raise BadInput(f"training.trl.{name}: {message}, got {fault['input']!r}") from None


@cache
def _types() -> dict[str, Any]:
    """The declared type of every field of TRL's config."""
    return get_type_hints(GRPOConfig)


def refuse_sharding_that_is_left_out() -> None:
    """accelerate shards on accelerators only: on CPUs it passes over FSDP and DeepSpeed without a word. Raises BadInput."""
    for name, variable in (("FSDP", "ACCELERATE_USE_FSDP"), ("DeepSpeed", "ACCELERATE_USE_DEEPSPEED")):
        if os.environ.get(variable, "").lower() in ("true", "1"):
            raise BadInput(
                f"the launcher asks for {name}, and on CPUs accelerate leaves it out: every process would hold the whole "
                "model. Launch with recipes/accelerate/ddp_cpu.yaml, or on GPUs without training.trl.use_cpu"
            )


def refuse_other_precision(arguments: SelfDistillationConfig) -> None:
    """Of the launcher's mixed precision and the run's, one would be passed over, or DeepSpeed end the run. Raises BadInput."""
    launched = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    ours = "bf16" if arguments.bf16 else "fp16" if arguments.fp16 else "no"
    if launched in ("bf16", "fp16") and launched != ours:
        raise BadInput(
            f"the launcher's mixed precision is {launched}, and the run's {'none' if ours == 'no' else ours}: set "
            f"training.trl.{launched}: true, or launch with --mixed_precision {ours}"
        )


def too_few_problems(count: int, arguments: SelfDistillationConfig, training: TrainingConfig) -> str | None:
    """Why so many problems give not one whole batch of rollouts, and what to set; None where they do.

    TRL leaves out what does not fill a batch: of too few problems it makes no step, and says so to nobody.
    """
    batch, group, processes = arguments.generation_batch_size, training.group_size, arguments.world_size
    needed = batch // group
    if count >= needed:
        return None
    remedies = [f"give {needed} problems or more"]
    if chosen := {"steps_per_generation", "generation_batch_size"} & set(training.trl):
        remedies.append(f"lower training.trl.{chosen.pop()}")
    elif largest := count * group // (unit := math.lcm(group, training.micro_batch_size * processes)) * unit:
        remedies.append(f"set training.rollouts_per_step: {largest}")
    elif count * group % processes == 0:
        size = math.gcd(count * group // processes, training.micro_batch_size)
        remedies.append(f"set training.rollouts_per_step: {count * group} and training.micro_batch_size: {size}")
    if batch % count == 0:
        remedies.append(f"set training.group_size: {batch // count}")
    return (
        f"{count} problem{'s are' if count > 1 else ' is'} too few: a batch of rollouts takes {needed} ({batch} rollouts, "
        f"{group} of each problem), so not one step could be made. Either {', or '.join(remedies)}"
    )


def check_reporters(names: Sequence[str]) -> None:
    """Raises BadInput where the package of one of `training.report_to` is not installed."""
    for name in names:
        if find_spec(name) is None:
            raise BadInput(f"training.report_to {name} needs the package {name}, which is not installed: pip install {name}")


def project_of(config: RunConfig) -> str:
    """The name under which the runs of one folder are found together."""
    return Path(config.output).absolute().parent.name or "dasd"


def place_reporters(config: RunConfig) -> None:
    """What wandb and tensorboard read from the environment only, where the user has not set it: project and folder."""
    output = Path(config.output).absolute()
    for name, value in (
        ("WANDB_PROJECT", project_of(config)),
        ("WANDB_DIR", str(output)),
        ("TENSORBOARD_LOGGING_DIR", str(output / "tensorboard")),
    ):
        os.environ.setdefault(name, value)


def refuse_torn_batches(arguments: SelfDistillationConfig) -> None:
    """Rollouts are not part of a checkpoint: one in the middle of their use would go on with others. Raises BadInput."""
    whole = whole_batches(arguments)
    if arguments.save_steps < arguments.max_steps and arguments.save_steps % whole:
        raise BadInput(
            f"training.save_steps ({arguments.save_steps}) must be a multiple of the steps that use whole batches of rollouts "
            f"({whole}), or a killed run would not go on as it was: try training.save_steps: "
            f"{max(1, round(arguments.save_steps / whole)) * whole}"
        )
