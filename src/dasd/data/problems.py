"""Where do the problems come from, and are they fit to be used?

Bundled Countdown, a hub dataset, or local files; columns are mapped by config. Everything a user can get wrong here is found
before anything is trained or sampled.
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dasd.config import BUNDLED, BadInput, DataConfig, nearest
from dasd.tasks.base import GradeStatus, Problem, ReadsAnswers, Task
from dasd.tasks.countdown import SPLIT_SHARES, make_problems

READERS = {".jsonl": "json", ".json": "json", ".parquet": "parquet", ".csv": "csv"}


def load_problems(config: DataConfig) -> list[Problem]:
    """The problems of a config, in the dataset's order. Raises BadInput."""
    if config.source == BUNDLED:
        if config.task != "countdown":
            raise BadInput(f"data.source 'bundled' has Countdown problems only, got data.task: {config.task}")
        if config.split not in SPLIT_SHARES:
            splits = list(SPLIT_SHARES)
            raise BadInput(f"data.split {config.split!r} is not one of {', '.join(splits)}{nearest(config.split, splits)}")
        try:
            return make_problems(config.limit or config.count, config.seed, config.split)
        except ValueError as error:
            raise BadInput(str(error)) from None
    rows = load_rows(config)
    columns = config.columns
    wanted = {"problem": columns.problem, "answer": columns.answer}
    wanted |= {role: column for role in ("solution", "hint") if (column := getattr(columns, role)) is not None}
    for role, column in wanted.items():
        if column not in rows.column_names:
            have = ", ".join(rows.column_names)
            remedy = " or null if there is none" if role == "solution" else ""
            raise BadInput(
                f"{config.source} has no column {column!r}{nearest(column, rows.column_names)} It has: {have}. "
                f"Set data.columns.{role} to the right one{remedy}."
            )
    if config.limit is not None:
        rows = rows.select(range(min(config.limit, len(rows))))
    if len(rows) == 0:
        raise BadInput(f"{config.source} has no rows in split {config.split!r}")
    problems = []
    for index, row in enumerate(rows):
        if row[columns.problem] is None or not str(row[columns.problem]).strip():
            raise BadInput(f"{config.source}, row {index}: column {columns.problem!r} is empty; every row needs a problem")
        if row[columns.answer] is None or not str(row[columns.answer]).strip():
            raise BadInput(f"{config.source}, row {index}: column {columns.answer!r} is empty; every row needs a gold answer")
        problems.append(
            Problem(
                id=str(index),
                problem=(config.prompt or "{problem}").replace("{problem}", str(row[columns.problem])),
                answer=str(row[columns.answer]),
                **{
                    role: str(row[wanted[role]])
                    for role in ("solution", "hint")
                    if role in wanted and row[wanted[role]] is not None
                },
            )
        )
    return problems


def as_row(problem: Problem) -> dict[str, Any]:
    """A problem as a row of TRL's dataset, its `prompt` in chat form."""
    return {
        "prompt": [{"role": "user", "content": problem.problem}],
        "id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        "solution": problem.solution,
        "hint": problem.hint,
    }


def load_rows(config: DataConfig) -> Any:
    """The rows of a config's split as a `datasets.Dataset`. Raises BadInput."""
    import datasets

    datasets.disable_progress_bars()  # a command has its own
    path = Path(config.source).expanduser()
    looks_local = path.suffix in READERS or config.source.startswith((".", "/", "~"))
    try:
        if path.is_file():
            if path.suffix not in READERS:
                raise BadInput(f"data.source {config.source}: unknown file type {path.suffix!r}; use {', '.join(READERS)}")
            loaded = datasets.load_dataset(READERS[path.suffix], data_files={config.split: glob.escape(str(path))})
        elif path.is_dir():
            loaded = datasets.load_dataset(str(path))
        elif looks_local:
            raise BadInput(f"data.source {config.source} does not exist")
        else:
            loaded = datasets.load_dataset(config.source, config.subset, revision=config.revision)
    except BadInput:
        raise
    except Exception as error:  # datasets raises many kinds for a wrong name, no network, a torn file
        raise BadInput(
            f"data.source {config.source} cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
        ) from None
    if config.split not in loaded:
        raise BadInput(f"{config.source} has no split {config.split!r}; it has {', '.join(loaded)}")
    return loaded[config.split]


@dataclass(frozen=True)
class Finding:
    """One thing the preflight saw: `fatal` stops training, otherwise it is a warning."""

    message: str
    fatal: bool


def check_problems(problems: Sequence[Problem], task: Task, context_column: str | None) -> list[Finding]:
    """Gold answers that do not grade as right, duplicates, and empty cells of the column the teacher's context is made of."""
    findings = []
    wrong = gold_faults(problems, task)
    if wrong:
        problem, fault = wrong[0]
        message = (
            f"{len(wrong)} of {len(problems)} gold answers do not grade as right, first problem {problem.id}: {fault}. "
            "Mend or drop these rows, or check data.task and data.columns."
        )
        findings.append(Finding(message, fatal=True))
    duplicates = len(problems) - len({p.problem for p in problems})
    if duplicates:
        findings.append(Finding(f"{duplicates} problems occur more than once", fatal=False))
    if context_column is not None:
        named = "reference solution" if context_column == "solution" else context_column
        empty = [p for p in problems if not (getattr(p, context_column) or "").strip()]
        if len(empty) == len(problems):
            message = (
                f"no problem has a {named}, so there is no teacher: set data.columns.{context_column}, another "
                "teacher.context, or method.name: grpo"
            )
            findings.append(Finding(message, fatal=True))
        elif empty:
            message = (
                f"{len(empty)} of {len(problems)} problems have no {named} (first: problem {empty[0].id}); their rollouts get "
                "nothing from the teacher"
            )
            findings.append(Finding(message, fatal=False))
    return findings


def gold_faults(problems: Sequence[Problem], task: Task) -> list[tuple[Problem, str]]:
    """The problems whose own gold answer is not graded as right, each with the reason."""
    golds, faults = [], []
    reasons = (
        task.unreadable([problem.answer for problem in problems]) if isinstance(task, ReadsAnswers) else [None] * len(problems)
    )
    for problem, reason in zip(problems, reasons, strict=True):
        if reason is not None:
            faults.append((problem, f"the grader cannot read {problem.answer[:80]!r}: {reason}"))
            continue
        try:
            golds.append((problem, task.gold_completion(problem)))
        except ValueError as error:  # the text is no problem of this task
            faults.append((problem, str(error)))
    for (problem, gold), grade in zip(golds, task.grade_all(golds), strict=True):
        if grade.status is not GradeStatus.CORRECT:
            faults.append((problem, f"{gold[:80]!r} is {grade.status.value}"))
    order = {problem.id: index for index, problem in enumerate(problems)}
    return sorted(faults, key=lambda fault: order[fault[0].id])


def check_lengths(
    problems: Sequence[Problem],
    prompt_length: Callable[[Problem], int],
    max_completion_length: int,
    context_length: int | None,
) -> list[Finding]:
    """Prompts that leave no room for a completion. `prompt_length` gives a problem's longest prompt in tokens."""
    if context_length is None:
        return []
    lengths = [(prompt_length(problem), problem) for problem in problems]
    long = [(length, p) for length, p in lengths if length + max_completion_length > context_length]
    if not long:
        return []
    length, problem = max(long, key=lambda pair: pair[0])
    room = context_length - length
    remedy = f"set training.max_completion_length to {room} or less, or drop these rows" if room > 0 else "drop these rows"
    message = (
        f"{len(long)} of {len(problems)} prompts are too long: problem {problem.id} has {length} tokens (the teacher's prompt "
        f"included) and with max_completion_length {max_completion_length} exceeds the model's context of {context_length}. "
        f"Prompts are never cut: {remedy}."
    )
    return [Finding(message, fatal=True)]
