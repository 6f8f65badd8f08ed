"""In which passes are completions scored after prompts, so that little is computed twice or for padding?

Rows of like length share a pass, which is padded to its own longest row. Where a pass holds several rows of one prompt, as
groups do, it may read the prompt once and continue from its cache, with gradient too. Both cannot be had in full, so the order
is chosen that computes fewer tokens. The number of passes follows from the number of rows alone: sharded processes must make
the same ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from inspect import signature
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

# A prompt that is read once is one more call of the model, and its cache is copied to the rows: not for a few tokens.
WORTH_SHARING = 0.9


@dataclass(frozen=True)
class Plan:
    """Rows of each pass, and the tokens that all of them compute, padding included."""

    passes: list[list[int]]
    tokens: int


def by_length(prompts: Sequence[int], completions: Sequence[int], rows: Sequence[int], count: int) -> Plan:
    """Each row with its whole prompt. `prompts` and `completions` are lengths, `rows` the ones to score."""
    # The largest first: if memory does not suffice, that shows at once.
    ordered = sorted(rows, key=lambda row: prompts[row] + completions[row], reverse=True)
    passes = _split(ordered, count)
    return Plan(passes, sum(len(p) * (_longest(prompts, p) + _longest(completions, p)) for p in passes))


def by_prompt(
    prompts: Sequence[int], completions: Sequence[int], rows: Sequence[int], count: int, same: Sequence[Hashable]
) -> Plan:
    """Each prompt once in a pass; rows with equal `same` have equal prompts."""
    longest: dict[Hashable, int] = {}
    for row in rows:
        longest[same[row]] = max(longest.get(same[row], 0), prompts[row] + completions[row])
    first = {key: place for place, key in enumerate(longest)}
    ordered = sorted(rows, key=lambda row: (-longest[same[row]], first[same[row]], -completions[row]))
    passes = _split(ordered, count)
    read = sum(len({same[row] for row in p}) * (_longest(prompts, p) - 1) for p in passes)
    return Plan(passes, read + sum(len(p) * (_longest(completions, p) + 1) for p in passes))


def plan_of(
    model: Any, prompt_ids: Tensor, prompt_mask: Tensor, mask: Tensor, rows: list[int], size: int, accelerator: Any
) -> tuple[Plan, bool]:
    """In which passes of `size` these rows are scored, and whether each reads its prompts once: alike on all processes."""
    count = torch.tensor([-(-len(rows) // size)], device=mask.device)
    passes = int(accelerator.gather(count).max())
    if passes == 0:
        return Plan([], 0), False
    rows = rows or [0]  # takes part in the others' passes
    lengths = prompt_mask.sum(1).tolist(), mask.sum(1).tolist()
    whole = by_length(*lengths, rows, passes)
    if not reads_prompts_once(model):
        return whole, False
    once = by_prompt(*lengths, rows, passes, which_prompt(prompt_ids, prompt_mask).tolist())
    tokens = torch.tensor([whole.tokens, once.tokens], device=mask.device, dtype=torch.float32)
    total = accelerator.reduce(tokens, reduction="sum")
    shared = bool(total[1] < WORTH_SHARING * total[0])
    return (once if shared else whole), shared


def _split(rows: Sequence[int], count: int) -> list[list[int]]:
    """`count` passes of nearly equal size; with fewer rows than that some are scored twice."""
    rows = [rows[index % len(rows)] for index in range(max(len(rows), count))]
    edges = [len(rows) * number // count for number in range(count + 1)]
    return [list(rows[start:end]) for start, end in pairwise(edges)]


def _longest(lengths: Sequence[int], rows: Sequence[int]) -> int:
    return max(lengths[row] for row in rows)


def reads_prompts_once(model: Any) -> bool:
    """Whether a language model can continue many completions from the cache of one prompt: plain attention in all layers."""
    kinds = set(getattr(model.config.get_text_config(), "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and "logits_to_keep" in signature(model.forward).parameters


def drops_out(model: Any) -> bool:
    """Whether a pass in training mode leaves out numbers at random: rows that read a prompt once would leave out the same."""
    attention = getattr(model.config.get_text_config(), "attention_dropout", 0.0)
    return bool(attention) or any(module.p > 0 for module in model.modules() if isinstance(module, nn.Dropout))


def trains_on_shared_prompts(model: Any, arguments: Any, sharded: bool) -> bool:
    """Whether the training pass may read each prompt once and go on from its cache. Checkpointing keeps none; sharded processes
    must make the same calls."""
    return (
        reads_prompts_once(model)
        and not drops_out(model)
        and not (sharded or arguments.gradient_checkpointing or arguments.torch_compile)
    )


def worth_sharing(rows: int, different: int, prompt: int, completion: int, width: int) -> bool:
    """Whether enough tokens are saved: `prompt` and `completion` are the longest, `width` is that of a row as it comes."""
    return different * (prompt - 1) + rows * (completion + 1) < WORTH_SHARING * rows * width


def which_prompt(prompt_ids: Tensor, prompt_mask: Tensor) -> Tensor:
    """(B,) for each row a number of its prompt, from 0. Padding counts: its id may be that of a real token."""
    places: Tensor = torch.unique(torch.cat([prompt_ids, prompt_mask], dim=1), dim=0, return_inverse=True)[1]
    return places


def score_pass(
    model: Any, prompt_ids: Tensor, prompt_mask: Tensor, completion_ids: Tensor, completion_mask: Tensor, shared: bool, *,
    reader: Any = None, **outputs: bool,
) -> Any:  # fmt: skip
    """The output of TRL's fused head on (b, P) left-padded prompts and (b, T) completions; its last T places are theirs.

    reader   reads shared prompts; the model itself where that is None (one that synchronises processes is called once only)
    outputs  what else the head is to give
    """
    cache, mask = None, torch.cat([prompt_mask, completion_mask], dim=1)
    reader = model if reader is None else reader
    # Experts: their balance is a matter of the loss, and its mask would not fit a pass that goes on from a cache.
    more = {"output_router_logits": False} if hasattr(reader.config.get_text_config(), "output_router_logits") else {}
    if shared:
        source = which_prompt(prompt_ids, prompt_mask)
        first = [source.tolist().index(number) for number in range(int(source.max()) + 1)]
        read = reader(
            input_ids=prompt_ids[first, :-1], attention_mask=prompt_mask[first, :-1], use_cache=True, logits_to_keep=1, **more
        )
        cache = read.past_key_values
        cache.batch_select_indices(source)
        prompt_ids = prompt_ids[:, -1:]  # says the completion's first token
    labels = torch.cat([torch.full_like(prompt_ids, -100), completion_ids.masked_fill(completion_mask == 0, -100)], dim=1)
    return model(
        input_ids=torch.cat([prompt_ids, completion_ids], dim=1), attention_mask=mask, labels=labels,
        past_key_values=cache, fused_lm_head=True, **outputs, **more,
    )  # fmt: skip


def train_pass(model: Any, reader: Any, input_ids: Tensor, mask: Tensor, width: int) -> tuple[Tensor, Tensor, None] | None:
    """(B, width) log-probs and entropies, with gradient, of the last `width` places of (B, L) padded rows; the third is TRL's.

    Each prompt is read once, by `reader`, and no row further than its longest. None where that is hardly less work.
    """
    prompts, asked = input_ids[:, :-width], mask[:, :-width]
    longest, start = max(int(mask[:, -width:].any(0).sum()), 1), int(asked.argmax(1).min())
    different = int(which_prompt(prompts, asked).max()) + 1
    if not worth_sharing(len(prompts), different, prompts.size(1) - start, longest, input_ids.size(1)):
        return None
    completions, written = (each[:, -width:][:, :longest] for each in (input_ids, mask))
    output = score_pass(model, prompts[:, start:], asked[:, start:], completions, written, True, reader=reader)
    return last_places(output.log_probs, width), last_places(output.entropy, width), None


def last_places(tensor: Tensor, width: int) -> Tensor:
    """(B, width, ...) of (B, L, ...); where there are fewer, zeros behind them."""
    tensor = tensor[:, -width:]
    if (missing := width - tensor.size(1)) == 0:
        return tensor
    return torch.cat([tensor, tensor.new_zeros(tensor.size(0), missing, *tensor.shape[2:])], dim=1)


def count_positions_by_mask(model: Any) -> None:
    """From now on positions count the tokens that the mask keeps, wherever they are not given, as generation counts them.

    Else a model with learned absolute positions counts the padding, too, of which student and teacher have different amounts:
    the same prompt would then give another log-prob.
    """
    if "position_ids" not in signature(type(model).forward).parameters:
        return

    def count(module: Any, args: Any, given: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        ids, mask = given.get("input_ids"), given.get("attention_mask")
        if given.get("position_ids") is None and given.get("pixel_values") is None and ids is not None and mask is not None:
            given["position_ids"] = (mask.long().cumsum(-1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        return args, given

    model.register_forward_pre_hook(count, with_kwargs=True)


def has_learned_positions(model: Any) -> bool:
    """Whether a token's place is a learned vector of its own, as in GPT-2, and not a matter of distances."""
    return any(
        isinstance(module, nn.Embedding) and name.rpartition(".")[2] in ("wpe", "embed_positions", "position_embeddings")
        for name, module in model.named_modules()
    )
