"""Would this run start, and would it fit? `dasd train CONFIG --dry-run`: no weights, nothing written, problems only counted.

Settings, method, teacher and TRL's arguments are resolved as if on the GPUs that are named; the model is built from its
config.json without memory, so that weights are counted and not guessed.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from peft import get_peft_model
from rich.table import Table
from transformers import AutoModelForCausalLM

from dasd.config import BUNDLED, BadInput, RunConfig, make_config
from dasd.credit import has_teacher
from dasd.data.problems import load_problems
from dasd.models import dtype_of, load_model_config, model_path, without_adapter
from dasd.progress import console, print_table
from dasd.teacher.weights import KEEPS_COPY, TeacherWeights, refuse_sharded_copy
from dasd.training.arguments import too_few_problems, trainer_arguments
from dasd.training.lora import adapter
from dasd.training.memory import (
    GIB,
    USABLE,
    ModelSizes,
    Part,
    Sharding,
    Workload,
    cache_bytes_per_token,
    estimate,
    largest,
    peak,
)
from dasd.training.passes import trains_on_shared_prompts, worth_sharing
from dasd.training.run import method_and_contexts
from dasd.training.trainer import SelfDistillationConfig
from dasd.training.vllm import check_vllm_settings

PACKED = {"none": 0.0, "8bit": 1.0, "4bit": 0.52}  # bytes of a frozen weight, its share of the scales included
VLLM_WORKING = 2.0 * GIB  # assumed: vLLM's own activations, CUDA graphs and context


@dataclass(frozen=True)
class Hardware:
    """The GPUs a run is planned for, or this machine's CPUs."""

    device: Literal["gpu", "cpu"] = "gpu"
    gpu_memory: float | None = None  # GiB of one; None: that of this machine's, if it has one
    processes: int = 1
    sharding: Sharding = "none"
    prompt_length: int = 512  # tokens; the data is not read

    def __post_init__(self) -> None:
        if self.sharding not in get_args(Sharding):
            raise BadInput(f"--sharding must be one of {', '.join(get_args(Sharding))}, got {self.sharding!r}")
        if self.device not in ("gpu", "cpu"):
            raise BadInput(f"--device must be gpu or cpu, got {self.device!r}")
        if self.device == "cpu" and (self.gpu_memory is not None or self.sharding != "none"):
            raise BadInput(
                "--device cpu plans for this machine's own memory, with a whole model on each process: leave out "
                + ("--sharding" if self.gpu_memory is None else "--gpu_memory")
            )
        for name in ("gpu_memory", "processes", "prompt_length"):
            if (value := getattr(self, name)) is not None and not 0 < value < math.inf:
                raise BadInput(f"--{name} must be a number above 0, got {value}")

    @property
    def unit(self) -> str:
        """What a process has to itself."""
        return "GPU" if self.device == "gpu" else "process"

    @property
    def units(self) -> str:
        several = "" if self.processes == 1 else "s" if self.device == "gpu" else "es"
        return f"{self.processes} {self.unit}{several}{'' if self.device == 'gpu' else ' on CPUs'}"

    @property
    def memory(self) -> float | None:
        """Bytes that one process has."""
        if self.device == "cpu":
            return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / self.processes
        if self.gpu_memory is not None:
            return self.gpu_memory * GIB
        return torch.cuda.get_device_properties(0).total_memory if torch.cuda.is_available() else None


@dataclass(frozen=True)
class Plan:
    """A run on some hardware, with each GPU's memory."""

    config: RunConfig
    hardware: Hardware
    arguments: SelfDistillationConfig
    sizes: ModelSizes
    work: Workload
    parts: list[Part]

    @property
    def needs(self) -> float:
        return peak(self.parts)

    @property
    def fits(self) -> bool | None:
        """None where no GPU is known."""
        usable = self.hardware.memory
        return None if usable is None else self.needs <= USABLE * usable and self.vllm_holds != 0

    @property
    def vllm_holds(self) -> int | None:
        """Rollouts of full length in colocated vLLM's cache, over the GPUs that share a model; None without it."""
        if self.work.vllm != "colocate":
            return None
        together = self.arguments.vllm_tensor_parallel_size
        free = together * (self.work.vllm_bytes - VLLM_WORKING) - 2 * self.sizes.parameters
        return max(0, int(free // (self.work.sequence * cache_bytes_per_token(self.sizes, 2))))


def dry_run(config: RunConfig, hardware: Hardware) -> dict[str, Any]:
    """Prints the plan and returns its figures; bytes are of one GPU, `exit_code` is 2 where it does not fit.

    Raises BadInput for whatever is wrong with the settings.
    """
    plan = make_plan(config, hardware)
    problems = _problems(config)
    if problems is not None and (few := too_few_problems(problems, plan.arguments, config.training)):
        raise BadInput(few)
    sizes, work = plan.sizes, plan.work
    trained = f"{sizes.trainable:,} trained" if sizes.lora else "all trained"
    console.print(f"{model_path(config.model)}: {sizes.parameters:,} parameters, {trained}", soft_wrap=True)
    console.print(
        f"{config.method.name}, teacher: {config.teacher.weights} weights, context {config.teacher.context}; "
        f"{config.training.rollouts_per_step} rollouts a step on {plan.hardware.units}, "
        f"{work.rollouts} generated at once and {work.micro_batch} learnt from at once on each",
        soft_wrap=True,
    )
    print_table(_table(plan))
    if problems is None:
        needed = plan.arguments.generation_batch_size // plan.arguments.num_generations
        console.print(f"{config.data.named} is not read here: it must give {needed} problems or more.", soft_wrap=True)
    for line in (*_notes(plan), *_verdict(plan)):
        console.print(line, soft_wrap=True)
    return {
        "model": model_path(config.model),
        "parameters": sizes.parameters,
        "trained": sizes.trainable,
        "parts": [asdict(part) for part in plan.parts],
        "needs_bytes": plan.needs,
        "has_bytes": hardware.memory,
        "fits": plan.fits,
        "exit_code": 2 if plan.fits is False else 0,
    }


def _problems(config: RunConfig) -> int | None:
    """How many problems there are, where that can be known without the hub."""
    if any(part.source != BUNDLED and not Path(part.source).exists() for part in config.data.parts):
        return None
    return len(load_problems(config.data))


def make_plan(config: RunConfig, hardware: Hardware) -> Plan:
    """Raises BadInput for settings that no run could start with."""
    method, _ = method_and_contexts(config)
    model = _empty_model(config)
    arguments = _arguments_elsewhere(config, hardware.processes, on_gpu=hardware.device == "gpu")
    if arguments.use_vllm:
        check_vllm_settings(arguments)
        if hardware.device == "cpu":
            raise BadInput("training.trl.use_vllm needs a GPU: leave it out, or leave out --device cpu")
    sizes = _sizes(model, config.model.quantization)
    teacher: Literal["none", "weights", "float32"] = _teacher_copy(model, config, hardware) if has_teacher(method) else "none"
    colocated = arguments.use_vllm and arguments.vllm_mode == "colocate"
    if colocated and hardware.memory is None:
        raise BadInput("vLLM takes a share of each GPU, and no GPU is here: say how large they are, e.g. --gpu_memory 80")
    accumulation, per_generation = arguments.gradient_accumulation_steps, arguments.steps_per_generation
    rollouts = arguments.per_device_train_batch_size * per_generation
    micro_batch, groups = arguments.per_device_train_batch_size, max(1, rollouts // arguments.num_generations)
    prompt, completion = hardware.prompt_length, arguments.max_completion_length
    different = min(micro_batch, groups)  # rollouts are shuffled
    shares = trains_on_shared_prompts(without_adapter(model), arguments, hardware.sharding != "none") and worth_sharing(
        micro_batch, different, prompt, completion, prompt + completion
    )
    work = Workload(
        micro_batch=micro_batch,
        rollouts=rollouts,
        prompt=prompt,
        completion=completion,
        processes=hardware.processes,
        sharding=hardware.sharding,
        device=hardware.device,
        prompts=None if arguments.sampler == "trl" or hardware.sharding in ("fsdp2", "zero3") else groups,
        lays_out=hardware.device == "cpu" and arguments.sampler != "trl" and sizes.weight_bytes == 2 and not sizes.packed_bytes,
        different=different if shares else None,
        bf16=arguments.bf16,
        checkpointing=arguments.gradient_checkpointing,
        accumulates=accumulation > 1 and not _reduces_each_batch(arguments),
        generations_per_step=-(-accumulation // per_generation),
        optimizer=str(getattr(arguments.optim, "value", arguments.optim)),
        teacher_copy=teacher,
        looks_ahead="evidence" in method.needs,
        compares_distributions="teacher_distribution" in method.needs,
        reference=arguments.beta != 0.0 and not sizes.lora,
        vllm=arguments.vllm_mode if arguments.use_vllm else "none",
        vllm_bytes=arguments.vllm_gpu_memory_utilization * (hardware.memory or 0.0) if colocated else 0.0,
        vllm_sleeps=arguments.vllm_enable_sleep_mode,
    )
    try:
        parts = estimate(sizes, work)
        if work.lays_out and hardware.memory is not None and peak(parts) > hardware.memory:  # as sampling does without, then
            parts = estimate(sizes, work := replace(work, lays_out=False))
        return Plan(config, hardware, arguments, sizes, work, parts)
    except ValueError as error:
        raise BadInput(str(error)) from None


def _arguments_elsewhere(config: RunConfig, processes: int, on_gpu: bool) -> SelfDistillationConfig:
    """TRL's arguments as each of so many processes would have them, on a GPU or not."""

    class Elsewhere(SelfDistillationConfig):
        world_size = processes

    return trainer_arguments(config, Elsewhere, processes, on_gpu)


def _empty_model(config: RunConfig) -> Any:
    """The model to train on the meta device, with its adapter."""
    settings, dtype = load_model_config(config.model), dtype_of(config.model)
    try:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(settings, dtype=dtype, trust_remote_code=config.model.trust_remote_code)
            lora = adapter(config, model)
            return model if lora is None else get_peft_model(model, lora)
    except (ValueError, TypeError) as error:
        raise BadInput(f"model.path {model_path(config.model)} cannot be built: {' '.join(str(error).split())[:300]}") from None


def _sizes(model: Any, quantization: str) -> ModelSizes:
    config = model.config.get_text_config()
    names = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "vocab_size")
    missing = [name for name in names if not isinstance(getattr(config, name, None), int)]
    experts = [name for name in ("num_experts", "num_local_experts", "n_routed_experts") if getattr(config, name, None)]
    if missing or experts:
        reason = f"its config has no {missing[0]}" if missing else f"it has experts ({experts[0]})"
        raise BadInput(f"memory is estimated for dense decoders only, and of {config.model_type} {reason}")
    heads = config.num_attention_heads
    head_size = getattr(config, "head_dim", None) or config.hidden_size // heads
    weights = [(p.numel(), p.requires_grad, p.element_size()) for p in model.parameters()]
    trainable = sum(count for count, trained, _ in weights if trained)
    total = sum(count for count, _, _ in weights)
    return ModelSizes(
        parameters=total,
        trainable=trainable,
        layers=config.num_hidden_layers,
        hidden=config.hidden_size,
        query=heads * head_size,
        key_value=(getattr(config, "num_key_value_heads", None) or heads) * head_size,
        intermediate=config.intermediate_size,
        vocab=config.vocab_size,
        weight_bytes=max(size for _, trained, size in weights if not trained or trainable == total),
        head_norms=any(name.endswith("q_norm.weight") for name, _ in model.named_parameters()),
        packed_bytes=PACKED[quantization],
    )


def _teacher_copy(model: Any, config: RunConfig, hardware: Hardware) -> Literal["none", "weights", "float32"]:
    """What kind of copy the teacher keeps; the trainer's own check speaks for what it refuses."""
    kind = config.teacher.weights
    try:
        keeps = TeacherWeights(model, kind, config.teacher.ema_rate, config.teacher.sync_steps).keeps_copy
        if hardware.sharding == "zero3":
            refuse_sharded_copy(kind)
    except ValueError as error:
        raise BadInput(str(error)) from None
    return "none" if not keeps else "float32" if kind == "ema" else "weights"


def _reduces_each_batch(arguments: SelfDistillationConfig) -> bool:
    settings = getattr(arguments.accelerator_config, "gradient_accumulation_kwargs", None) or {}
    return bool(settings.get("sync_each_batch"))


def _table(plan: Plan) -> Table:
    table = Table(title=f"GiB on each {plan.hardware.unit}")
    for heading in ("part", "generate", "update", "from"):
        table.add_column(heading, justify="right" if heading in ("generate", "update") else "left", overflow="fold")
    for part in plan.parts:
        table.add_row(part.name, _gib(part.generate), _gib(part.update), part.how, end_section=part is plan.parts[-1])
    sums = (sum(part.generate for part in plan.parts), sum(part.update for part in plan.parts))
    table.add_row("sum", *map(_gib, sums), "the larger one counts", style="bold")
    return table


def _gib(size: float) -> str:
    return f"{size / GIB:.1f}" if size else ""


def _notes(plan: Plan) -> Iterator[str]:
    yield f"Prompts are taken as {plan.work.prompt} tokens (--prompt_length), completions as long as they may get."
    if plan.hardware.device == "cpu":
        yield (
            "That is what tensors take. With completions of thousands of tokens glibc held up to 1.8 times as much; with "
            "MALLOC_MMAP_THRESHOLD_=1048576 MALLOC_TRIM_THRESHOLD_=1048576 in the environment it gives back, a seventh slower."
        )
    if plan.vllm_holds is not None:
        yield f"vLLM's cache holds {plan.vllm_holds} rollouts of full length at once; the others wait."
    if plan.sizes.weight_bytes == 2 and not plan.sizes.lora and plan.work.sharding == "none":
        yield (
            "Weights are trained in bfloat16, where steps of a learning rate like 1e-6 are mostly rounded away: "
            "--model.dtype float32 trains them in float32 and still computes in bfloat16."
        )


def _verdict(plan: Plan) -> Iterator[str]:
    needed, gpu = plan.needs / GIB, plan.hardware.memory
    if gpu is None:
        yield f"Needs {needed:.1f} GiB. --gpu_memory GIB says whether that fits."
    elif plan.fits:
        yield f"Fits: {needed:.1f} of {gpu / GIB:.0f} GiB."
    elif plan.vllm_holds == 0:
        yield (
            f"Does not fit: vLLM's {plan.work.vllm_bytes / GIB:.1f} GiB do not hold the weights and one rollout; raise "
            "training.trl.vllm_gpu_memory_utilization or vllm_tensor_parallel_size."
        )
    else:
        part = largest(plan.parts)
        yield f"Does not fit: {needed:.1f} GiB, and of {gpu / GIB:.0f} GiB {USABLE:.0%} can be used. Largest: {part.name}."
        tried = list(_changes(plan))
        fitting = {words.partition(" ")[0]: (words, changed) for words, changed in tried if changed.fits}  # the mildest
        yield "Any of these would fit:" if fitting else "None of these is enough alone:"
        for words, changed in fitting.values() if fitting else tried:
            yield f"  {words}  ->  {changed.needs / GIB:.1f} GiB"


def _changes(plan: Plan) -> Iterator[tuple[str, Plan]]:
    """Single changes that need less, as they are typed, with the plan they make; of one setting the mildest comes last."""
    hardware = plan.hardware
    for words in _settings_that_need_less(plan):
        with suppress(BadInput):  # one that contradicts another setting is no remedy
            changed = make_plan(make_config(RunConfig, plan.config.model_dump(), words), hardware)
            if changed.needs < plan.needs:
                yield " ".join(words), changed
    if hardware.device == "gpu" and hardware.sharding == "none":
        wider = replace(hardware, processes=max(8, hardware.processes), sharding="fsdp2")
        with suppress(BadInput):
            yield f"--sharding fsdp2 --processes {wider.processes}", make_plan(plan.config, wider)


def _settings_that_need_less(plan: Plan) -> Iterator[list[str]]:
    work, training = plan.work, plan.config.training
    if not work.checkpointing:
        yield ["--training.trl.gradient_checkpointing", "true"]
    for size in sorted({training.micro_batch_size // 2, 1} - {0, training.micro_batch_size}):
        yield ["--training.micro_batch_size", str(size)]
    yield ["--training.max_completion_length", str(training.max_completion_length // 2)]
    if training.lora_rank == 0:
        yield ["--training.lora_rank", "32"]
    if plan.config.teacher.weights in KEEPS_COPY:
        yield ["--teacher.weights", "live"]
    if work.vllm == "none":
        for steps in range(1, plan.arguments.gradient_accumulation_steps):
            if plan.arguments.gradient_accumulation_steps % steps == 0:
                yield ["--training.trl.steps_per_generation", str(steps)]
        yield ["--training.trl.use_vllm", "true", "--training.trl.vllm_enable_sleep_mode", "true"]
    elif work.vllm == "colocate":
        yield ["--training.trl.vllm_enable_sleep_mode", "true"]
        yield ["--training.trl.vllm_gpu_memory_utilization", f"{plan.arguments.vllm_gpu_memory_utilization / 2:g}"]
