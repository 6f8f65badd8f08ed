"""How much faster does an evaluation sample than a plain loop over `model.generate`?

    OMP_NUM_THREADS=1 python benchmarks/evaluation.py

Both sample the bundled model in dataset order, with the same batch size and limit of length, taking turns (A B A B ...), so
that what else the machine does meets both. Reported: the median of the rounds' ratios, and samples a second. Written to
`benchmarks/results/evaluation-cpu.json`.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers import Request, SamplingParams, make_sampler
from dasd.evaluation.samplers.transformers import TransformersSampler
from dasd.files import write_json
from dasd.tasks.countdown import make_problems
from dasd.teacher.context import PrivilegedContext, tokenize_prompt

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


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return f"{(names or [platform.machine()])[0]}, {os.cpu_count()} cores, {platform.system()}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    sampler = make_sampler(SamplerConfig(batch_size=options.batch_size), ModelConfig())
    assert isinstance(sampler, TransformersSampler)
    result: dict[str, Any] = {
        "machine": machine(),
        "device": sampler.describe()["device"],
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "sampling": {},
    }
    print(f"{result['machine']}; {result['threads']} torch threads, on {result['device']}")
    for name, (problems, samples) in CASES.items():
        case = compare(sampler, make_requests(problems, samples), options.rounds)
        result["sampling"][name] = case
        print(
            f"{name}: {case['speed_ratio']} times as fast as generate {case['speed_ratio_of_each_round']}, "
            f"{case['samples_per_s']} against {case['samples_per_s_generate']} samples a second; "
            f"mean lengths {case['mean_length']} and {case['mean_length_generate']}"
        )
    write_json(options.output, result)


if __name__ == "__main__":
    main()
