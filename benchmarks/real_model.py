"""What does a step of DASD cost on a real model, beside TRL's own GRPO? And how fast do both sample?

    OMP_NUM_THREADS=1 python benchmarks/real_model.py FOLDER [--dtype bfloat16] [--rollouts 16] [--completion 128] [--rounds 3]

Sides: `grpo` is TRL's trainer as it is; `dasd` ours, with a teacher that is told the solution. LoRA of rank 16 on all linear
layers, word problems, groups of 8, the same settings. Both sample with their own machinery, temperature 1. What a rollout costs
depends on its length, and two samplers draw different numbers: so the model first writes rollouts of these very problems,
without either trainer, and a side's rollout i then ends at the length of that one, in the middle of whatever it says (the end
token is forbidden before, in TRL's generation it is forced then).

Each side has a process of its own, and they take turns, one whole step each (rollouts, rewards, scores, update); a first step
to warm up is not timed. CPU seconds of the process, ratios of each round, their median; wall seconds beside them. Freed memory
stays with the process then: where page faults are dear, giving it back is most of either side's time.

    ... --memory

One step of each instead, whose large blocks are given back when they are freed: the most resident bytes of the process over
what it held before. Its times say nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from machine import machine
from peft import LoraConfig
from step_cost import GPU, resident, reward
from transformers import LogitsProcessor, LogitsProcessorList, PrinterCallback, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer

from dasd import SelfDistillationConfig, SelfDistillationTrainer
from dasd.config import ModelConfig
from dasd.data.problems import as_row
from dasd.evaluation.samplers.base import SamplingParams
from dasd.evaluation.samplers.transformers import uniforms, write
from dasd.files import write_json
from dasd.model_fit import end_tokens
from dasd.models import load_model
from dasd.prompts import tokenize_prompt
from dasd.tasks import make_task
from dasd.training import sampling

RESULTS = Path(__file__).parent / "results" / "real-model-cpu.json"
GROUP = 8
SIDES = ("grpo", "dasd")


class EndsAt(LogitsProcessor):
    """Row i ends at lengths[i] tokens after a prompt of `width`, and not before."""

    def __init__(self, lengths: Sequence[int], ends: Sequence[int], width: int) -> None:
        self.lengths, self.ends, self.width = torch.tensor(lengths), list(ends), width

    def __call__(self, ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        now = self.lengths.to(scores.device) == ids.shape[1] - self.width + 1
        scores[:, self.ends] = -torch.inf
        scores[now] = -torch.inf
        scores[now, self.ends[0]] = 0.0
        return scores


def problems(rollouts: int) -> list[dict[str, Any]]:
    return [as_row(problem) for problem in make_task("word_problems").make_problems(rollouts // GROUP, 0, "train")]


def natural_lengths(model: Any, tokenizer: Any, rows: Sequence[dict[str, Any]], longest: int) -> list[int]:
    """Tokens of what the model writes to each problem, `GROUP` times."""
    prompts = [tokenize_prompt(tokenizer, row["prompt"]) for row in rows]
    places = [place for place in range(len(prompts)) for _ in range(GROUP)]
    noise, ends = uniforms(range(len(places)), longest), sorted(end_tokens(model.generation_config, tokenizer))
    written = write(model, prompts, places, noise, SamplingParams(longest), ends, tokenizer.pad_token_id)
    return [len(ids) for ids in written]


def arguments(options: argparse.Namespace, folder: str, longest: int) -> dict[str, Any]:
    return {
        "output_dir": folder, "per_device_train_batch_size": options.micro_batch, "num_generations": GROUP,
        "gradient_accumulation_steps": options.rollouts // options.micro_batch, "max_completion_length": longest,
        "max_steps": 1, "learning_rate": 1e-5, "report_to": [], "save_strategy": "no", "disable_tqdm": True,
        "bf16": options.dtype == "bfloat16",  # TRL's default, and that of dasd train for an adapter on such weights
        "gradient_checkpointing": options.checkpointing, "logging_steps": 1, "shuffle_dataset": False, "use_cpu": not GPU,
    }  # fmt: skip


def trainer_of(side: str, options: argparse.Namespace, folder: str) -> tuple[Any, list[int]]:
    """A trainer whose rollouts end at the lengths that are returned."""
    model, tokenizer = load_model(ModelConfig(path=str(options.folder), dtype=options.dtype))
    rows = problems(options.rollouts)
    lengths = natural_lengths(model, tokenizer, rows, options.completion)
    longest = max(lengths)
    adapter = LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM")
    given = {"train_dataset": Dataset.from_list(rows), "processing_class": tokenizer, "peft_config": adapter}
    plain = arguments(options, folder, longest)
    ends = sorted(end_tokens(model.generation_config, tokenizer))
    if side == "grpo":
        trainer: Any = GRPOTrainer(model, reward, GRPOConfig(**plain, beta=0.0), **given)
        base = trainer.model.get_base_model()
        generate = base.generate

        def ending(*args: Any, **kwargs: Any) -> Any:
            processor = EndsAt(lengths, ends, kwargs["input_ids"].shape[1])
            return generate(*args, logits_processor=LogitsProcessorList([processor]), **kwargs)

        base.generate = ending
    else:
        trainer = SelfDistillationTrainer(model, reward, SelfDistillationConfig(**plain, sampler="dasd"), **given)

        def without_ends(*args: Any, **kwargs: Any) -> Any:
            rule = kwargs.pop("warp")

            def warp(ids: torch.Tensor, mask: torch.Tensor, logits: torch.Tensor) -> torch.Tensor:
                return rule(ids, mask, logits.index_fill(1, torch.tensor(ends, device=logits.device), -torch.inf))

            return write(*args, warp=warp, limits=lengths, **kwargs)

        sampling.write = without_ends  # type: ignore[assignment]
    trainer.remove_callback(PrinterCallback)
    return trainer, lengths


class Clocks(TrainerCallback):
    """CPU and wall seconds of a whole step, and of its sampling."""

    def __init__(self, trainer: Any) -> None:
        self.taken: dict[str, float] = {}
        sample = trainer._generate_single_turn

        def clocked(*args: Any, **kwargs: Any) -> Any:
            began = time.process_time()
            written = sample(*args, **kwargs)
            self.taken["sampling_cpu_s"] = time.process_time() - began
            self.taken["tokens"] = sum(map(len, written[0]))
            return written

        trainer._generate_single_turn = clocked
        trainer.add_callback(self)

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = time.process_time(), time.perf_counter()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.taken["cpu_s"] = time.process_time() - self.began[0]
        self.taken["wall_s"] = time.perf_counter() - self.began[1]


def serve(side: str, options: argparse.Namespace) -> None:
    """Makes a step for each line that comes in, and answers with a line of figures."""
    with tempfile.TemporaryDirectory() as folder:
        trainer, lengths = trainer_of(side, options, folder)
        clocks, before, done = Clocks(trainer), resident(), threading.Event()
        peak = before

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.005):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        if options.memory:  # it takes processor time that would be counted
            watcher.start()
        for _ in sys.stdin:
            trainer.train()
            print("FIGURES", json.dumps(clocks.taken | {"lengths": lengths, "peak_bytes": peak - before}), flush=True)
        done.set()
        if options.memory:
            watcher.join()


GIVE_BACK = {"MALLOC_MMAP_THRESHOLD_": "1048576", "MALLOC_TRIM_THRESHOLD_": "1048576"}
KEEP = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "1000000000"}


def start(side: str, memory: bool) -> subprocess.Popen[str]:
    environment = os.environ | (GIVE_BACK if memory else KEEP)
    command = [sys.executable, *sys.argv, "--side", side]
    return subprocess.Popen(command, env=environment, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def step(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("step\n")
    process.stdin.flush()
    for line in process.stdout:
        if line.startswith("FIGURES"):
            return json.loads(line.removeprefix("FIGURES"))
    raise RuntimeError(f"{process.args} ended with {process.wait()}")


def compare(options: argparse.Namespace) -> dict[str, Any]:
    made = {side: start(side, options.memory) for side in SIDES}
    turns = []
    for number in range(1 if options.memory else options.rounds + 1):
        turns.append({side: step(process) for side, process in made.items()})
        print(number, json.dumps(turns[-1]), file=sys.stderr, flush=True)
    for process in made.values():
        process.communicate()
    timed, last = turns[1:], turns[-1]
    assert all(one["tokens"] == sum(one["lengths"]) == sum(last["dasd"]["lengths"]) for turn in turns for one in turn.values())
    result: dict[str, Any] = {"lengths": last["dasd"]["lengths"]}
    if options.memory:
        peaks = {f"{side}, peak bytes": last[side]["peak_bytes"] for side in SIDES}
        return result | peaks | {"memory: dasd / grpo": round(last["dasd"]["peak_bytes"] / last["grpo"]["peak_bytes"], 3)}
    for name, key in (("step", "cpu_s"), ("step, wall", "wall_s"), ("sampling", "sampling_cpu_s")):
        ratios = [round(turn["dasd"][key] / turn["grpo"][key], 3) for turn in timed]
        result |= {f"{name}: dasd / grpo": round(statistics.median(ratios), 3), f"{name}: dasd / grpo, each round": ratios}
    for side in SIDES:
        figures = {key: round(statistics.median(turn[side][key] for turn in timed), 1) for key in ("cpu_s", "sampling_cpu_s")}
        speed = last[side]["tokens"] / figures["sampling_cpu_s"]
        result[side] = figures | {"sampled_tokens_per_cpu_s": round(speed, 1)}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rollouts", type=int, default=16)
    parser.add_argument("--micro-batch", type=int, default=8)
    parser.add_argument("--completion", type=int, default=128)
    parser.add_argument("--checkpointing", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", action="store_true", help="measure memory, not time")
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    if options.side:
        serve(options.side, options)
        return
    found = compare(options)
    case = {
        name: getattr(options, name) for name in ("dtype", "rollouts", "micro_batch", "completion", "checkpointing", "rounds")
    }
    entry = {"model": options.folder.resolve().name, **case, "machine": machine(), "threads": torch.get_num_threads(), **found}
    entry["versions"] = {name: version(name) for name in ("torch", "transformers", "trl", "peft")}
    print(json.dumps(entry, indent=1))
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    name = f"{options.dtype}{', checkpointed' if options.checkpointing else ''}{', memory' if options.memory else ''}"
    write_json(options.output, known | {name: entry})


if __name__ == "__main__":
    main()
