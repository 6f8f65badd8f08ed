"""Is everything in order before a long run? Environment, config, model and data, one line each.

Exit code 0 if a run can start, 2 if not.
"""

from __future__ import annotations

import math
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from dasd.config import BadInput, RunConfig, RunFailed
from dasd.credit import has_teacher, make_method
from dasd.data.problems import JUNK, JUNK_TRIED, as_row
from dasd.folders import claim
from dasd.models import model_path
from dasd.progress import console, print_raw
from dasd.prompts import prompt_text
from dasd.tasks.base import Problem, Task
from dasd.training.own_rewards import OwnReward, tried
from dasd.training.run import build_trainer, prepare, privileged_context


def examine(config: RunConfig) -> int:
    """Prints what was found; returns the exit code."""
    _line("ok", f"Python {platform.python_version()}, torch {torch.__version__}, {torch.get_num_threads()} threads")
    _line(
        "ok" if torch.cuda.is_available() else "note",
        f"GPU: {torch.cuda.get_device_name()}"
        if torch.cuda.is_available()
        else "no GPU: fine for the bundled model, slow for others",
    )
    for package in ("trl", "transformers", "accelerate", "datasets", "peft", "math-verify"):
        _line("ok", f"{package} {version(package)}")
    for package in ("vllm", "trackio", "wandb"):
        try:
            _line("ok", f"{package} {version(package)}")
        except PackageNotFoundError:
            _line("note", f"{package} is not installed (optional: pip install {package})")
    try:
        claim(Path(config.output), config, write=False)
        model, tokenizer, problems, task = prepare(config)
        with TemporaryDirectory() as folder:
            build_trainer(config.model_copy(update={"output": folder}), model, tokenizer, problems, task)
    except BadInput as error:
        for message in str(error).splitlines():
            _line("fail", message)
        return 2
    try:
        some = problems[:JUNK_TRIED]
        gold, rows = [task.gold_completion(problem) for problem in some], [as_row(problem) for problem in some]
        for name in config.training.rewards:
            right, junk = tried(OwnReward(name), gold, [JUNK[1]] * len(some), rows)
            _line(*_of_reward(name, right, junk))
    except (BadInput, RunFailed) as error:
        _line("fail", str(error))
        return 2
    _line("ok", f"model {model_path(config.model)}: {model.num_parameters():,} parameters, vocabulary of {len(tokenizer)}")
    _line("ok", f"data {config.data.named}: {len(problems)} problems, gold answers grade as right")
    for role, text in _prompts(config, tokenizer, problems, task).items():
        console.print(f"\nwhat the {role} sees:", style="bold")
        print_raw(text)
    console.print("\nReady.", style="bold")
    return 0


def _prompts(config: RunConfig, tokenizer: Any, problems: Sequence[Problem], task: Task) -> dict[str, str]:
    """What student and teacher, where the method has one, read of the first problem that has a context."""
    rows, arguments = [as_row(problem) for problem in problems], config.model.chat_template_kwargs
    if not has_teacher(make_method(config.method.name, config.method.settings)):
        return {"student": prompt_text(tokenizer, rows[0]["prompt"], **arguments)}
    context = privileged_context(config)
    # A rollout that the verifier accepts is at hand only in training; the gold completion stands for it.
    told = (context.prompt(row, [task.gold_completion(problem)], rows) for row, problem in zip(rows, problems, strict=True))
    row, prompt = next((row, prompt) for row, prompt in zip(rows, told, strict=True) if prompt is not None)
    return {
        "student": prompt_text(tokenizer, row["prompt"], **arguments),
        "teacher": prompt_text(tokenizer, prompt, **arguments | config.teacher.chat_template_kwargs),
    }


def _of_reward(name: str, right: float, junk: float) -> tuple[str, str]:
    """Status and line of a reward that was tried; NaN where it is None for all."""
    if math.isnan(right) and math.isnan(junk):
        return "note", f"reward {name}: None on all right completions and all junk: does it ever apply?"
    told = f"reward {name}: {right:.3g} on right completions, {junk:.3g} on junk"
    return ("ok", told) if right > junk or math.isnan(right - junk) else ("note", f"{told}: it does not tell them apart")


def _line(status: str, message: str) -> None:
    color = {"ok": "green", "note": "yellow", "fail": "red"}[status]
    console.print(f"{status:>4}  ", style=color, end="")
    console.print(message, soft_wrap=True)
