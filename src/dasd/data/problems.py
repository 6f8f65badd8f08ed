"""Which problems does a config name? Rows in, problems out, text exactly as the file has it.

A task's own, or the rows of one source or several, columns mapped by config. A row that cannot be used is refused by its
number, with the reason. Everything a user can get wrong here is found before anything is trained or sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dasd.config import BUNDLED, BadInput, DataConfig, nearest
from dasd.config.splits import files_by_split, has_splits
from dasd.data.cells import is_conversation, json_of, question_of, reply_of, text_of
from dasd.data.files import parted_otherwise
from dasd.data.sources import load_rows
from dasd.files import read_json
from dasd.prompts import with_system_prompt
from dasd.tasks import make_task
from dasd.tasks.base import GradeStatus, MakesProblems, Problem, ReadsAnswers, Task

JUNK = ("", "I do not know.", "\\boxed{purple elephants}")  # a verifier must call none of these right
JUNK_TRIED = 8  # problems


def load_problems(config: DataConfig) -> list[Problem]:
    """The problems of a config, each once, in the order of its sources and their rows. Raises BadInput.

    All of them have the further columns of any source, None where theirs has no such column.
    """
    parts = config.parts
    further = list(dict.fromkeys(column for part in parts for column in part.columns.further))
    if further and all(part.source == BUNDLED for part in parts):
        raise BadInput(
            f"data.columns.further {further[0]}: bundled problems have no further columns: set data.source, or leave it out"
        )
    if len(parts) == 1:
        return _of_source(parts[0])
    named = zip(source_names(config), parts, strict=True)
    found = [replace(problem, id=f"{name}/{problem.id}") for name, part in named for problem in _of_source(part)]
    return [replace(each, further=tuple((column, dict(each.further).get(column)) for column in further)) for each in found]


def source_names(config: DataConfig) -> list[str]:
    """A name for each source, what its problems' ids begin with where there are several."""
    names = [part.source.rstrip("/").rpartition("/")[2] for part in config.parts]
    return [name if names.count(name) == 1 else f"{name}#{index}" for index, name in enumerate(names, start=1)]


def task_of(config: DataConfig) -> Task:
    """The task that `config` names. Raises BadInput."""
    try:
        return make_task(config.task, config.answer_format, config.task_settings)
    except (ValueError, ImportError) as error:
        raise BadInput(f"data.task {config.task}: {error}") from None


def check_split(config: DataConfig, key: str) -> None:
    """Raises BadInput where a source has no split of the name under `key`, as far as that is known beforehand: not of the hub's
    data, nor of a task in a file of one's own, which would have to be run."""
    for part in config.parts:
        known = _splits(part)
        if known and part.split not in known:
            raise BadInput(
                f"{key} {part.split!r} of {part.source} is not one of {', '.join(known)}{nearest(part.split, known)}"
            )


def _splits(part: DataConfig) -> list[str]:
    if part.source == BUNDLED:
        task = None if ".py:" in part.task else task_of(part)
        return list(task.splits) if isinstance(task, MakesProblems) else []
    folder = Path(part.source).expanduser()
    if not folder.is_dir() or not has_splits(part.source):
        return []
    saved = read_json(folder / "dataset_dict.json")
    return list(saved["splits"]) if saved else list(files_by_split(folder))


def _made_problems(config: DataConfig) -> list[Problem]:
    task = task_of(config)
    if not isinstance(task, MakesProblems):
        raise BadInput(
            f"data.task {config.task} has no problems of its own (countdown, products, word_problems have): set data.source"
        )
    if config.split not in task.splits:
        known = ", ".join(task.splits)
        raise BadInput(f"data.split {config.split!r} is not one of {known}{nearest(config.split, task.splits)}")
    try:
        return task.make_problems(config.limit or config.count, config.seed, config.split)
    except ValueError as error:
        raise BadInput(str(error)) from None


def as_row(problem: Problem) -> dict[str, Any]:
    """A problem as a row of TRL's dataset, its `prompt` in chat form."""
    return {
        "prompt": problem.messages,
        "id": problem.id,
        "problem": problem.problem,
        "answer": problem.answer,
        "solution": problem.solution,
        "hint": problem.hint,
        **dict(problem.further),
    }


def _of_source(config: DataConfig) -> list[Problem]:
    if config.source == BUNDLED:
        return [_asked(problem, None, config) for problem in _made_problems(config)]
    table, columns = load_rows(config), _columns(config)
    for role, column in [*columns.items(), *(("further", column) for column in config.columns.further)]:
        if column not in table.columns:
            have, remedy = ", ".join(table.columns), " or null if there is none" if role in ("solution", "hint") else ""
            if fault := parted_otherwise(table.columns):
                raise BadInput(f"{config.source} {fault}")
            raise BadInput(
                f"{config.source} has no column {column!r}{nearest(column, table.columns)} It has: {have}. "
                f"Set data.columns.{role} to the right one{remedy}."
            )
    problems, faults = [], []
    for index, row in enumerate(table.rows[: config.limit]):
        try:
            problems.append(_problem(index, row, config))
        except ValueError as fault:
            faults.append(f"row {index}: {fault}")
    if faults:
        others = f" ({len(faults) - 1} more rows cannot be used either)" if len(faults) > 1 else ""
        raise BadInput(f"{config.source}, {faults[0]}{others}")
    return problems


def _columns(config: DataConfig) -> dict[str, str]:
    """Role -> column, without the roles that the dataset does not have."""
    named = config.columns.model_dump(exclude={"further"})
    return {role: column for role, column in named.items() if column is not None}


def _problem(index: int, row: Mapping[str, Any], config: DataConfig) -> Problem:
    """Raises ValueError that names the column and says what is wrong with its cell."""
    texts: dict[str, str | None] = {}
    conversation = None
    for role, column in _columns(config).items():
        cell = row[column]
        try:
            if role == "problem" and is_conversation(cell):
                conversation = question_of(cell)
                texts[role] = conversation[-1]["content"]
            elif role == "solution" and is_conversation(cell):
                texts[role] = reply_of(cell)
            else:
                texts[role] = text_of(cell)
        except ValueError as fault:
            raise ValueError(f"column {column!r} {fault}") from None
        if role in ("problem", "answer") and not (texts[role] or "").strip():
            needs = "problem" if role == "problem" else "gold answer"
            raise ValueError(f"column {column!r} is empty; every row needs a {needs}")
    question, answer = texts.pop("problem") or "", texts.pop("answer") or ""
    further = []
    for column in config.columns.further:
        try:
            further.append((column, json_of(row[column])))
        except ValueError as fault:
            raise ValueError(f"column {column!r} {fault}") from None
    problem = Problem(str(index), question, answer, texts.get("solution"), texts.get("hint"), further=tuple(further))
    return _asked(problem, conversation, config)


def _asked(problem: Problem, conversation: Sequence[dict[str, Any]] | None, config: DataConfig) -> Problem:
    """The problem with the words and the messages around it that ask it."""
    question = problem.problem
    if config.prompt is not None:
        problem = replace(problem, problem=config.prompt.replace("{problem}", question), question=question)
    before = list(conversation or ())[:-1]
    messages = with_system_prompt([*before, {"role": "user", "content": problem.problem}], config.system_prompt)
    return problem if messages == problem.messages else replace(problem, prompt=tuple(messages))


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
    else:
        findings += _of_junk(problems[:JUNK_TRIED], task)
    findings += _repeated(problems)
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


def _of_junk(problems: Sequence[Problem], task: Task) -> list[Finding]:
    """Whether completions that are right for no problem are graded as right nevertheless, or not graded at all."""
    pairs = [(problem, junk) for problem in problems for junk in JUNK]
    grades = list(zip(pairs, task.grade_all(pairs), strict=True))
    for (problem, junk), grade in grades:
        if grade.status is GradeStatus.CORRECT:
            message = f"the verifier of task {task.name} calls junk right: {junk!r} for problem {problem.id}. Mend it."
            return [Finding(message, fatal=True)]
    failed = [(junk, grade.reason) for (_, junk), grade in grades if grade.status is GradeStatus.GRADER_ERROR]
    if not failed:
        return []
    junk, reason = failed[0]
    because = f": {reason}" if reason is not None else ""
    fails = f"the verifier of task {task.name} fails on {len(failed)} of {len(grades)} wrong completions"
    message = f"{fails}, on {junk!r}{because}. A completion that it fails on has no reward."
    return [Finding(message, fatal=len(failed) == len(grades))]


def _repeated(problems: Sequence[Problem]) -> list[Finding]:
    """Problems that occur more than once, and those of them that have another answer there."""
    first: dict[str, Problem] = {}
    again = [(first.setdefault(str(problem.messages), problem), problem) for problem in problems]
    repeated = [(one, other) for one, other in again if one is not other]
    contradict = [(one, other) for one, other in repeated if one.answer.strip() != other.answer.strip()]
    findings = []
    if repeated:
        many = f"{len(repeated)} problems occur" if len(repeated) > 1 else "1 problem occurs"
        findings.append(Finding(f"{many} more than once", fatal=False))
    if contradict:
        one, other = contradict[0]
        answers = f"{one.answer[:80]!r} for problem {one.id}, {other.answer[:80]!r} for problem {other.id}"
        findings.append(Finding(f"{len(contradict)} of them with another answer: {answers}", fatal=False))
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
            because = f" ({grade.reason})" if grade.reason is not None else ""
            faults.append((problem, f"{gold[:80]!r} is {grade.status.value}{because}"))
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
