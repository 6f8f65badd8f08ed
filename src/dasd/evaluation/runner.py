"""Evaluating a model on problems: sample, grade, write down, summarise.

`samples.jsonl` holds each (problem, sample) once, with its token ids, so grading and figures can be repeated without
sampling. A killed run goes on where it was: what is on file is not sampled again, and each sample has its own seed.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dasd.config import BadInput, EvalConfig
from dasd.data.problems import load_problems
from dasd.evaluation.estimators import Estimate, difference_of_ratios, pass_at_k, ratio_of_sums
from dasd.evaluation.health import BACKTRACKS, EPISTEMIC_MARKERS, count_phrases
from dasd.evaluation.samplers import Request, Sampled, Sampler, SamplingFailed, SamplingParams, make_sampler
from dasd.files import append_lines, repair_lines, write_json
from dasd.progress import Advance, track
from dasd.tasks import make_task
from dasd.tasks.base import GradeStatus, Problem, Task
from dasd.teacher.context import PrivilegedContext

SAMPLES = "samples.jsonl"
Record = dict[str, Any]
Sums = dict[str, tuple[np.ndarray, np.ndarray]]  # metric -> (numerators, denominators), one entry a problem


def run_evaluation(config: EvalConfig, output: Path, label: str) -> tuple[list[Problem], list[Record]]:
    """Loads model and problems, samples with a progress bar, writes `output/summary.json`. Raises BadInput."""
    problems, task = load_problems(config.data), make_task(config.data.task)
    sampler = make_sampler(config.sampler, config.model)
    with track(label, len(problems) * config.num_samples) as advance:
        records = evaluate(sampler, problems, task, config, output, advance)
    sampler.close()
    size = {"num_problems": len(problems), "num_samples": config.num_samples}
    write_json(output / "summary.json", size | summarize(problems, records, config.num_samples))
    return problems, records


def evaluate(
    sampler: Sampler, problems: Sequence[Problem], task: Task, config: EvalConfig, output: Path,
    advance: Advance = lambda count: None,
) -> list[Record]:  # fmt: skip
    """Samples `config.num_samples` completions of each problem into `output/samples.jsonl`; `advance` is told of progress.

    Raises BadInput where `output` holds samples made with other settings, or a prompt leaves no room for a completion.
    """
    identity = {"config": config.model_dump(mode="json"), "problems": [problem.id for problem in problems]}
    prompts = [_prompt(problem, config) for problem in problems]
    limit, longest = sampler.context_length, sampler.longest_prompt(prompts)
    if limit is not None and longest is not None and longest + config.max_completion_length > limit:
        raise BadInput(
            f"a prompt of {longest} tokens and max_completion_length {config.max_completion_length} exceed the model's context "
            f"of {limit}: set --max_completion_length to {max(limit - longest, 1)} or less"
        )
    _claim(output, identity)
    path = output / SAMPLES
    known = {problem.id for problem in problems}
    records = repair_lines(path, keep=lambda record: record["problem_id"] in known)
    done = {(record["problem_id"], record["sample"]) for record in records}
    missing = [(i, sample) for i in range(len(problems)) for sample in range(config.num_samples)]
    missing = [(i, sample) for i, sample in missing if (problems[i].id, sample) not in done]
    advance(len(done))
    params = SamplingParams(config.max_completion_length, config.temperature, config.top_p)
    for start in range(0, len(missing), sampler.batch_size):
        batch = {f"{problems[i].id}/{sample}": (i, sample) for i, sample in missing[start : start + sampler.batch_size]}
        requests = [Request(key, prompts[i], _seed(config.seed, key)) for key, (i, _) in batch.items()]
        failure = None
        try:
            sampled = list(zip(requests, sampler.sample(requests, params), strict=True))
        except SamplingFailed as error:
            failure, sampled = error, error.finished
        fresh = [_record(problems[batch[r.key][0]], batch[r.key][1], one, task) for r, one in sampled]
        append_lines(path, fresh)
        records += fresh
        if failure is not None:
            raise failure
        advance(len(batch))
    return sorted(records, key=lambda record: record["sample"])


def summarize(problems: Sequence[Problem], records: Iterable[Record], num_samples: int) -> Record:
    """Every figure of a finished evaluation, with 95 % intervals clustered by problem under `ci95`."""
    sums = metric_sums(problems, records, num_samples)
    estimates = {name: ratio_of_sums(*pair) for name, pair in sums.items()}
    curve = {name: value for name, value in estimates.items() if name.startswith("pass_at_")}
    statuses: dict[str, int] = defaultdict(int)
    for record in records:
        statuses[record["status"]] += 1
    return {
        **{name: estimate.mean for name, estimate in estimates.items()},
        "ci95": {name: estimate.ci95 for name, estimate in estimates.items()},
        "pass_at_k": {name.removeprefix("pass_at_"): value.mean for name, value in curve.items()},
        "pass_at_k_ci95": {name.removeprefix("pass_at_"): value.ci95 for name, value in curve.items()},
        "statuses": dict(statuses),
    }


def compare(
    problems: Sequence[Problem], before: Iterable[Record], after: Iterable[Record], num_samples: int
) -> dict[str, Estimate]:
    """`after` minus `before` for every figure, paired by problem."""
    first, second = (metric_sums(problems, records, num_samples) for records in (before, after))
    return {name: difference_of_ratios(first[name], second[name]) for name in first}


def metric_sums(problems: Sequence[Problem], records: Iterable[Record], num_samples: int) -> Sums:
    """Numerators and denominators of every figure, one entry a problem, in the order of `problems`.

    avg_at_N share of samples that are right; pass_at_k unbiased; step_accuracy right over checkable steps;
    epistemic_per_response, epistemic_per_100_words, backtracks_per_response counts in the text; mean_length in tokens;
    truncated share of samples that ran out of tokens; claims_true share of the samples with an answer that are right.
    """
    by_problem: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        by_problem[record["problem_id"]].append(record)
    groups = [by_problem[problem.id] for problem in problems]

    def total(value: Callable[[Record], float]) -> np.ndarray:
        return np.array([sum(map(value, group)) for group in groups], dtype=float)

    samples = total(lambda r: 1)
    correct = total(lambda r: r["status"] == GradeStatus.CORRECT)
    answered = total(lambda r: r["status"] in (GradeStatus.CORRECT, GradeStatus.INCORRECT))
    epistemic = total(lambda r: count_phrases(r["text"], EPISTEMIC_MARKERS))
    ones = np.ones(len(groups))
    ks = [2**i for i in range(int(math.log2(num_samples)) + 1)] + [num_samples]
    return {
        f"avg_at_{num_samples}": (correct, samples),
        **{f"pass_at_{k}": (pass_at_k(samples, correct, k), ones) for k in sorted(set(ks))},
        "step_accuracy": (total(lambda r: r["steps_right"]), total(lambda r: r["steps_checked"])),
        "epistemic_per_response": (epistemic, samples),
        "epistemic_per_100_words": (100 * epistemic, total(lambda r: len(r["text"].split()))),
        "mean_length": (total(lambda r: math.nan if r["token_ids"] is None else len(r["token_ids"])), samples),
        "backtracks_per_response": (total(lambda r: count_phrases(r["text"], BACKTRACKS)), samples),
        "truncated": (total(lambda r: r["finish_reason"] == "length"), samples),
        "claims_true": (correct, answered),
    }


def _claim(output: Path, identity: Mapping[str, Any]) -> None:
    """Marks the folder as this evaluation's; refuses one that belongs to another."""
    output.mkdir(parents=True, exist_ok=True)
    path = output / "eval.json"
    if not path.exists():
        write_json(path, identity)
        return
    theirs = json.loads(path.read_text(encoding="utf-8"))
    if theirs != json.loads(json.dumps(identity)):
        changed = [key for key in identity["config"] if theirs["config"].get(key) != identity["config"][key]] or ["problems"]
        raise BadInput(
            f"{output} holds an evaluation with other settings ({', '.join(changed)}): give another --output, or delete it"
        )


def _seed(seed: int, key: str) -> int:
    """A completion's own seed, below 2**31."""
    return int(np.random.SeedSequence([seed, *key.encode()]).generate_state(1)[0]) >> 1


def _prompt(problem: Problem, config: EvalConfig) -> list[dict[str, Any]]:
    prompt = [{"role": "user", "content": problem.problem}]
    if not config.with_context:
        return prompt
    told = PrivilegedContext().prompt({"prompt": prompt, "solution": problem.solution})
    if not isinstance(told, list):
        raise BadInput(f"problem {problem.id} has no reference to put into the prompt: leave out --with_context")
    return told


def _record(problem: Problem, sample: int, sampled: Sampled, task: Task) -> Record:
    return {
        "problem_id": problem.id,
        "sample": sample,
        "text": sampled.text,
        "token_ids": sampled.token_ids,
        "finish_reason": sampled.finish_reason,
        **_grades(problem, sampled.text, task),
    }


def _grades(problem: Problem, text: str, task: Task) -> Record:
    grade, steps = task.grade(problem, text), task.check_steps(problem, text)
    return {
        "status": grade.status.value,
        "extracted": grade.extracted,
        "steps_right": steps.right,
        "steps_checked": steps.checked,
    }
