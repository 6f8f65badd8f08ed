"""Makes a bundled base model: a Qwen3-architecture model of 0.9 M parameters that writes the texts of one bundled task.

    python -m dasd.assets.build countdown --output src/dasd/assets/countdown-1m
    python -m dasd.assets.build products --output src/dasd/assets/products-1m

Supervised training on texts of `countdown_search.Searcher` or `products_author.Author`, for problems of the `pretrain` split
only: three quarters of them as a student would see them, the rest with the reference solution in the prompt, so that the model
can play both roles. Some of the problems are broader (more numbers, larger ones). Deterministic given the seed and the number
of threads. The default settings take half an hour to 40 minutes on one CPU core.
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import GenerationConfig, PreTrainedTokenizerFast

from dasd.assets.pretraining import batches, make_model, make_tokenizer, train
from dasd.tasks import countdown, products
from dasd.tasks.countdown_search import OPENINGS, RESTARTS, Searcher
from dasd.tasks.countdown_steps import RESULT_LIMIT
from dasd.tasks.products_author import AGREEMENTS, CHECKS, CORRECTION, DOUBTS, RESULT, TURNS, VERBS, Author
from dasd.teacher.templates import TEACHER_TEMPLATES

Example = tuple[str, str]  # a user message, the text that answers it
TAUGHT_SHARE = 0.25  # of the texts have the reference in the prompt


# ---------------------------------------------------------------- Countdown

# A word carries its space and its comma or colon; a number its space; other marks stand alone.
COUNTDOWN_PATTERN = r" ?[A-Za-z]+[,:]?| ?[0-9]+| ?[^\sA-Za-z0-9]|\s"
PATIENT_SHARE = 0.25  # of the student's searches in the second part

STUDENT = Searcher(insight=0.05, attempts=(2, 4))
# Rarely it searches longer. Without these, reinforcement learning, whose first lesson is not to give up, leads into texts of a
# length the model has never seen, where its arithmetic fails.
PATIENT = Searcher(insight=0.05, attempts=(5, 6))
# With the reference in sight the search is short: mostly straight to the solution, sometimes after one failed attempt.
TEACHER = Searcher(insight=0.8, persistence=0.0, attempts=(3, 4))
BROAD_SPECS = (
    countdown.CountdownSpec(num_numbers=4),
    countdown.CountdownSpec(number_range=(1, 40), target_range=(10, RESULT_LIMIT)),
)


def countdown_words() -> set[str]:
    """Every word of the task and every number up to RESULT_LIMIT."""
    words = {"Use", " to", " make", " check", " alternatively", " answer:", "hmm,", " hmm,", " luck", " no"}
    words |= set(OPENINGS) | {f" {word}" for phrase in (*OPENINGS, *RESTARTS) for word in phrase.split()}
    return words | {f" {mark}" for mark in "+-*/=<>"} | {f" {n}" for n in range(RESULT_LIMIT + 1)}


def countdown_examples(rng: random.Random, patient_share: float) -> Iterator[Example]:
    core = countdown.make_problems(6_000, 0, "pretrain")
    broad = [problem for spec in BROAD_SPECS for problem in countdown.make_problems(3_000, 0, "pretrain", spec)]
    while True:
        problem = rng.choice(broad) if rng.random() < 0.1 else rng.choice(core)
        numbers, target = countdown.read_problem(problem.problem)
        if rng.random() < TAUGHT_SHARE:
            prompt = TEACHER_TEMPLATES["solution"].format(problem=problem.problem, context=problem.solution)
            yield prompt, TEACHER.write(numbers, target, rng)
        else:
            searcher = PATIENT if patient_share and rng.random() < patient_share else STUDENT
            yield problem.problem, searcher.write(numbers, target, rng)


# ---------------------------------------------------------------- Products

# A number is read in twos from its right end, 376 as 3 and 76, so that every product is at most two tokens.
PRODUCTS_PATTERN = r" ?[A-Za-z]+[,:]?| ?[0-9]{1,2}(?=(?:[0-9]{2})*(?![0-9]))| ?[^\sA-Za-z0-9]|\s"
UNTAUGHT = Author(check=0.35)
# Checks with the reference in sight are for nothing, and rare.
TAUGHT = Author(check=0.06, knows=True)


def products_words() -> set[str]:
    """Every word of the task, every number of two digits and every pair of digits within one."""
    words = {"Find", *TURNS}
    words |= {f" {word}" for word in (*TURNS, *VERBS, *DOUBTS, *CHECKS, *AGREEMENTS, CORRECTION, RESULT)}
    words |= {f" {name}{mark}" for name in products.NAMES for mark in ("", ":")}
    return words | {f" {mark}" for mark in "+*="} | {f" {n}" for n in range(100)} | {f"{n:02}" for n in range(100)}


def products_examples(rng: random.Random) -> Iterator[Example]:
    """Pairs are drawn afresh each time; a problem of another split is left out."""
    core, larger = products.all_pairs(*products.ProductsSpec().factors), products.all_pairs()
    while True:
        draw = rng.random()
        count = rng.randint(2, len(products.NAMES)) if draw < 0.15 else products.ProductsSpec().products
        pairs = rng.sample(larger if 0.15 <= draw < 0.35 else core, count)
        if products.split_of(pairs) != "pretrain":
            continue
        problem = products.make_problem(pairs)
        if rng.random() < TAUGHT_SHARE:
            prompt = TEACHER_TEMPLATES["solution"].format(problem=problem.problem, context=problem.solution)
            yield prompt, TAUGHT.write(pairs, rng)
        else:
            yield problem.problem, UNTAUGHT.write(pairs, rng)


# ---------------------------------------------------------------- both


@dataclass(frozen=True)
class Part:
    """One stretch of training with its own optimiser; `examples` are drawn with the random numbers they are given."""

    steps: int
    learning_rate: float
    examples: Callable[[random.Random], Iterator[Example]]


@dataclass(frozen=True)
class Base:
    """What makes one bundled model."""

    words: Callable[[], set[str]]
    pattern: str
    parts: tuple[Part, ...]
    tokens_per_batch: int
    max_new_tokens: int


BASES = {
    "countdown": Base(
        countdown_words,
        COUNTDOWN_PATTERN,
        (
            Part(2000, 3e-3, lambda rng: countdown_examples(rng, 0.0)),
            Part(500, 1e-3, lambda rng: countdown_examples(rng, PATIENT_SHARE)),
        ),
        tokens_per_batch=4096,
        max_new_tokens=96,
    ),
    "products": Base(
        products_words,
        PRODUCTS_PATTERN,
        (Part(6000, 3e-3, products_examples),),
        tokens_per_batch=2048,
        max_new_tokens=128,
    ),
}


def build_tokenizer(name: str = "countdown") -> PreTrainedTokenizerFast:
    """The tokenizer of one of BASES."""
    return make_tokenizer(BASES[name].words(), BASES[name].pattern)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", choices=sorted(BASES))
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, nargs="*", help="of each part of the training")
    parser.add_argument("--tokens-per-batch", type=int)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    base = BASES[args.base]
    tokens, steps = args.tokens_per_batch or base.tokens_per_batch, args.steps or [part.steps for part in base.parts]
    if len(steps) != len(base.parts):
        parser.error(f"--steps: {args.base} has {len(base.parts)} parts, got {len(steps)} numbers")

    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer(args.base)
    model = make_model(tokenizer, args.hidden_size, args.layers).to(args.device)
    print(f"{model.num_parameters():,} parameters, vocabulary of {len(tokenizer)}")
    for place, (part, count) in enumerate(zip(base.parts, steps, strict=True)):
        rng = random.Random(args.seed + place)
        train(model, batches(tokenizer, part.examples(rng), tokens, rng), count, part.learning_rate)
    model.generation_config = GenerationConfig(
        do_sample=True,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        max_new_tokens=base.max_new_tokens,
    )
    args.output.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()
