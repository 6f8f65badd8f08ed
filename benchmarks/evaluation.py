"""How much faster does an evaluation sample than a plain loop over `model.generate`, and what does the rest of it cost?

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py [--only sampling | --only overhead]

`sampling`: both sample the bundled model in dataset order, with the same batch size and limit of length. `overhead`: the whole
`dasd eval` (gold answers checked, sampling, grading, files, figures, page) against its sampler alone on the same requests in
the same batches, model loading on both sides: in CPU seconds, and in wall seconds of one run inside and outside of the sampler
(wall seconds of two runs differ by more than what is looked for). Two sides take turns, so that what else the machine does
meets both. Reported: medians of the rounds' ratios, in `benchmarks/results/evaluation-cpu.json`; what is not measured stays.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from machine import machine
from transformers import GenerationConfig

from dasd.cli import run
from dasd.config import EvalConfig, ModelConfig, SamplerConfig
from dasd.evaluation import runner
from dasd.evaluation.benchmarks import load_suites
from dasd.evaluation.folder import read_samples
from dasd.evaluation.runner import completion_seed
from dasd.evaluation.samplers import Request, SamplingParams, make_sampler
from dasd.evaluation.samplers.transformers import TransformersSampler
from dasd.files import write_json
from dasd.prompts import tokenize_prompt
from dasd.tasks.countdown import make_problems
from dasd.teacher.context import PrivilegedContext

RESULTS = Path(__file__).parent / "results" / "evaluation-cpu.json"
PARAMS = SamplingParams(max_completion_length=128)
CASES = {  # name -> problems, samples of each
    "16 samples a problem": (32, 16),
    "1 sample a problem": (512, 1),
}


def make_requests(problems: int, samples: int) -> list[Request]:
    """Mixed lengths: every second problem has its reference in the prompt, for longer prompts and shorter answers."""
    requests = []
    for index, problem in enumerate(make_problems(problems, 0, "validation")):
        prompt: Any = [{"role": "user", "content": problem.problem}]
        if index % 2:
            prompt = PrivilegedContext().prompt({"prompt": prompt, "solution": problem.solution})
        requests += [Request(f"{problem.id}/{n}", prompt, samples * index + n) for n in range(samples)]
    return requests


def with_sampler(sampler: TransformersSampler, requests: Sequence[Request]) -> list[int]:
    """Lengths of the completions."""
    size = sampler.batch_size
    batches = [requests[start : start + size] for start in range(0, len(requests), size)]
    return [len(one.token_ids or []) for batch in batches for one in sampler.sample(batch, PARAMS)]


def with_generate(sampler: TransformersSampler, requests: Sequence[Request]) -> list[int]:
    """The loop that most scripts have: pad, generate, cut off, decode."""
    tokenizer, model, size = sampler.tokenizer, sampler.model, sampler.batch_size
    config = GenerationConfig(
        max_new_tokens=PARAMS.max_completion_length, do_sample=True, top_k=0, temperature=1.0, top_p=1.0,
        pad_token_id=tokenizer.pad_token_id, eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    lengths = []
    for start in range(0, len(requests), size):
        prompts = [tokenize_prompt(tokenizer, request.prompt) for request in requests[start : start + size]]
        batch = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        torch.manual_seed(start)
        written = model.generate(**batch, generation_config=config)[:, batch["input_ids"].shape[1] :]
        tokenizer.batch_decode(written, skip_special_tokens=True)
        lengths += (written != tokenizer.pad_token_id).sum(-1).tolist()
    return lengths


def timed(work: Callable[[], list[int]]) -> tuple[float, float]:
    """(seconds, mean length)."""
    started = time.perf_counter()
    lengths = work()
    return time.perf_counter() - started, statistics.mean(lengths)


def compare(sampler: TransformersSampler, requests: Sequence[Request], rounds: int) -> dict[str, Any]:
    with_sampler(sampler, requests[:32])
    with_generate(sampler, requests[:32])
    ours, plain = [], []
    for _ in range(rounds):
        plain.append(timed(lambda: with_generate(sampler, requests)))
        ours.append(timed(lambda: with_sampler(sampler, requests)))
    ratios = [theirs[0] / own[0] for theirs, own in zip(plain, ours, strict=True)]
    return {
        "requests": len(requests),
        "batch_size": sampler.batch_size,
        "speed_ratio": round(statistics.median(ratios), 2),
        "speed_ratio_of_each_round": [round(ratio, 2) for ratio in ratios],
        "samples_per_s": round(len(requests) / statistics.median(seconds for seconds, _ in ours), 1),
        "samples_per_s_generate": round(len(requests) / statistics.median(seconds for seconds, _ in plain), 1),
        "mean_length": round(statistics.mean(length for _, length in ours), 1),
        "mean_length_generate": round(statistics.mean(length for _, length in plain), 1),
    }


def whole_evaluation(config: EvalConfig) -> tuple[dict[str, list[int] | None], float]:
    """Token ids of every completion, as `dasd eval` left them on file; and seconds spent outside of the sampler over seconds
    spent in it, loading the model included."""
    inside, (name,) = 0.0, config.benchmarks

    def clocked(call: Callable[..., Any]) -> Callable[..., Any]:
        def timed_call(*arguments: Any) -> Any:
            nonlocal inside
            began = time.perf_counter()
            result = call(*arguments)
            inside += time.perf_counter() - began
            return result

        return timed_call

    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.redirect_stdout(io.StringIO()),
        mock.patch.object(runner, "make_sampler", clocked(make_sampler)),
        mock.patch.object(TransformersSampler, "sample", clocked(TransformersSampler.sample)),
    ):
        words = ["--benchmarks", name, "--limit", str(config.limit), "--sampler.batch_size", str(config.sampler.batch_size)]
        started = time.perf_counter()
        assert run(["eval", "bundled", *words, "--output", folder]) == 0
        outside = time.perf_counter() - started - inside
        on_file = read_samples(Path(folder) / "bundled" / name)
    return {f"{problem}/{n}": record["token_ids"] for (problem, n), record in on_file.items()}, outside / inside


def sampling_alone(config: EvalConfig) -> dict[str, list[int] | None]:
    """The same completions, from the sampler and nothing else."""
    (suite,) = load_suites(config)
    settings = suite.settings(config)
    params = SamplingParams(settings.max_completion_length, settings.temperature, settings.top_p)
    requests = [
        Request(
            f"{problem.id}/{n}", [{"role": "user", "content": problem.problem}], completion_seed(0, suite.name, problem.id, n)
        )
        for problem in suite.problems
        for n in range(settings.num_samples)
    ]
    sampler = make_sampler(config.sampler, ModelConfig())
    batches = [requests[start : start + sampler.batch_size] for start in range(0, len(requests), sampler.batch_size)]
    written = [one for batch in batches for one in sampler.sample(batch, params)]
    return {request.key: one.token_ids for request, one in zip(requests, written, strict=True)}


def overhead(batch_size: int, rounds: int) -> dict[str, Any]:
    """What the evaluation of a bundled benchmark costs beyond its sampling. Both sides write the same completions."""
    name, sampler = "countdown/in_distribution", SamplerConfig(batch_size=batch_size)
    config = EvalConfig(benchmarks=(name,), limit=100, sampler=sampler)
    shares, outside = [], []
    for number in range(rounds):
        seconds, written = {}, {}
        for whole in (True, False) if number % 2 else (False, True):
            started = time.process_time()
            if whole:
                written[whole], share = whole_evaluation(config)
                outside.append(share)
            else:
                written[whole] = sampling_alone(config)
            seconds[whole] = time.process_time() - started
        assert written[True] == written[False]
        shares.append(seconds[True] / seconds[False] - 1)
    return {
        "requests": len(written[True]),
        "batch_size": batch_size,
        "wall_outside_sampler": round(statistics.median(outside), 3),
        "wall_outside_sampler_of_each_round": [round(share, 3) for share in outside],
        "cpu_share": round(statistics.median(shares), 3),
        "cpu_share_of_each_round": [round(share, 3) for share in shares],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--only", choices=("sampling", "overhead"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sampler = make_sampler(SamplerConfig(batch_size=options.batch_size), ModelConfig())
    assert isinstance(sampler, TransformersSampler)
    result: dict[str, Any] = json.loads(options.output.read_text()) if options.output.exists() else {}
    result |= {
        "machine": machine(),
        "device": sampler.describe()["device"],
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }
    print(f"{result['machine']}; {result['threads']} torch threads, on {result['device']}")
    for name, (problems, samples) in CASES.items() if options.only != "overhead" else ():
        case = compare(sampler, make_requests(problems, samples), options.rounds)
        result["sampling"] = result.get("sampling", {}) | {name: case}
        print(
            f"{name}: {case['speed_ratio']} times as fast as generate {case['speed_ratio_of_each_round']}, "
            f"{case['samples_per_s']} against {case['samples_per_s_generate']} samples a second; "
            f"mean lengths {case['mean_length']} and {case['mean_length_generate']}"
        )
    if options.only != "sampling":
        result["overhead"] = case = overhead(options.batch_size, options.rounds)
        print(
            f"{case['requests']} samples: seconds outside of the sampler over those in it {case['wall_outside_sampler']:.1%} "
            f"{case['wall_outside_sampler_of_each_round']}; CPU seconds over those of sampling alone {case['cpu_share']:+.1%} "
            f"{case['cpu_share_of_each_round']}"
        )
    write_json(options.output, result)


if __name__ == "__main__":
    main()
