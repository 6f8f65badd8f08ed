"""How is a small base model made from texts? Tokenizer, model, batches and training, whatever the texts are of.

Imports nothing of the rest of the package.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

PAD, START, END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTEXT_LENGTH = 512
CHAT_WORDS = {"user", "assistant", "system"}
TEACHER_WORDS = {
    "Reference",
    " solution:",
    " answer",
    " is",
    " the",
    " The",
    " problem",
    " hint:",
}  # of its templates
ROWS_AT_ONCE = 8192  # among which rows of similar length find each other


def make_tokenizer(words: set[str], pattern: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE whose merges make every one of `words`, and everything in CHAT_WORDS and TEACHER_WORDS, one token.

    `pattern` cuts a text into what a token never reaches beyond. Byte-level: any text can be encoded, and decoding gives the
    same text back.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, min_frequency=1, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator(sorted(words | CHAT_WORDS | TEACHER_WORDS), trainer)
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


def make_model(tokenizer: PreTrainedTokenizerFast, hidden_size: int = 128, layers: int = 4) -> Qwen3ForCausalLM:
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


def batches(
    tokenizer: PreTrainedTokenizerFast, examples: Iterable[tuple[str, str]], tokens_per_batch: int, rng: random.Random
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless (input_ids, labels), each (B, T), of rows of similar length; labels count the completion only.

    `examples` are endless, too: a user message and the text that answers it.
    """
    source = iter(examples)
    while True:
        rows = [(prompt, completion + END) for prompt, completion in islice(source, ROWS_AT_ONCE)]
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
