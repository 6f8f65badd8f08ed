"""What does direction cost? A training step of DASD beside GRPO's, TRL's SDPO and one bare forward pass of the teacher.

    python benchmarks/step_cost.py CASE [--rounds 5] [--sides grpo,dasd] [--completion 1024 ...] [--output FILE]

All sides get the same prescribed rollouts (generation costs each of them the same and is left out) and take turns, one step
each, so that what else the machine does meets all. `grpo` is TRL's trainer, `grpo_here` the method grpo in ours. The bare pass
is what a teacher costs without better ideas: the model over padded teacher prompts and completions, in the same micro-batches,
log-probs only, by TRL's fused head in our tiles. Times are medians over rounds, ratios are medians of the rounds' ratios.
CLOCK=cpu counts the seconds of this process's cores, for a machine that is busy with other things.
Memory is the peak of a process of its own over what it held before its first step: resident on a CPU, allocated on a GPU.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from machine import machine
from transformers import PrinterCallback, Qwen3Config, Qwen3ForCausalLM, TrainerCallback
from transformers.utils import logging as transformers_logging
from trl import GRPOConfig, GRPOTrainer
from trl.experimental.sdpo import SDPOConfig, SDPOTrainer
from trl.trainer.utils import add_fused_lm_head

from dasd import SelfDistillationConfig, SelfDistillationTrainer
from dasd.config import ModelConfig, SamplerConfig
from dasd.evaluation.samplers import Request, SamplingParams, make_sampler
from dasd.files import write_json
from dasd.models import load_model, load_tokenizer
from dasd.prompts import tokenize_prompt
from dasd.tasks.countdown import make_problems
from dasd.teacher.context import PrivilegedContext
from dasd.training.trl_adapter import tiles_for

RESULTS = Path(__file__).parent / "results" / "step-cost-cpu.json"
BARE = "bare"
GPU = torch.cuda.is_available()
CLOCK = time.process_time if os.environ.get("CLOCK") == "cpu" else time.perf_counter  # cpu: seconds of this process's cores


@dataclass(frozen=True)
class Case:
    """A model and a batch of rollouts, lengths in tokens. Completions of a group are spread evenly in length."""

    shape: dict[str, int] | None  # sizes of a random Qwen3; None: the bundled model, its own prompts and rollouts
    rollouts: int
    micro_batch: int
    longest: int  # completion
    shortest: int = 0
    prompt: int = 0  # the student's
    reference: int = 0  # what the teacher's prompt has more
    group: int = 8


def qwen3(layers: int, hidden: int, intermediate: int, heads: int, kv_heads: int, head_dim: int, vocab: int) -> dict[str, int]:
    return {
        "num_hidden_layers": layers, "hidden_size": hidden, "intermediate_size": intermediate, "num_attention_heads": heads,
        "num_key_value_heads": kv_heads, "head_dim": head_dim, "vocab_size": vocab,
    }  # fmt: skip


CASES = {
    "bundled": Case(None, rollouts=128, micro_batch=64, longest=128),
    "vocabulary": Case(
        qwen3(2, 256, 768, 4, 2, 64, 151_936), rollouts=8, micro_batch=4, longest=512, shortest=128, prompt=128, reference=384
    ),
    "qwen3-0.6b": Case(
        qwen3(28, 1024, 3072, 16, 8, 128, 151_936),
        rollouts=32, micro_batch=4, longest=4096, shortest=1024, prompt=256, reference=2048,
    ),
    "qwen3-1.7b": Case(
        qwen3(28, 2048, 6144, 16, 8, 128, 151_936),
        rollouts=32, micro_batch=4, longest=4096, shortest=1024, prompt=256, reference=2048,
    ),
}  # fmt: skip


# The rollouts


@dataclass(frozen=True)
class Rollouts:
    """What every side is given: rows of a dataset, and `completions` in the order of the rows' groups."""

    rows: list[dict[str, Any]]
    completions: list[list[int]]

    def of(self, count: int) -> list[list[int]]:
        assert count == len(self.completions), f"{count} prompts for {len(self.completions)} completions"
        return [list(ids) for ids in self.completions]


def make_rollouts(case: Case) -> Rollouts:
    if case.shape is None:  # what the bundled model writes
        problems = make_problems(case.rollouts // case.group, 0, "train")
        rows = [_row(problem.problem, problem.solution or "") for problem in problems]
        requests = [Request(f"{i}/{n}", row["prompt"], n) for i, row in enumerate(rows) for n in range(case.group)]
        written = make_sampler(SamplerConfig(), ModelConfig()).sample(requests, SamplingParams(case.longest))
        return Rollouts(rows, [one.token_ids or [] for one in written])
    draw, size = torch.Generator().manual_seed(0), len(load_tokenizer(ModelConfig()))
    lengths = torch.linspace(case.shortest or case.longest, case.longest, case.group).round().int().tolist()
    groups = range(case.rollouts // case.group)
    rows = [_row(_digits(case.prompt, index), _digits(case.reference, index)) for index in groups]
    return Rollouts(rows, [torch.randint(size, (length,), generator=draw).tolist() for _ in groups for length in lengths])


def _row(problem: str, solution: str) -> dict[str, Any]:
    return {"prompt": [{"role": "user", "content": problem}], "solution": solution, "privileged_context": solution}


def _digits(tokens: int, seed: int) -> str:
    """Text of as many tokens, of the bundled tokenizer's."""
    return "".join(str((seed + 7 * index) % 10) for index in range(tokens))


def reward(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """0 or 1, both in most groups."""
    return [float(sum(ids) % 2) for ids in completion_ids]


# The sides. Each has the prescribed rollouts in place of its own generation, and nothing else changed.


def grpo(case: Case, model: Any, rollouts: Rollouts, folder: str) -> Any:
    class Prescribed(GRPOTrainer):
        def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
            return rollouts.of(len(prompt_ids)), None

    return _trainer(Prescribed, GRPOConfig(**_arguments(case, folder), beta=0.0), model, rollouts)


def ours(method: str) -> Callable[..., Any]:
    def build(case: Case, model: Any, rollouts: Rollouts, folder: str) -> Any:
        class Prescribed(SelfDistillationTrainer):
            def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
                return rollouts.of(len(prompt_ids)), None

        return _trainer(Prescribed, SelfDistillationConfig(**_arguments(case, folder), method=method), model, rollouts)

    return build


def sdpo(mode: str) -> Callable[..., Any]:
    def build(case: Case, model: Any, rollouts: Rollouts, folder: str) -> Any:
        class Prescribed(SDPOTrainer):
            def _generate(self, prompt_ids: Any) -> Any:
                return prompt_ids, rollouts.of(len(prompt_ids))

        arguments = SDPOConfig(
            **_arguments(case, folder), distillation_mode=mode, teacher_model_kind="live", use_successful_as_teacher=False,
            include_environment_feedback=True, feedback_template="{feedback_raw}", max_prompt_length=None,
        )  # fmt: skip
        return _trainer(Prescribed, arguments, model, rollouts)

    return build


SIDES: dict[str, Callable[..., Any]] = {
    "grpo": grpo,
    "grpo_here": ours("grpo"),
    "dasd": ours("dasd"),
    "sdpo_sampled": sdpo("sampled_token"),
    "sdpo_full": sdpo("full_logits"),
    "dasd_vocab": ours("dasd_vocab"),
}


def _arguments(case: Case, folder: str) -> dict[str, Any]:
    return {
        "output_dir": folder, "per_device_train_batch_size": case.micro_batch, "num_generations": case.group,
        "gradient_accumulation_steps": case.rollouts // case.micro_batch, "max_completion_length": case.longest,
        "max_steps": 1, "learning_rate": 1e-6, "report_to": [], "save_strategy": "no", "disable_tqdm": True, "bf16": GPU,
        "gradient_checkpointing": GPU, "logging_steps": 1, "shuffle_dataset": False, "temperature": 1.0,
    }  # fmt: skip


def _trainer(kind: Any, arguments: Any, model: Any, rollouts: Rollouts) -> Any:
    return kind(
        model, reward, arguments, train_dataset=Dataset.from_list(rollouts.rows), processing_class=load_tokenizer(ModelConfig())
    )


def make_model(case: Case) -> Any:
    if case.shape is None:
        return load_model(ModelConfig())[0]
    torch.manual_seed(0)
    tokenizer = load_tokenizer(ModelConfig())
    special = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    dtype = torch.bfloat16 if GPU else torch.float32
    with torch.device("cuda" if GPU else "cpu"):
        return Qwen3ForCausalLM(Qwen3Config(**case.shape, **special, tie_word_embeddings=True, dtype=dtype)).to(dtype)


def bare_forward(case: Case, model: Any, rollouts: Rollouts) -> Callable[[], Any]:
    """Log-probs of all completions after the teacher's prompts."""
    tokenizer = load_tokenizer(ModelConfig())
    told = [PrivilegedContext().prompt(row) for row in rollouts.rows]
    prompts = [tokenize_prompt(tokenizer, prompt or []) for prompt in told for _ in range(case.group)]
    width, room = max(map(len, prompts)), max(map(len, rollouts.completions))
    ids = torch.full((len(prompts), width + room), tokenizer.pad_token_id)
    mask = torch.zeros_like(ids)
    for row, (prompt, completion) in enumerate(zip(prompts, rollouts.completions, strict=True)):
        ids[row, width - len(prompt) : width + len(completion)] = torch.tensor([*prompt, *completion])
        mask[row, width - len(prompt) : width + len(completion)] = 1
    labels = ids.masked_fill(mask == 0, -100)
    labels[:, :width] = -100
    add_fused_lm_head(model)
    model.eval()

    @torch.no_grad()
    def forward() -> None:
        for start in range(0, len(ids), case.micro_batch):
            rows = [tensor[start : start + case.micro_batch].to(model.device) for tensor in (ids, mask, labels)]
            with torch.autocast(model.device.type, torch.bfloat16, enabled=GPU), tiles_for(model.device):
                model(input_ids=rows[0], attention_mask=rows[1], labels=rows[2], fused_lm_head=True)

    return forward


# Time


class Clock:
    """Seconds of each phase."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        began = _now()
        try:
            yield
        finally:
            self.seconds[name] += _now() - began

    def around(self, target: Any, method: str, name: str) -> None:
        """Counts the time of every call of this method."""
        call = getattr(target, method)

        def clocked(*args: Any, **kwargs: Any) -> Any:
            with self.phase(name):
                return call(*args, **kwargs)

        setattr(target, method, clocked)


def _now() -> float:
    if GPU:
        torch.cuda.synchronize()
    return CLOCK()


class StepClock(TrainerCallback):
    """From the start of an optimisation step, which makes the batch, to its end."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock

    def on_step_begin(self, *args: Any, **kwargs: Any) -> None:
        self.began = _now()

    def on_pre_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.before = _now()

    def on_optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        self.clock.seconds["optimiser"] += _now() - self.before

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self.clock.seconds["step"] += _now() - self.began


def stepper(side: str, case: Case, rollouts: Rollouts, folder: str) -> Callable[[], dict[str, float]]:
    """A function that makes one step, and returns the seconds of it and of its phases."""
    model = make_model(case)
    if side == BARE:
        forward = bare_forward(case, model, rollouts)

        def step() -> dict[str, float]:
            clock = Clock()
            with clock.phase("step"):
                forward()
            return clock.seconds

        return step
    trainer = SIDES[side](case, model, rollouts, folder)
    clock = Clock()
    trainer.remove_callback(PrinterCallback)
    trainer.add_callback(StepClock(clock))
    clock.around(trainer.accelerator, "backward", "backward")
    if isinstance(trainer, SelfDistillationTrainer):
        clock.around(trainer, "score_rollouts", "teacher")
        clock.around(trainer, "score_teacher", "teacher")
        clock.around(trainer, "credit", "credit")

    def step() -> dict[str, float]:
        clock.seconds.clear()
        trainer.train()
        return dict(clock.seconds)

    return step


def times(sides: Sequence[str], case: Case, rounds: int) -> dict[str, list[dict[str, float]]]:
    """Seconds of each side's steps, by phase; one step to warm up is not counted.

    On a GPU, where all models would not fit and the clock is steady, one side after the other.
    """
    rollouts, taken = make_rollouts(case), {}
    with tempfile.TemporaryDirectory() as folder:
        for together in [[side] for side in sides] if GPU else [sides]:
            steppers = {side: stepper(side, case, rollouts, f"{folder}/{side}") for side in together}
            turns = [{side: step() for side, step in steppers.items()} for _ in range(rounds + 1)]
            taken |= {side: [turn[side] for turn in turns[1:]] for side in together}
            del steppers
            if GPU:
                gc.collect()
                torch.cuda.empty_cache()
    return taken


def bf16_share(case: Case, seconds: dict[str, float], peak: float) -> dict[str, dict[str, float]]:
    """Completion tokens a second, and the model's own operations over the `peak` (operations a second) of the machine: 6 a
    parameter and token trained, 2 scored, causal attention; what is computed a second time does not count."""
    assert case.shape is not None
    rollouts, shape = make_rollouts(case), case.shape
    model = make_model(case).to("meta")
    weights = sum(parameter.numel() for parameter in model.parameters())  # tied: the embedding counts as the head
    lengths = list(map(len, rollouts.completions))

    def forward(prompt: int) -> float:
        attention = 2 * shape["num_hidden_layers"] * shape["num_attention_heads"] * shape["head_dim"]
        return sum(2 * weights * (prompt + n) + attention * (prompt + n) ** 2 for n in lengths)

    student, teacher = forward(case.prompt), forward(case.prompt + case.reference)
    work = {BARE: teacher, "grpo": 3 * student, "grpo_here": 3 * student, "dasd": 3 * student + teacher}
    return {
        side: {"tokens_per_s": round(sum(lengths) / seconds[side]), "bf16_share": round(work[side] / seconds[side] / peak, 3)}
        for side in work
        if side in seconds
    }


# Memory


def peak_memory(side: str, case: Case) -> int:
    """Bytes that two steps need at most, over what was there before them. To be called in a fresh process."""
    rollouts = make_rollouts(case)
    with tempfile.TemporaryDirectory() as folder:
        step = stepper(side, case, rollouts, folder)
        if GPU:
            before = torch.cuda.memory_allocated()
            torch.cuda.reset_peak_memory_stats()
            for _ in range(2):
                step()
            return torch.cuda.max_memory_allocated() - before
        before, done, peak = resident(), threading.Event(), 0

        def watch() -> None:
            nonlocal peak
            while not done.wait(0.002):
                peak = max(peak, resident())

        watcher = threading.Thread(target=watch)
        watcher.start()
        for _ in range(2):
            step()
        done.set()
        watcher.join()
        return peak - before


def resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def memory_of(side: str, name: str, changes: dict[str, int]) -> int:
    """`peak_memory` in a process of its own, whose allocator gives back at once what is freed."""
    command = [sys.executable, __file__, name, "--memory-of", side, "--changes", json.dumps(changes)]
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return int(done.stdout.splitlines()[-1])


# The figures


def summary(taken: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Medians of seconds and of the rounds' ratios."""

    def median(of: Callable[[int], float]) -> float:
        return round(statistics.median(of(i) for i in range(len(taken[BARE]))), 4)

    def step(side: str, i: int) -> float:
        return taken[side][i]["step"]

    result: dict[str, Any] = {"seconds": {side: median(lambda i, s=side: step(s, i)) for side in taken}}  # type: ignore[misc]
    result["seconds_of_each_round"] = {side: [round(one["step"], 4) for one in taken[side]] for side in taken}
    result["phases"] = {
        side: {name: median(lambda i, s=side, n=name: taken[s][i][n] / step(s, i)) for name in taken[side][0] if name != "step"}  # type: ignore[misc]
        for side in taken
        if side != BARE
    }
    ratios = {}
    for side in taken:
        if side not in ("grpo", BARE):
            ratios[f"{side} / grpo"] = median(lambda i, s=side: step(s, i) / step("grpo", i))  # type: ignore[misc]
        for base in taken.keys() & {"grpo", "grpo_here"} if side.startswith("dasd") else ():
            ratios[f"{side} / ({base} + bare)"] = median(lambda i, s=side, b=base: step(s, i) / (step(b, i) + step(BARE, i)))  # type: ignore[misc]
    return result | {"ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--sides", default=",".join(SIDES), help="with commas between; GRPO and the bare pass always run")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--peak-tflops", type=float, default=989.0, help="dense bf16, of the GPU; the default is an H100's (SXM)"
    )
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--changes", type=json.loads, default={}, help='fields of the case, e.g. {"longest": 1024}')
    parser.add_argument("--memory-of", help=argparse.SUPPRESS)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    transformers_logging.set_verbosity_error()
    case = replace(CASES[options.case], **options.changes)
    if options.memory_of:
        print(peak_memory(options.memory_of, case))
        return
    sides = [BARE, "grpo", "grpo_here", *(side for side in options.sides.split(",") if not side.startswith("grpo"))]
    found = summary(times(sides, case, options.rounds))
    if not options.no_memory:
        found["peak_bytes"] = {side: memory_of(side, options.case, options.changes) for side in sides}
    entry = {"case": asdict(case), "machine": machine(), "threads": torch.get_num_threads(), "clock": CLOCK.__name__, **found}
    if GPU:
        entry["throughput"] = bf16_share(case, found["seconds"], options.peak_tflops * 1e12)
    entry["versions"] = {name: version(name) for name in ("torch", "transformers", "trl")}
    print(json.dumps(entry, indent=1))
    known = json.loads(options.output.read_text()) if options.output.exists() else {}
    write_json(options.output, known | {options.case: entry})


if __name__ == "__main__":
    main()
