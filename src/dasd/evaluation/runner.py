"""Evaluating models on suites of problems: sample, grade, write down, summarise.

`OUT/MODEL/SUITE/samples.jsonl` holds each (problem, sample) once, with its token ids, so grading and figures can be repeated
without sampling. Each completion has its own seed, so a killed run goes on where it was, a larger `num_samples` adds to what is
there, and several processes share the work (`samples-1-of-4.jsonl`, ...): what is on file is never sampled again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dasd.config import BadInput, EvalConfig, base_of_task
from dasd.data.problems import gold_faults
from dasd.evaluation.answers import answer_classes
from dasd.evaluation.benchmarks import Suite, choose, load_suites
from dasd.evaluation.entropies import entropy_distribution
from dasd.evaluation.estimators import macro_averages
from dasd.evaluation.folder import (
    ANSWERS,
    SUMMARY,
    WHOLE,
    Evaluation,
    Shard,
    check_identity,
    claim,
    model_slug,
    sample_files,
    write_problems,
    write_shared,
)
from dasd.evaluation.samplers import Request, Sampled, Sampler, SamplingParams, Watch, check_loadable, make_sampler
from dasd.evaluation.samplers.base import Messages
from dasd.evaluation.summary import Record, Sums, metric_sums, summarize
from dasd.files import append_lines, read_lines, repair_lines, write_lines
from dasd.folders import sole_writer
from dasd.model_fit import completion_room, context_length
from dasd.progress import Advance, track
from dasd.prompts import content_text, tokenize_prompt, with_system_prompt
from dasd.tasks import make_task
from dasd.tasks.base import GradeStatus, Problem, Task, TellsSolutionsApart, grade_completions
from dasd.teacher.context import PrivilegedContext
from dasd.trained import Trained, as_trained, asked_of

logger = logging.getLogger("dasd")
Pass = Callable[[Evaluation, dict[str, Messages]], None]  # works something out about the samples and puts it beside them
GRADED_AT_ONCE = 256
WRITTEN_EVERY_S = 5.0


def run_evaluation(config: EvalConfig, output: Path, label: str) -> tuple[list[Problem], list[Record]]:
    """Samples the problems of `config.data` into `output` and writes `output/summary.json`. Raises BadInput."""
    [suite] = (sound(suite, config.skip_unsound) for suite in load_suites(config))
    evaluation = Evaluation(suite, config, output)
    run(evaluation, lambda: make_sampler(config.sampler, config.model), label)
    return suite.problems, evaluation.records()


@dataclass(frozen=True)
class Finished:
    """A finished evaluation: what `summary.json` says, and each problem's share in it."""

    summary: Record
    sums: Sums


def run_models(
    config: EvalConfig, models: Sequence[str], folder: Callable[[str], Path], shard: Shard = WHOLE, regrade: bool = False,
    passes: Sequence[Pass] = (),
) -> dict[str, Record | None]:  # fmt: skip
    """Each model's `summary.json`: `model`, `benchmarks` (name -> summary), `macro`. None where other shards are missing.

    `folder(model)` holds that model's suites, or the samples themselves where `config` names no benchmark. A run's folder
    stands for its final model. What is wrong with the data, or with any of the models, is said before the first completion is
    sampled. `passes` are made over the samples of each finished suite, when the sampler has given back its memory, and before
    the figures are worked out. Raises BadInput.
    """
    config = _asked_alike(config, models)
    configs = {model: _of_model(config, model, loads=not regrade) for model in models}
    suites = [sound(suite, config.skip_unsound) for suite in load_suites(config)]
    results = {}
    for model, of_model in configs.items():
        sampler, finished, evaluations = _LazySampler(of_model), {}, {}
        try:
            for suite in suites:
                output = folder(model) / suite.name if config.benchmarks else folder(model)
                evaluations[suite.name] = evaluation = Evaluation(suite, _fitting(suite, of_model, regrade), output)
                label = f"{model_slug(model)}, {suite.name}"
                finished[suite.name] = regrade_samples(evaluation) if regrade else run(evaluation, sampler, label, shard)
        finally:
            sampler.close()
        if passes and all(each is not None for each in finished.values()):
            for name, evaluation in evaluations.items():
                prompts = {
                    problem.id: _prompt(evaluation.suite, problem, evaluation.config) for problem in evaluation.suite.problems
                }
                for make in passes:
                    make(evaluation, prompts)
                finished[name] = _finish(evaluation)
        results[model] = overview = _overview(model, finished)
        if config.benchmarks and overview is not None:
            write_shared(folder(model) / SUMMARY, overview)
    return results


def _asked_alike(config: EvalConfig, models: Sequence[str]) -> EvalConfig:
    """`config` with the problems that the models say they are for, where the user has not said it. Raises BadInput where two
    models say different things: their figures are compared."""
    told: dict[str, tuple[str, Any]] = {}  # setting -> who said what
    for model in models:
        for name, value in asked_of(_with_path(config, model)).items():
            who, before = told.setdefault(name, (model, value))
            if value != before:
                raise BadInput(
                    f"{who} was trained with data.{name} {before}, {model} with {value}: say what both are asked, --data.{name}"
                )
    asked = {name: value for name, (_, value) in told.items()}
    if "task" in asked and asked["task"] != config.data.task:
        logger.info("Asked are problems of %s, which %s was made for; --data.task asks others.", asked["task"], told["task"][0])
    return config.model_copy(update={"data": config.data.model_copy(update=asked)}) if asked else config


def _with_path(config: EvalConfig, path: str) -> EvalConfig:
    return config.model_copy(update={"model": config.model.model_copy(update={"path": path})})


def _of_model(config: EvalConfig, model: str, loads: bool) -> EvalConfig:
    """The settings for one of several models. Raises BadInput where it `loads` and cannot be."""
    of_model = as_trained(_with_path(config, base_of_task(model, _task_asked(config))))
    if loads:
        check_loadable(of_model.sampler, of_model.model)
    return of_model


def _task_asked(config: EvalConfig) -> str:
    """The task whose base `bundled` is: that of the benchmarks, if they are of one, else of `data`."""
    tasks = {name.partition("/")[0] for name in choose(config.benchmarks)}
    return tasks.pop() if len(tasks) == 1 else config.data.task


def _fitting(suite: Suite, config: EvalConfig, regrade: bool) -> EvalConfig:
    """The settings with the suite's own defaults; where the user has not said how long a completion may be, no longer than the
    model's context allows."""
    settings = suite.settings(config)
    if regrade or config.sampler.backend == "openai" or "max_completion_length" in config.model_fields_set:
        return settings
    from dasd.models import base_config, load_tokenizer

    limit, tokenizer = context_length(base_config(config.model)), load_tokenizer(config.model)
    if config.sampler.max_model_len is not None:
        limit = min(limit or config.sampler.max_model_len, config.sampler.max_model_len)
    template, prompts = config.model.chat_template_kwargs, [_prompt(suite, problem, settings) for problem in suite.problems]
    longest = max(len(tokenize_prompt(tokenizer, prompt, **template)) for prompt in prompts)
    room = completion_room(settings.max_completion_length, longest, limit, chosen=False)
    return settings.model_copy(update={"max_completion_length": room})


def _overview(model: str, finished: dict[str, Finished | None]) -> Record | None:
    """All benchmarks of a model, and the means over them of the figures that all of them have."""
    complete = [each for each in finished.values() if each is not None]
    if len(complete) < len(finished):
        return None
    common = [name for name in complete[0].summary["ci95"] if all(name in each.summary["ci95"] for each in complete)]
    means = macro_averages([{name: each.sums[name] for name in common} for each in complete])
    return {
        "model": model,
        "benchmarks": {name: each.summary for name, each in finished.items() if each is not None},
        "macro": {name: mean.mean for name, mean in means.items()}
        | {"ci95": {name: mean.ci95 for name, mean in means.items()}},
    }


def run(evaluation: Evaluation, sampler: Callable[[], Sampler], label: str, shard: Shard = WHOLE) -> Finished | None:
    """Samples and grades what is missing of this shard; the figures once the samples of all shards are there, else None.

    `sampler` is called only where something is missing. Raises BadInput where the folder holds another evaluation, or a
    prompt leaves no room for a completion.
    """
    check_identity(evaluation)
    if _missing(evaluation, shard):
        _sample(evaluation, sampler(), label, shard)
    return _finish(evaluation)


def _missing(evaluation: Evaluation, shard: Shard) -> list[tuple[Problem, int]]:
    """The (problem, sample) pairs of this shard that no file holds."""
    done = {(record["problem_id"], record["sample"]) for record in evaluation.records()}
    mine = evaluation.pairs[shard.index - 1 :: shard.count]
    return [(problem, sample) for problem, sample in mine if (problem.id, sample) not in done]


def _sample(evaluation: Evaluation, sampler: Sampler, label: str, shard: Shard) -> None:
    config, suite = evaluation.config, evaluation.suite
    task, prompts = _task(suite), {problem.id: _prompt(suite, problem, config) for problem in suite.problems}
    _check_length(sampler, list(prompts.values()), config)
    params = SamplingParams(config.max_completion_length, config.temperature, config.top_p)
    path, known = evaluation.output / shard.file, set(evaluation.ids)
    with sole_writer(path, "wait for it, or share the work with --shard"):
        claim(evaluation, sampler.describe())
        repair_lines(path, keep=lambda record: record["problem_id"] in known)
        missing = _missing(evaluation, shard)
        with track(label, len(missing)) as advance:
            for start in range(0, len(missing), sampler.batch_size):
                batch = missing[start : start + sampler.batch_size]
                requests = [
                    _request(suite.name, problem, sample, prompts[problem.id], config.seed) for problem, sample in batch
                ]
                pairs = {request.key: pair for pair, request in zip(batch, requests, strict=True)}
                notebook = _Notebook(path, pairs, task, advance)
                try:
                    sampler.sample(requests, params, Watch(notebook.finished, notebook.tokens))
                finally:  # what could be sampled is kept
                    notebook.write()


class _Notebook:
    """Grades completions and puts them on file as they end: what a kill can cost is WRITTEN_EVERY_S of work, not a batch."""

    def __init__(self, path: Path, pairs: dict[str, tuple[Problem, int]], task: Task, advance: Advance) -> None:
        self.path, self.pairs, self.task, self.advance = path, pairs, task, advance
        self.waiting: dict[str, Sampled] = {}
        self.started = self.written = time.monotonic()
        self.count = 0

    def finished(self, request: Request, sampled: Sampled) -> None:
        self.waiting[request.key] = sampled
        if time.monotonic() - self.written >= WRITTEN_EVERY_S:
            self.write()

    def tokens(self, count: int) -> None:
        self.count += count
        rate = self.count / max(time.monotonic() - self.started, 1e-9)
        self.advance(0, note=f"{self.count:,} tokens in this batch, {rate:,.0f}/s")

    def write(self) -> None:
        """In the order of the batch."""
        keys = [key for key in self.pairs if key in self.waiting]
        batch, sampled = [self.pairs[key] for key in keys], [self.waiting.pop(key) for key in keys]
        append_lines(self.path, _records(batch, sampled, self.task))
        self.written = time.monotonic()
        self.advance(len(keys))


def regrade_samples(evaluation: Evaluation) -> Finished | None:
    """Grades what is on file again, in place, and writes the summary; no model is loaded. Raises BadInput without samples."""
    check_identity(evaluation)
    files = sample_files(evaluation.output)
    if not files:
        raise BadInput(f"--regrade: {evaluation.output} holds no samples; leave out --regrade to make them")
    task, by_id = _task(evaluation.suite), {problem.id: problem for problem in evaluation.suite.problems}
    for path in files:
        _regrade_file(path, by_id, task)
    write_problems(evaluation)
    return _finish(evaluation)


def _regrade_file(path: Path, by_id: dict[str, Problem], task: Task) -> None:
    with sole_writer(path, "wait for it, or share the work with --shard"):
        records = [record for record in read_lines(path) if record["problem_id"] in by_id]
        with track(f"Grading {path.parent.name}", len(records)) as advance:
            for start in range(0, len(records), GRADED_AT_ONCE):
                batch = records[start : start + GRADED_AT_ONCE]
                pairs = [(by_id[record["problem_id"]], record["text"]) for record in batch]
                reasons = [record["finish_reason"] for record in batch]
                for record, grades in zip(batch, _grades(pairs, reasons, task), strict=True):
                    record |= grades
                advance(len(batch))
        write_lines(path, records)


def sound(suite: Suite, skip_unsound: bool) -> Suite:
    """The suite if every gold answer grades as right, or if `skip_unsound` without the others. Raises BadInput."""
    faults = gold_faults(suite.problems, _task(suite))
    if not faults:
        return suite
    if skip_unsound and len(faults) < len(suite.problems):
        skipped = [problem.id for problem, _ in faults]
        problems = [problem for problem in suite.problems if problem.id not in skipped]
        logger.warning("%s: %d problems are left out, their gold answers do not grade as right", suite.name, len(skipped))
        return replace(suite, problems=problems, source={**suite.source, "skipped": skipped})
    problem, why = faults[0]
    raise BadInput(
        f"{suite.name}: {len(faults)} of {len(suite.problems)} gold answers do not grade as right, first problem {problem.id}: "
        f"{why}. Mend or drop them, or leave them out with --skip_unsound true"
    )


def _task(suite: Suite) -> Task:
    return make_task(suite.task, suite.answer_format, suite.task_settings)


def completion_seed(seed: int, suite: str, problem_id: str, sample: int) -> int:
    """A seed below 2^31 for one completion, the same on every machine."""
    name = json.dumps([seed, suite, problem_id, sample]).encode()
    return int.from_bytes(hashlib.sha256(name).digest()[:4], "big") >> 1


class _LazySampler:
    """A model is loaded when its first completion is missing, and once for all suites."""

    def __init__(self, config: EvalConfig) -> None:
        self.config = config
        self.sampler: Sampler | None = None

    def __call__(self) -> Sampler:
        if self.sampler is None:
            self.sampler = make_sampler(self.config.sampler, self.config.model)
        return self.sampler

    def close(self) -> None:
        if self.sampler is not None:
            self.sampler.close()


def _finish(evaluation: Evaluation) -> Finished | None:
    """Writes the summary where every sample is on file; None where some are not."""
    records, num_samples = evaluation.records(), evaluation.config.num_samples
    if len(records) < len(evaluation.pairs):
        return None
    write_shared(evaluation.output / ANSWERS, answer_classes(records, _task(evaluation.suite)))
    records = evaluation.records()
    sums = metric_sums(evaluation.ids, records, num_samples)
    head = {"model": evaluation.config.model.path, "benchmark": evaluation.suite.name}
    summary = {
        **head,
        "trained_on": _trained_on(evaluation),
        **summarize(sums, num_samples),
        "statuses": dict(Counter(r["status"] for r in records)),
    }
    if "entropy_mean" in sums:
        summary["entropies"] = entropy_distribution(records)
    write_shared(evaluation.output / SUMMARY, summary)
    return Finished(summary, sums)


def _trained_on(evaluation: Evaluation) -> int | None:
    """How many of these problems the model was trained on, which is said; None where its training is not known."""
    facts = Trained.of(evaluation.config.model.path)
    if facts is None:
        return None
    seen, problems = set(facts.problems), evaluation.suite.problems
    count = sum(problem.digest in seen for problem in problems)
    if count:
        logger.warning(
            "%s: the model was trained on %d of these %d problems (in %s): what it does there is no test of it.",
            evaluation.suite.name, count, len(problems), facts.run,
        )  # fmt: skip
    return count


def _request(suite: str, problem: Problem, sample: int, prompt: list[dict[str, Any]], seed: int) -> Request:
    return Request(f"{problem.id}/{sample}", prompt, completion_seed(seed, suite, problem.id, sample))


def _check_length(sampler: Sampler, prompts: list[list[dict[str, Any]]], config: EvalConfig) -> None:
    longest = sampler.longest_prompt(prompts)
    if longest is not None:
        completion_room(config.max_completion_length, longest, sampler.context_length, True, "--max_completion_length")


def _prompt(suite: Suite, problem: Problem, config: EvalConfig) -> list[dict[str, Any]]:
    *before, asked = problem.messages
    words = {**asked, "content": suite.prompt.replace("{problem}", content_text(asked["content"]), 1)}
    messages = with_system_prompt([*before, words], config.data.system_prompt)
    if not config.with_context:
        return messages
    prompt = PrivilegedContext().prompt({"prompt": messages, "solution": problem.solution})
    if not isinstance(prompt, list):
        raise BadInput(f"problem {problem.id} has no reference to put into the prompt: leave out --with_context")
    return prompt


def _records(batch: Sequence[tuple[Problem, int]], written: Sequence[Sampled], task: Task) -> list[Record]:
    pairs = [(problem, sampled.text) for (problem, _), sampled in zip(batch, written, strict=True)]
    grades = _grades(pairs, [sampled.finish_reason for sampled in written], task)
    return [
        {
            "problem_id": problem.id,
            "sample": sample,
            "text": sampled.text,
            "token_ids": sampled.token_ids,
            "finish_reason": sampled.finish_reason,
            **graded,
        }
        for (problem, sample), sampled, graded in zip(batch, written, grades, strict=True)
    ]


def _grades(pairs: Sequence[tuple[Problem, str]], finish_reasons: Sequence[str], task: Task) -> list[Record]:
    graded, cut_off = [], [reason == "length" for reason in finish_reasons]
    for (problem, text), grade in zip(pairs, grade_completions(task, pairs, cut_off), strict=True):
        steps = task.check_steps(problem, text)
        record = {
            "status": GradeStatus(grade.status).value,
            "extracted": grade.extracted,
            **({} if grade.score is None else {"score": grade.score}),
            "steps_right": steps.right,
            "steps_checked": steps.checked,
            "first_wrong_step": steps.first_wrong,
        }
        if isinstance(task, TellsSolutionsApart):
            record["solution_key"] = task.solution_key(problem, text) if grade.correct else None
        graded.append(record)
    return graded
