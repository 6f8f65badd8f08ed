"""From a config to a trained model: `checkpoints/`, `metrics.jsonl`, `config.yaml`, `run.json`.

A killed run goes on from its last complete checkpoint when the same command is given again; a finished one is left alone,
unless `training.steps` was raised: then it goes on, too.
What the trainer is told is in `arguments`, what it trains in `lora`, what it is rewarded for in `rewards`.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from datasets import Dataset

from dasd import processes
from dasd.adapters import is_adapter
from dasd.config import BadInput, RunConfig, RunFailed
from dasd.credit import Method, has_teacher, make_method
from dasd.data.mixture import describe, mixed
from dasd.data.problems import Finding, as_row, check_lengths, check_problems, load_problems, task_of
from dasd.files import read_json, repair_lines, write_json
from dasd.folders import CONFIG, claim, failure_on_file, sole_writer
from dasd.model_fit import context_length, end_tokens
from dasd.models import keep_generation_config, load_model, model_path
from dasd.progress import track
from dasd.prompts import tokenize_prompt
from dasd.tasks.base import Problem, Task
from dasd.teacher.context import PrivilegedContext, number_of_wrong_hints, wrong_hints
from dasd.trained import Trained, facts_of_run
from dasd.training.arguments import place_reporters, too_few_problems, trainer_arguments
from dasd.training.batches import whole_batches
from dasd.training.callbacks import Done, MetricsWriter, ReportWriter, SignsOfLife, StopWhenDone
from dasd.training.cards import CardWriter, write_run_card
from dasd.training.checkpoints import is_complete, last_checkpoint, saving, step_of, telling_where_it_stands
from dasd.training.lora import adapter
from dasd.training.provenance import provenance
from dasd.training.rewards import rewards
from dasd.training.silence import has_no_reward
from dasd.training.trainer import SelfDistillationTrainer
from dasd.training.validation import Validation
from dasd.training.vllm import check_vllm

logger = logging.getLogger("dasd")
METRICS, RESULT = "metrics.jsonl", "result.json"


@dataclass(frozen=True)
class Result:
    """What a run came to, as `result.json` keeps it.

    steps            optimisation steps behind the final model
    weights_changed  whether any of its weights differs from the base's; None where that is not known (sharded weights)
    """

    model: str
    steps: int
    weights_changed: bool | None
    ended: str

    @classmethod
    def read(cls, output: Path) -> Result | None:
        """Of the run in this folder; None where it has not ended."""
        try:
            return cls(**json.loads((output / RESULT).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return None


def train(config: RunConfig) -> Path:
    """Trains, or goes on training, with a progress bar, and returns the folder of the final model.

    Raises BadInput before anything is written, for whatever is wrong with config, model or data; RunFailed where fewer steps
    were made than asked for.
    """
    output = Path(config.output)
    final = output / "checkpoints" / "final"
    with ExitStack() as held:
        alone = partial(sole_writer, output / CONFIG, "wait for it, or give another --output")
        known = output.is_dir()  # a new folder is made when all is checked
        if known and processes.is_main():
            held.enter_context(alone())
        claim(output, config, write=False, may_grow=True)
        if is_complete(final) and (ended := Result.read(output)) and ended.steps >= config.training.steps:
            logger.warning(
                "%s is finished: all %d steps are made. Raise training.steps to go on from there, or give another --output.",
                output, ended.steps,
            )  # fmt: skip
            return final
        model, tokenizer, problems, task = prepare(config)
        trainer = build_trainer(config, model, tokenizer, problems, task)
        if not known and processes.is_main():
            held.enter_context(alone())
        if processes.is_main():
            held.enter_context(failure_on_file(output))
        with telling_where_it_stands(output / "checkpoints", config.training.save_steps):
            steps = _optimise(config, trainer, tokenizer, problems)
        if processes.is_main():
            shutil.rmtree(final, ignore_errors=True)  # of fewer steps; the checkpoint that this went on from has its weights
        with saving(final):
            trainer.save_model(str(final))
        changed = trainer.weights_changed
        if processes.is_main():
            _facts(config, problems).write(final)
            if config.training.lora_rank == 0:
                keep_generation_config(config.model, final)
            now = datetime.now(UTC).isoformat(timespec="seconds")
            write_json(output / RESULT, asdict(Result(model_path(config.model), steps, changed, now)))
            write_run_card(final, config, trainer.method)
    return final


def _optimise(config: RunConfig, trainer: SelfDistillationTrainer, tokenizer: Any, problems: Sequence[Problem]) -> int:
    """Makes the steps that are left, and returns how many there are now."""
    output, checkpoint = Path(config.output), None
    if processes.is_main():
        claim(output, config, may_grow=True)
        if not (output / "run.json").exists():
            record = provenance(config, tokenizer, trainer.accelerator.distributed_type.value)
            write_json(output / "run.json", record | {"data": describe(problems, config.data)})
        _facts(config, problems).write(output)
        if (checkpoint := last_checkpoint(output / "checkpoints")) is not None:
            _warn_of_other_processes(output / "run.json")
    (checkpoint,) = broadcast_object_list([checkpoint])  # one view of the folder for all
    place_reporters(config)
    done = step_of(checkpoint) if checkpoint else 0
    if done:
        _tell_how_it_goes_on(config, trainer, done, checkpoint)
    if processes.is_main():
        repair_lines(output / METRICS, keep=lambda record: record["step"] <= done)
    with track(f"Training with {config.method.name}", config.training.steps, each=True, before=done) as advance:
        trainer.add_callback(MetricsWriter(output / METRICS, advance))
        if config.training.report_steps:
            trainer.add_callback(ReportWriter(output, config.training.report_steps))
        trainer.add_callback(CardWriter(config, trainer.method))
        trainer.add_callback(SignsOfLife(trainer, advance))
        trainer.add_callback(StopWhenDone())
        with suppress(Done):
            trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    steps = [logs for logs in trainer.state.log_history if "reward" in logs]
    if steps and all(map(has_no_reward, steps)):
        raise RunFailed(
            "no completion of the whole run had a reward: verifier and rewards failed on all of them, or could not decide, and "
            f"no final model was written; `dasd doctor {output / CONFIG}` tries them. Mend them, and give another --output, or "
            "delete this one", goes_on=False,
        )  # fmt: skip
    if (made := trainer.state.global_step) < config.training.steps:
        raise RunFailed(f"training ended after {made} of {config.training.steps} steps, and no final model was written")
    return made


def _facts(config: RunConfig, problems: Sequence[Problem]) -> Trained:
    return facts_of_run(config, [problem.digest for problem in problems])


def prepare(config: RunConfig) -> tuple[Any, Any, list[Problem], Task]:
    """Model, tokenizer, problems and task, all checked; warnings are logged. Raises BadInput."""
    if is_adapter(Path(config.model.path)):
        raise BadInput(
            f"model.path {config.model.path} is a LoRA adapter: make it a plain model first, with "
            f"`dasd merge {config.model.path} --output FOLDER`, and train that"
        )
    method, contexts = method_and_contexts(config)
    arguments = trainer_arguments(config)
    check_vllm(arguments)
    problems, task = load_problems(config.data), task_of(config.data)
    column = contexts[0].column if contexts and not contexts[0].needs_peers else None
    findings = check_problems(problems, task, column)
    if few := too_few_problems(len(problems), arguments, config.training):
        findings.append(Finding(few, fatal=True))
    rows = [as_row(problem) for problem in problems]
    for kind in contexts:
        if not any(finding.fatal for finding in findings) and not any(kind.prompt(row, ["a peer"], rows) for row in rows):
            message = f"no problem gets a teacher: context {kind.kind} finds nothing in these {len(rows)} problems"
            findings.append(Finding(message, fatal=True))
    _refuse_fatal(findings)
    model, tokenizer = load_model(config.model)
    template = config.model.chat_template_kwargs
    teacher_template = template | config.teacher.chat_template_kwargs

    def longest_prompt(problem: Problem) -> int:
        row = as_row(problem)
        lengths = [len(tokenize_prompt(tokenizer, row["prompt"], **template))]
        for kind, choice in product(contexts, range(number_of_wrong_hints(method))):
            if (told := kind.prompt(row, ["a peer"], rows, choice)) is not None:
                peer = config.training.max_completion_length if kind.context(row, ["a peer"], rows, choice) == "a peer" else 0
                lengths.append(len(tokenize_prompt(tokenizer, told, **teacher_template)) + peer)
            if (alone := kind.prompt(row, (), rows, choice)) is not None:
                lengths.append(len(tokenize_prompt(tokenizer, alone, **teacher_template)))
        return max(lengths)

    limit = context_length(model.config)
    findings += check_lengths(problems, longest_prompt, config.training.max_completion_length, limit)
    _refuse_fatal(findings)
    for finding in findings:
        logger.warning("%s", finding.message)
    return model, tokenizer, problems, task


def _refuse_fatal(findings: Sequence[Finding]) -> None:
    if fatal := [finding.message for finding in findings if finding.fatal]:
        raise BadInput("\n".join(fatal))


def method_and_contexts(config: RunConfig) -> tuple[Method, list[PrivilegedContext]]:
    """The method, and what its teachers see: the context, and a wrong one where the method contrasts them. Raises BadInput."""
    try:
        method = make_method(config.method.name, config.method.settings)
        context = privileged_context(config)
        contexts = [context] if has_teacher(method) else []
        contexts += [wrong] if (wrong := wrong_hints(context, method)) is not None else []
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
            model, rewards(task, config, end_tokens(model.generation_config, tokenizer)), trainer_arguments(config),
            train_dataset=as_dataset(mixed(problems, config.data)), processing_class=tokenizer,
            peft_config=adapter(config, model),
        )  # fmt: skip
        trainer.get_optimizer_cls_and_kwargs(trainer.args, trainer.model)  # may want a package that is not there
    except (ValueError, ImportError, NotImplementedError) as error:
        for path in new:
            with suppress(OSError):
                path.rmdir()
        raise BadInput(" ".join(str(error).split())) from None
    if config.training.eval_steps:
        trainer.add_callback(Validation(config, trainer))
    return trainer


def privileged_context(config: RunConfig) -> PrivilegedContext:
    return PrivilegedContext(config.teacher.context, config.teacher.template, config.teacher.fraction)


def as_dataset(problems: Sequence[Problem]) -> Dataset:
    return Dataset.from_list([as_row(problem) for problem in problems])


def _tell_how_it_goes_on(config: RunConfig, trainer: SelfDistillationTrainer, done: int, checkpoint: Path) -> None:
    logger.info("Goes on from step %d of %d (%s).", done, config.training.steps, checkpoint)
    ended, args = Result.read(Path(config.output)), trainer.args
    if ended is None or ended.steps >= config.training.steps:
        return
    if not args.lr_scheduler_type.value.startswith("constant"):
        logger.warning(
            "training.steps was raised from %d: the learning rate is now that of %s over all %d steps, and not where it was.",
            ended.steps, args.lr_scheduler_type.value, config.training.steps,
        )  # fmt: skip
    if done % whole_batches(args):
        logger.warning("The rollouts of step %d were not used up: this goes on with fresh ones.", done)


def _warn_of_other_processes(record: Path) -> None:
    before, now = read_json(record).get("processes", 1), processes.count()
    if before != now:
        logger.warning(
            "This run was started on %d processes and goes on with %d: same problems, other random numbers where TRL or vLLM "
            "samples.", before, now,
        )  # fmt: skip
