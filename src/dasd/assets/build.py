"""Makes the bundled base model: a Qwen3-architecture model of 0.9 M parameters that searches Countdown aloud.

    python -m dasd.assets.build --output src/dasd/assets/countdown-1m

Supervised training on texts of `countdown_search.Searcher`, for problems of the `pretrain` split only: three quarters of
them as a student would see them, the rest with the reference solution in the prompt, so that the model can play both roles.
A tenth of the problems are broader (four numbers, larger numbers and targets). Deterministic given the seed and the number of
threads. The default settings take about 40 minutes on two CPU cores.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GenerationConfig, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from dasd.tasks.base import Problem
from dasd.tasks.countdown import CountdownSpec, make_problems, read_problem
from dasd.tasks.countdown_search import OPENINGS, RESTARTS, Searcher
from dasd.tasks.countdown_steps import RESULT_LIMIT
from dasd.teacher.templates import TEACHER_TEMPLATES

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTEXT_LENGTH = 512
PATIENT_SHARE = 0.25  # of the student's searches in the second part

STUDENT = Searcher(insight=0.05, attempts=(2, 4))
# Rarely it searches longer. Without these, reinforcement learning, whose first lesson is not to give up, leads into texts of a
# length the model has never seen, where its arithmetic fails.
PATIENT = Searcher(insight=0.05, attempts=(5, 6))
# With the reference in sight the search is short: mostly straight to the solution, sometimes after one failed attempt.
TEACHER = Searcher(insight=0.8, persistence=0.0, attempts=(3, 4))
BROAD_SPECS = (
    CountdownSpec(num_numbers=4),
    CountdownSpec(number_range=(1, 40), target_range=(10, RESULT_LIMIT)),
)


def build_tokenizer() -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges make every word of the task and every number up to RESULT_LIMIT one token.

    Byte-level: any text can be encoded, and decoding gives the same text back.
    """
    tokenizer = Tokenizer(models.BPE())
    # A word carries its space and its comma or colon; a number its space; other marks stand alone.
    pattern = Regex(r" ?[A-Za-z]+[,:]?| ?[0-9]+| ?[^\sA-Za-z0-9]|\s")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(pattern, behavior="isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    words = {
        "user",
        "assistant",
        "system",
        "Use",
        " to",
        " make",
        " check",
        " alternatively",
        " answer:",
        "hmm,",
        " hmm,",
        " luck",
        " no",
    }
    words |= set(OPENINGS) | {f" {word}" for phrase in (*OPENINGS, *RESTARTS) for word in phrase.split()}
    words |= {"Reference", " solution:", " answer", " is", " the", " The", " problem", " hint:"}
    words |= {f" {mark}" for mark in "+-*/=<>"} | {f" {n}" for n in range(RESULT_LIMIT + 1)}
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(sorted(words), trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in (PAD, START, END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[START],
        chat_template=CHAT_TEMPLATE,
        model_max_length=CONTEXT_LENGTH,
        clean_up_tokenization_spaces=False,
    )


def build_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int = 128, layers: int = 4) -> Qwen3ForCausalLM:
    """A random model; hidden sizes are multiples of 64."""
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=3 * hidden_size,
        num_hidden_layers=layers,
        num_attention_heads=hidden_size // 32,
        num_key_value_heads=hidden_size // 64,
        head_dim=32,
        max_position_embeddings=CONTEXT_LENGTH,
        tie_word_embeddings=True,
        rope_parameters={"rope_type": "default", "rope_theta": 10_000.0},
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        attention_dropout=0.0,
    )
    return Qwen3ForCausalLM(config)


def example(problem: Problem, with_reference: bool, patient_share: float, rng: random.Random) -> tuple[str, str]:
    """A user message and the search that answers it."""
    numbers, target = read_problem(problem.problem)
    if with_reference:
        prompt = TEACHER_TEMPLATES["solution"].format(problem=problem.problem, context=problem.solution)
        return prompt, TEACHER.write(numbers, target, rng)
    searcher = PATIENT if patient_share and rng.random() < patient_share else STUDENT
    return problem.problem, searcher.write(numbers, target, rng)


def batches(
    tokenizer: PreTrainedTokenizerFast, tokens_per_batch: int, patient_share: float, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, labels), each (B, T), of rows of similar length; labels count the completion only."""
    core = make_problems(6_000, 0, "pretrain")
    broad = [problem for spec in BROAD_SPECS for problem in make_problems(3_000, 0, "pretrain", spec)]
    while True:
        rows = []
        for _ in range(8192):
            problem = rng.choice(broad) if rng.random() < 0.1 else rng.choice(core)
            prompt, completion = example(problem, rng.random() < 0.25, patient_share, rng)
            rows.append((prompt, completion + END))
        prompts = tokenizer.apply_chat_template(
            [[{"role": "user", "content": prompt}] for prompt, _ in rows], add_generation_prompt=True, return_dict=True
        )["input_ids"]
        completions = tokenizer([completion for _, completion in rows], add_special_tokens=False)["input_ids"]
        encoded = sorted(zip(prompts, completions, strict=True), key=lambda row: len(row[0]) + len(row[1]))
        groups: list[list[tuple[list[int], list[int]]]] = []
        group: list[tuple[list[int], list[int]]] = []
        longest = 0
        for row in encoded:
            longest = max(longest, len(row[0]) + len(row[1]))
            if group and longest * (len(group) + 1) > tokens_per_batch:
                groups.append(group)
                group, longest = [], len(row[0]) + len(row[1])
            group.append(row)
        rng.shuffle(groups)  # the shorter last group is left out
        for group in groups:
            width = max(len(p) + len(c) for p, c in group)
            ids = torch.full((len(group), width), tokenizer.pad_token_id)
            labels = torch.full_like(ids, -100)
            for i, (p, c) in enumerate(group):
                ids[i, : len(p) + len(c)] = torch.tensor(p + c)
                labels[i, len(p) : len(p) + len(c)] = torch.tensor(c)
            yield ids, labels


def train(model: Qwen3ForCausalLM, data: Iterator, steps: int, learning_rate: float, log_every: int = 100) -> None:
    """AdamW, linear warm-up over 100 steps, cosine decay to zero."""
    decayed = [p for p in model.parameters() if p.ndim >= 2]
    plain = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=learning_rate, betas=(0.9, 0.98), fused=True)
    warm_then_cosine = lambda s: min((s + 1) / 100, 0.5 * (1 + math.cos(math.pi * s / steps)))  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, warm_then_cosine)
    model.train()
    started, running = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        ids, labels = (tensor.to(model.device) for tensor in next(data))
        # Right padding and a causal model: what stands after a row's end cannot reach it, so no mask is needed.
        hidden = model.model(input_ids=ids).last_hidden_state[:, :-1]
        counted = labels[:, 1:] != -100
        loss = torch.nn.functional.cross_entropy(model.lm_head(hidden[counted]), labels[:, 1:][counted])
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        running += loss.item()
        if step % log_every == 0 or step == steps:
            seconds = time.perf_counter() - started
            left = seconds / step * (steps - step)
            print(f"step {step}/{steps}  loss {running / log_every:.4f}  {seconds:.0f} s, {left:.0f} s left", flush=True)
            running = 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--patient-steps", type=int, default=500)
    parser.add_argument("--tokens-per-batch", type=int, default=4096)
    parser.add_argument("--learning-rate", type=float, default=3e-3)
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    torch.manual_seed(args.seed)
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, args.hidden_size, args.layers).to(args.device)
    print(f"{model.num_parameters():,} parameters, vocabulary of {len(tokenizer)}")
    first = batches(tokenizer, args.tokens_per_batch, 0.0, random.Random(args.seed))
    train(model, first, args.steps, args.learning_rate)
    second = batches(tokenizer, args.tokens_per_batch, PATIENT_SHARE, random.Random(args.seed + 1))
    train(model, second, args.patient_steps, args.learning_rate / 3)
    model.generation_config = GenerationConfig(
        do_sample=True, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, max_new_tokens=96
    )
    args.output.mkdir(parents=True, exist_ok=True)
    model.eval().save_pretrained(args.output)
    tokenizer.save_pretrained(args.output)


if __name__ == "__main__":
    main()
