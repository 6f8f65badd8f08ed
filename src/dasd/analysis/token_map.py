"""Which rollouts does the token map show, and where do its model, method and teacher come from?

`dasd tokens` samples a group of rollouts for a few problems, grades them as training would, and has each token read by student,
teacher and method (`token_credit`). What is written is what `dasd.report` draws.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import torch

from dasd.analysis.attention import refuse_hidden_attention
from dasd.analysis.token_credit import TokenReader, group_advantages
from dasd.config import BUNDLED, BadInput, ModelConfig, RunConfig, TokensConfig, load_config, make_config
from dasd.credit import Method, at_step, has_teacher, make_method
from dasd.data.problems import as_row, load_problems, task_of
from dasd.evaluation.runner import completion_seed
from dasd.evaluation.samplers.base import Request, SamplingParams
from dasd.evaluation.samplers.transformers import TransformersSampler
from dasd.files import read_json
from dasd.models import load_model
from dasd.progress import track
from dasd.prompts import tokenize_prompt
from dasd.tasks.base import GradeStatus, Problem, grade_completions
from dasd.teacher.context import PrivilegedContext, number_of_wrong_hints, wrong_hints

Checkpoint = Literal["base", "final"]
Record = dict[str, Any]
MOST_OTHERS = 64  # problems at hand to take another problem's context from


def config_of_run(run: Path, checkpoint: Checkpoint | None, overrides: list[str]) -> tuple[TokensConfig, ModelConfig]:
    """What to read of a run, and its base model. Without `checkpoint` the final model is taken where there is one. Scheduled
    settings are those of the step at which the model was made.

    Bundled problems are those of the validation split, which no training sees; other data are the run's own. Raises BadInput.
    """
    config = load_config(RunConfig, run / "config.yaml")
    final = run / "checkpoints" / "final"
    if checkpoint == "final" and not final.is_dir():
        raise BadInput(f"{run} has no checkpoints/final: the run has not ended; give --checkpoint base")
    model, step = config.model.model_dump(), 0
    if checkpoint != "base" and final.is_dir():
        model |= {"path": str(final), "revision": None}
        step = (read_json(run / "result.json") or {}).get("steps", config.training.steps)
    data, training = config.data.model_dump(), config.training
    data |= {"split": "validation" if data["source"] == BUNDLED and not data["sources"] else data["split"]}
    data |= {"limit": min(data["limit"] or MOST_OTHERS, MOST_OTHERS)}
    values = {
        "model": model,
        "data": data,
        "teacher": config.teacher.model_dump(),
        "method": {"name": config.method.name, **config.method.settings},
        "scale_advantages": training.trl.get("scale_rewards", True) not in (False, "none"),
        "temperature": training.temperature,
        "max_completion_length": training.max_completion_length,
        "step": step,
    }
    return make_config(TokensConfig, values, overrides), config.model


def read_tokens(config: TokensConfig, base: ModelConfig | None = None) -> Record:
    """Samples, grades and reads, with a progress bar; returns what `rollouts.json` holds.

    base  the model before training: a frozen teacher's weights; None: `config.model` itself. An averaged or synced teacher
          is read with the student's weights.

    Raises BadInput.
    """
    method, context = _method_and_context(config)
    if "evidence" in method.needs:
        raise BadInput(
            f"method {config.method.name} finds its direction while it trains, and no map can show it afterwards: read the "
            "rollouts as another method sees them, e.g. --method.name dasd"
        )
    problems, task = load_problems(config.data), task_of(config.data)
    model, tokenizer = load_model(config.model)
    if "attention_entropies" in method.needs:
        try:
            refuse_hidden_attention(model)
        except ValueError as error:
            raise BadInput(str(error)) from None
    frozen = config.teacher.weights == "frozen" and base is not None and base != config.model
    teacher = load_model(base)[0] if frozen and base is not None else None
    device = "cuda" if torch.cuda.is_available() else "cpu"
    reader = TokenReader(
        model.to(device), tokenizer, method, context, problems, config.temperature,
        teacher.to(device) if teacher else None, config.model.chat_template_kwargs, config.teacher.chat_template_kwargs,
        config.step,
    )  # fmt: skip
    sampler = TransformersSampler(model, tokenizer, config.batch_size, config.model.chat_template_kwargs)
    shown = problems[: config.problems]
    params = SamplingParams(_room(config, method, context, problems, sampler), config.temperature)
    with track("Reading rollouts", len(shown) * config.rollouts) as advance:
        for problem in shown:
            samples = _sample(sampler, problem, config, params)
            cut_off = [sample.finish_reason == "length" for sample in samples]
            grades = grade_completions(task, [(problem, sample.text) for sample in samples], cut_off)
            rewards = [float(grade.status is GradeStatus.CORRECT) for grade in grades]
            advantages = group_advantages(rewards, config.scale_advantages)
            for sample, grade, advantage in zip(samples, grades, advantages, strict=True):
                others = [(s.text, g.status) for s, g in zip(samples, grades, strict=True) if s.text != sample.text]
                accepted = [text for text, status in others if status is GradeStatus.CORRECT]
                failed = [text for text, status in others if status in (GradeStatus.INCORRECT, GradeStatus.NO_ANSWER)]
                record = {"token_ids": sample.token_ids, "status": grade.status.value}
                reader.read(record, problem, advantage, accepted, failed, [each.token_ids for each in samples])
                advance()
    data = f"{config.data.task}, {config.data.split} split of {config.data.named}"
    made = datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC")
    facts = {"method": config.method.name, "model": config.model.path, "data": data, "made": made}
    return {**facts, **reader.document(_note(config, method, len(shown), frozen))}


def _method_and_context(config: TokensConfig) -> tuple[Method, PrivilegedContext]:
    teacher = config.teacher
    try:
        method = make_method(config.method.name, config.method.settings)
        context = PrivilegedContext(teacher.context, teacher.template, teacher.fraction)
        wrong_hints(context, method)  # refuses a context without counterpart before the model is loaded
        return method, context
    except (ValueError, TypeError) as error:
        raise BadInput(str(error)) from None


def _room(
    config: TokensConfig, method: Method, context: PrivilegedContext, problems: list[Problem], sampler: TransformersSampler
) -> int:
    """Tokens a completion may have, beside the longest prompt of student and teacher."""
    rows, wrong = [as_row(problem) for problem in problems], wrong_hints(context, method)
    contexts, shown = [context] if wrong is None else [context, wrong], rows[: config.problems]
    told = [
        prompt for row in shown for each in contexts for choice in range(number_of_wrong_hints(method))
        if (prompt := each.prompt(row, others=rows, choice=choice)) is not None
    ]  # fmt: skip
    template = config.model.chat_template_kwargs | config.teacher.chat_template_kwargs
    longest = max(len(tokenize_prompt(sampler.tokenizer, prompt, **template)) for prompt in told or [shown[0]["prompt"]])
    longest = max(longest, sampler.longest_prompt([row["prompt"] for row in shown]))
    if sampler.context_length is None:
        return config.max_completion_length
    told_peers = any(context.needs_peers for context in contexts)
    room = (sampler.context_length - longest) // (2 if told_peers else 1)  # a peer may be as long as its reader
    if room < 1:
        raise BadInput(
            f"the longest prompt has {longest} tokens, the model's context {sampler.context_length}: nothing can be written "
            "after it; take other problems with --data.source, or another teacher with --teacher.context"
        )
    return min(config.max_completion_length, room)


def _sample(sampler: TransformersSampler, problem: Problem, config: TokensConfig, params: SamplingParams) -> list[Any]:
    prompt = as_row(problem)["prompt"]
    seeds = [completion_seed(config.seed, "tokens", problem.id, sample) for sample in range(config.rollouts)]
    requests = [Request(f"{problem.id}/{sample}", prompt, seed) for sample, seed in enumerate(seeds)]
    size = sampler.batch_size
    return [each for i in range(0, len(requests), size) for each in sampler.sample(requests[i : i + size], params)]


def _note(config: TokensConfig, method: Method, problems: int, frozen: bool) -> str:
    """What was read, in a sentence or two."""
    settings = ", ".join(f"{name} {value}" for name, value in config.method.settings.items())
    weights = "the base model" if frozen else "the same weights"
    step = "" if at_step(method, config.step) is method else f", at step {config.step} of its schedule"
    of = f"{problems} problem{'' if problems == 1 else 's'}"
    note = (
        f"{config.rollouts * problems} rollouts, {config.rollouts} of each of {of} "
        f"({config.data.split} split of {config.data.named}), "
        f"sampled from {config.model.path} at temperature {config.temperature:g}, seed {config.seed}. "
        f"Credit as {config.method.name}{f' ({settings})' if settings else ''} gives it{step}."
    )
    if not has_teacher(method):
        return note
    note += f" The teacher is {weights} with context {config.teacher.context}."
    if config.teacher.weights in ("ema", "snapshot"):
        note += f" The run's own teacher has {config.teacher.weights} weights; here it has the student's, an approximation."
    return note
