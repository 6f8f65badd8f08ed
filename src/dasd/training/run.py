"""From a config to a trained model: `checkpoints/`, `metrics.jsonl`, `config.yaml`, `run.json`.

A killed run goes on from its last complete checkpoint when the same command is given again; a finished one is left alone.
"""

from __future__ import annotations

import json
import logging
import platform
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import fields
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from datasets import Dataset
from peft import LoraConfig
from transformers import PrinterCallback, TrainerCallback
from trl import GRPOConfig
from trl.rewards import get_soft_overlong_punishment

from dasd import processes
from dasd.adapters import is_adapter
from dasd.config import BadInput, RunConfig, nearest
from dasd.credit import Method, make_method
from dasd.data.problems import Finding, as_row, check_lengths, check_problems, load_problems
from dasd.files import append_lines, repair_lines, write_json
from dasd.folders import claim
from dasd.models import load_model, model_path
from dasd.progress import Advance, track
from dasd.tasks import make_task
from dasd.tasks.base import GradeStatus, Problem, Task
from dasd.teacher.context import PrivilegedContext, tokenize_prompt
from dasd.training.checkpoints import is_complete, last_checkpoint, saving
from dasd.training.trainer import SelfDistillationConfig, SelfDistillationTrainer
from dasd.training.vllm import check_vllm

logger = logging.getLogger("dasd")
METRICS = "metrics.jsonl"


def train(config: RunConfig) -> Path:
    """Trains, or goes on training, with a progress bar, and returns the folder of the final model.

    Raises BadInput before anything is written, for whatever is wrong with config, model or data.
    """
    output = Path(config.output)
    final = output / "checkpoints" / "final"
    claim(output, config, write=False)
    if is_complete(final):
        return final
    model, tokenizer, problems, task = prepare(config)
    trainer = build_trainer(config, model, tokenizer, problems, task)
    checkpoint = None
    if processes.is_main():
        claim(output, config)
        if not (output / "run.json").exists():
            distribution = {"processes": processes.count(), "distributed": trainer.accelerator.distributed_type.value}
            write_json(output / "run.json", provenance(config, tokenizer) | distribution)
        if (checkpoint := last_checkpoint(output / "checkpoints")) is not None:
            _warn_of_other_processes(output / "run.json")
    (checkpoint,) = broadcast_object_list([checkpoint])  # one view of the folder for all
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if processes.is_main():
        repair_lines(output / METRICS, keep=lambda record: record["step"] <= done)
    with track(f"Training with {config.method.name}", config.training.steps) as advance:
        advance(done)
        trainer.add_callback(_MetricsWriter(output / METRICS, advance))
        trainer.add_callback(_StopWhenDone())
        with suppress(_Done):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    with saving(final):
        trainer.save_model(str(final))
    return final


def prepare(config: RunConfig) -> tuple[Any, Any, list[Problem], Task]:
    """Model, tokenizer, problems and task, all checked; warnings are logged. Raises BadInput."""
    _, contexts = method_and_contexts(config)
    check_vllm(trainer_arguments(config))
    problems, task = load_problems(config.data), make_task(config.data.task)
    column = contexts[0].column if contexts and not contexts[0].needs_peers else None
    findings = check_problems(problems, task, column)
    rows = [as_row(problem) for problem in problems]
    for kind in contexts:
        if not any(finding.fatal for finding in findings) and not any(kind.prompt(row, ["a peer"], rows) for row in rows):
            message = f"no problem gets a teacher: context {kind.kind} finds nothing in these {len(rows)} problems"
            findings.append(Finding(message, fatal=True))
    if is_adapter(Path(config.model.path)):
        raise BadInput(
            f"model.path {config.model.path} is a LoRA adapter: make it a plain model first, with "
            f"`dasd merge {config.model.path} --output FOLDER`, and train that"
        )
    model, tokenizer = load_model(config.model)
    template = dict(config.training.trl.get("chat_template_kwargs") or {})
    teacher_template = template | config.teacher.chat_template_kwargs

    def longest_prompt(problem: Problem) -> int:
        row = as_row(problem)
        lengths = [len(tokenize_prompt(tokenizer, row["prompt"], **template))]
        for kind in contexts:
            if (told := kind.prompt(row, ["a peer"], rows)) is not None:
                peer = config.training.max_completion_length if kind.needs_peers and kind.context(row) is None else 0
                lengths.append(len(tokenize_prompt(tokenizer, told, **teacher_template)) + peer)
        return max(lengths)

    limit = getattr(model.config, "max_position_embeddings", None)
    findings += check_lengths(problems, longest_prompt, config.training.max_completion_length, limit)
    fatal = [finding.message for finding in findings if finding.fatal]
    if fatal:
        raise BadInput("\n".join(fatal))
    for finding in findings:
        logger.warning("%s", finding.message)
    return model, tokenizer, problems, task


def method_and_contexts(config: RunConfig) -> tuple[Method, list[PrivilegedContext]]:
    """The method, and what its teachers see: the context, and a wrong one where the method contrasts them. Raises BadInput."""
    try:
        method = make_method(config.method.name, config.method.settings)
        context = privileged_context(config)
        contexts = [context] if "teacher_logps" in method.needs else []
        contexts += [context.wrong()] if "contrast_logps" in method.needs else []
    except (ValueError, TypeError) as error:
        raise BadInput(str(error)) from None
    return method, contexts


def build_trainer(
    config: RunConfig, model: Any, tokenizer: Any, problems: Sequence[Problem], task: Task
) -> SelfDistillationTrainer:
    """The trainer, with its output folder. Raises BadInput for settings that contradict, and leaves no folder then."""
    folder = Path(config.output) / "checkpoints"
    new = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        trainer = SelfDistillationTrainer(
            model, rewards(task, config), trainer_arguments(config),
            train_dataset=as_dataset(problems), processing_class=tokenizer, peft_config=adapter(config, model),
        )  # fmt: skip
    except ValueError as error:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise BadInput(str(error)) from None
    trainer.remove_callback(PrinterCallback)  # it prints every metric of every step
    return trainer


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


def privileged_context(config: RunConfig) -> PrivilegedContext:
    return PrivilegedContext(config.teacher.context, config.teacher.template, config.teacher.fraction)


def as_dataset(problems: Sequence[Problem]) -> Dataset:
    return Dataset.from_list([as_row(problem) for problem in problems])


def make_reward(task: Task) -> Callable[..., list[float | None]]:
    """A TRL reward: 1 for a right completion, 0 for a wrong one, None (left out of the group) where the grader failed."""

    def correct(
        completions: list, id: list[str], problem: list[str], answer: list[str], solution: Sequence[str | None] | None = None,
        **_: Any,
    ) -> list[float | None]:  # fmt: skip
        solutions = solution or [None] * len(completions)
        problems = [Problem(*columns) for columns in zip(id, problem, answer, solutions, strict=True)]
        texts = [completion[0]["content"] for completion in completions]
        grades = task.grade_all(list(zip(problems, texts, strict=True)))
        return [None if grade.status is GradeStatus.GRADER_ERROR else float(grade.correct) for grade in grades]

    return correct


def rewards(task: Task, config: RunConfig) -> list[Callable[..., list[float | None]]]:
    """The verifier, and where asked for DAPO's penalty on what is nearly too long."""
    length = config.training.max_completion_length
    buffer = round(config.training.overlong_buffer * length)
    return [make_reward(task), *([get_soft_overlong_punishment(length, buffer)] if buffer else [])]


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
    ours: dict[str, Any] = {
        "output_dir": str(Path(config.output) / "checkpoints"),
        "method": config.method.name,
        "method_settings": config.method.settings,
        "context": config.teacher.context,
        "context_template": config.teacher.template,
        "context_fraction": config.teacher.fraction,
        "teacher_chat_template_kwargs": config.teacher.chat_template_kwargs,
        "teacher_weights": config.teacher.weights,
        "teacher_ema_rate": config.teacher.ema_rate,
        "teacher_sync_steps": config.teacher.sync_steps,
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
    }
    defaults: dict[str, Any] = {
        "lr_scheduler_type": "constant_with_warmup",
        "use_cpu": not torch.accelerator.is_available(),  # else accelerate would not join several processes on CPUs
        "bf16": on_gpu,
        "ddp_find_unused_parameters": False,  # every parameter of a language model takes part in every pass
        "logging_steps": 1,
        "save_total_limit": 2,
        "report_to": [],
        "disable_tqdm": True,
        "gradient_checkpointing": on_gpu,
    }
    known = [f.name for f in fields(GRPOConfig)]
    for key in training.trl:
        if key in ours:
            raise BadInput(f"training.trl.{key} is set by dasd itself: use its own key (dasd train --help lists them)")
        if key not in known:
            raise BadInput(f"unknown key 'training.trl.{key}'{nearest(key, known)} It must be a field of trl.GRPOConfig")
    try:
        arguments = kind(**{**defaults, **ours, **training.trl})
    except (ValueError, TypeError) as error:
        raise BadInput(f"TRL refuses these settings: {error}") from None
    if arguments.world_size != count:
        raise BadInput(
            f"the launcher started {count} processes, and accelerate joins {arguments.world_size} of them: on CPUs "
            "set training.trl.use_cpu to true"
        )
    refuse_torn_batches(arguments)
    return arguments


def refuse_torn_batches(arguments: SelfDistillationConfig) -> None:
    """Rollouts are not part of a checkpoint: one in the middle of their use would go on with others. Raises BadInput."""
    batches = arguments.steps_per_generation / arguments.gradient_accumulation_steps * arguments.num_iterations
    if arguments.save_steps < arguments.max_steps and arguments.save_steps % batches:
        nearest = max(1, round(arguments.save_steps / batches)) * batches
        raise BadInput(
            f"training.save_steps ({arguments.save_steps}) must be a multiple of the steps that use one batch of rollouts "
            f"({batches:g}), or a killed run would not go on as it was: try training.save_steps: {nearest:g}"
        )


def _warn_of_other_processes(record: Path) -> None:
    before, now = json.loads(record.read_text(encoding="utf-8")).get("processes", 1), processes.count()
    if before != now:
        logger.warning(
            "This run was started on %d processes and goes on with %d: same problems, other random numbers.", before, now
        )


def provenance(config: RunConfig, tokenizer: Any) -> dict[str, Any]:
    """What a reader needs to make the run again."""
    import hashlib

    packages = ("dasd", "torch", "trl", "transformers", "accelerate", "datasets", "numpy")
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else platform.processor() or platform.machine()
    return {
        "command": " ".join(["dasd", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "seed": config.training.seed,
        "model": model_path(config.model),
        "model_revision": config.model.revision,
        "dataset": config.data.source,
        "chat_template_sha256": hashlib.sha256((tokenizer.chat_template or "").encode()).hexdigest()[:16],
        "hardware": f"{device}, {torch.get_num_threads()} threads",
        "python": platform.python_version(),
        "versions": {name: version(name) for name in packages},
        "git_revision": _git_revision(),
    }


def _git_revision() -> str | None:
    """Revision of dasd's own source tree; None for an installed package."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip() or None
    except (OSError, subprocess.SubprocessError):
        return None


class _MetricsWriter(TrainerCallback):
    """One line a step, and the progress bar moved."""

    def __init__(self, path: Path, advance: Advance) -> None:
        self.path, self.advance = path, advance

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not state.is_world_process_zero or not logs or "loss" not in logs:
            return
        metrics = {"step": state.global_step, **{key: value for key, value in logs.items() if key != "epoch"}}
        append_lines(self.path, [metrics])
        self.advance(1, f"reward {metrics.get('reward') or 0:.2f}")


class _Done(Exception):
    """Nothing is left to train: the run was killed between its last checkpoint and its final model."""


class _StopWhenDone(TrainerCallback):
    """transformers looks at the number of steps after a step only, and would make one too many. Weights are loaded by now."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step >= state.max_steps:
            raise _Done
