"""How does transformers sample many completions quickly, each from its own seed?

`model.generate` computes every row until the longest is done. Completions differ much in length, so here rows leave the batch
and the KV cache when they end, and a prompt that is sampled several times is read once.

A token is the inverse of the distribution function at one uniform number, and a completion's uniform numbers come from its own
seed: it is the same in whatever batch it is sampled, up to the rounding of the logits.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from transformers import DynamicCache, LogitsProcessorList, TemperatureLogitsWarper, TopPLogitsWarper

from dasd.config import BadInput
from dasd.cpu_layout import laid_out
from dasd.evaluation.samplers.base import UNWATCHED, Messages, Request, Sampled, SamplingParams, Watch
from dasd.model_fit import context_length, end_tokens
from dasd.models import keep_head_input_contiguous
from dasd.prompts import tokenize_prompt

BLOCK = 128  # tokens whose probabilities are added up before one is chosen
DRAWN_AT_ONCE = 2**20  # logits, on a CPU: what is made of them stays in its cache
SHRINK_AT = 0.85  # the batch is cut down when less than this share of its rows is still writing
# (n, S) token ids so far, left-padded, (n, S) their mask, (n, V) float32 logits of the next token -> those it is drawn from
Warp = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


class TransformersSampler:
    """Samples from a loaded model where it is (`model.device`)."""

    def __init__(
        self, model: Any, tokenizer: Any, batch_size: int = 256, chat_template_kwargs: Mapping[str, Any] | None = None
    ) -> None:
        self.model, self.tokenizer, self.batch_size = model, tokenizer, batch_size
        self.template = dict(chat_template_kwargs or {})
        self.deterministic = model.dtype == torch.float32  # coarser logits round differently in another batch
        self.context_length: int | None = context_length(model.config)

    def longest_prompt(self, prompts: Sequence[Messages]) -> int:
        return max(map(len, _distinct(self.tokenizer, prompts, self.template)[0]))

    def sample(self, requests: Sequence[Request], params: SamplingParams, watch: Watch = UNWATCHED) -> list[Sampled]:
        prompts, rows = _distinct(self.tokenizer, [request.prompt for request in requests], self.template)
        noise = uniforms([request.seed for request in requests], params.max_completion_length)
        ends = end_tokens(self.model.generation_config, self.tokenizer)
        completions: dict[int, Sampled] = {}

        def finished(row: int, token_ids: list[int]) -> None:
            text = self.tokenizer.decode(token_ids, skip_special_tokens=True)
            completions[row] = Sampled(token_ids, text, "stop" if token_ids[-1] in ends else "length")
            watch.finished(requests[row], completions[row])

        pad = self.tokenizer.pad_token_id
        write(self.model, prompts, rows, noise, params, sorted(ends), pad, finished=finished, tokens=watch.tokens)
        return [completions[row] for row in range(len(requests))]

    def describe(self) -> dict[str, Any]:
        return {
            "backend": "transformers",
            "model": self.model.name_or_path,
            "dtype": str(self.model.dtype).removeprefix("torch."),
            "device": self.model.device.type,
            "deterministic": self.deterministic,
            "transformers": transformers.__version__,
            "torch": torch.__version__,
        }

    def close(self) -> None:
        del self.model


def write(
    model: Any, prompts: Sequence[list[int]], rows: Sequence[int], noise: np.ndarray, params: SamplingParams,
    ends: Sequence[int], pad: int, *, warp: Warp | None = None, first: Sequence[int | None] | None = None,
    limits: Sequence[int] | None = None, finished: Callable[[int, list[int]], None] = lambda row, token_ids: None,
    tokens: Callable[[int], None] = lambda count: None,
) -> list[list[int]]:  # fmt: skip
    """Token ids of one completion for each entry of `rows`, which says the prompt it continues; each prompt is read once.

    noise      (len(rows), max_completion_length) uniform numbers in [0, 1), one for each token
    ends       tokens that end a completion; they are written too
    warp       in place of `params`' temperature and top_p; a temperature of 0 is greedy all the same
    first      a row's first token where it is not to be drawn; its place in `noise` is passed over
    limits     tokens a row may have, at most max_completion_length
    finished   called with each row and its token ids when it ends
    tokens     called after each step with the number of tokens written

    Raises BadInput where the model's logits are not numbers.
    """
    hook, warp = keep_head_input_contiguous(model), warp or _warp(params)
    try:
        with laid_out(model):
            return _write(model, prompts, rows, noise, params, ends, pad, warp, first, limits, finished, tokens)
    finally:
        hook.remove()


@torch.no_grad()  # not inference mode: buffers that a model in training renews here would be of no use to its backward pass
def _write(
    model: Any, prompts: Sequence[list[int]], rows: Sequence[int], noise: np.ndarray, params: SamplingParams,
    ends: Sequence[int], pad: int, warp: Warp, first: Sequence[int | None] | None, limits: Sequence[int] | None,
    finished: Callable[[int, list[int]], None], tokens: Callable[[int], None],
) -> list[list[int]]:  # fmt: skip
    device = model.device
    end_ids = torch.tensor(ends, device=device)
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad, device=device)
    mask = torch.zeros_like(ids)
    for index, prompt in enumerate(prompts):  # left padding
        ids[index, width - len(prompt) :] = torch.tensor(prompt, device=device)
        mask[index, width - len(prompt) :] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.config)
    given: dict[str, Any] = {"past_key_values": cache, "use_cache": True, "logits_to_keep": 1}
    if hasattr(model.config.get_text_config(), "output_router_logits"):
        given["output_router_logits"] = False  # the balance of experts is a matter of the loss, and its mask would not fit

    def read() -> torch.Tensor:
        """Logits after the tokens that the cache does not have yet."""
        output = model(input_ids=ids[:, -positions.shape[1] :], attention_mask=mask, position_ids=positions, **given)
        return output.logits[:, -1]

    def draw(step: int) -> torch.Tensor:
        """(B,) the next tokens, a few rows at once: with a large vocabulary all rows' probabilities would take longer."""
        rows = max(1, DRAWN_AT_ONCE // logits.shape[-1]) if device.type == "cpu" else len(logits)
        drawn = []
        for part in (slice(start, start + rows) for start in range(0, len(logits), rows)):
            scores = warp(ids[part], mask[part], logits[part].float())
            if not scores.amax(-1).isfinite().all():
                raise BadInput(
                    f"the model's logits are not finite numbers at token {step + 1}: its weights are broken (a run that "
                    "diverged?) or its type overflows: try --model.dtype float32"
                )
            greedy = params.temperature == 0
            drawn.append(scores.argmax(-1) if greedy else pick(scores.softmax(-1), uniform[alive[part], step]))
        return torch.cat(drawn)

    source = torch.tensor(rows, device=device)
    logits = read()[source]
    cache.reorder_cache(source)  # also of recurrent layers, which batch_select_indices forgets
    ids, mask, positions = ids[source], mask[source], positions[source]
    uniform = torch.from_numpy(noise).to(device)
    written = torch.full(noise.shape, -1, device=device)
    longest = min(params.max_completion_length, max(limits or [params.max_completion_length]))
    last = torch.tensor(limits or [longest] * len(rows), device=device)
    forced = torch.tensor([-1 if token is None else token for token in first or [None] * len(rows)], device=device)
    alive = torch.arange(len(rows), device=device)  # the completion that each row of the batch writes
    writing = torch.ones_like(alive, dtype=torch.bool)
    for step in range(longest):
        drawn = draw(step)
        if step == 0 and first is not None:
            drawn = torch.where(forced >= 0, forced, drawn)
        written[alive[writing], step] = drawn[writing]
        tokens(int(writing.sum()))
        ended = writing & (torch.isin(drawn, end_ids) | (last[alive] <= step + 1))
        if ended.any():
            for row in alive[ended].tolist():
                finished(row, written[row, : step + 1].tolist())
        writing &= ~ended
        left = int(writing.sum())
        if left == 0:
            break
        if left < SHRINK_AT * len(alive):
            cache.reorder_cache(writing.nonzero()[:, 0])
            alive, drawn, ids, mask, positions = (part[writing] for part in (alive, drawn, ids, mask, positions))
            writing = writing[writing]
        ids = torch.cat([ids, drawn[:, None]], dim=1)
        mask = torch.cat([mask, mask.new_ones(len(alive), 1)], dim=1)
        positions = positions[:, -1:] + 1
        logits = read()
    return [ids[: ids.index(-1)] if -1 in ids else ids for ids in written.tolist()]


def uniforms(seeds: Sequence[int | Sequence[int]], length: int) -> np.ndarray:
    """(len(seeds), length) float64 in [0, 1); a row depends on its seed (one number or several, 0 or more) alone, and a longer
    row begins with the shorter one."""
    return np.stack([np.random.default_rng(seed).random(length) for seed in seeds])


def pick(probabilities: torch.Tensor, uniform: torch.Tensor) -> torch.Tensor:
    """(B,) tokens: the first whose cumulated probability exceeds its row's uniform number. Never one of probability 0.

    probabilities (B, V), need not sum to exactly 1; uniform (B,) float64 in [0, 1). A block of tokens is chosen by the blocks'
    sums, then a token in it, so each token has its probability to a float32's relative rounding: in one float32 sum the rare
    tokens of a large vocabulary would vanish, and one float64 sum takes a quarter of the sampling time.
    """
    if rest := -probabilities.shape[-1] % BLOCK:
        probabilities = torch.nn.functional.pad(probabilities, (0, rest))
    blocks = probabilities.unflatten(-1, (-1, BLOCK))
    sums = blocks.sum(-1).double()
    block, part = _first_above(sums, uniform)
    inside = blocks.take_along_dim(block[:, None, None], dim=1)[:, 0].double()
    return block * BLOCK + _first_above(inside, part)[0]


def _first_above(weights: torch.Tensor, uniform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """((B,) index of the first cumulated weight above its share `uniform` of the total, (B,) where in that weight's own part
    the share falls, in [0, 1))."""
    upto = weights.cumsum(-1)
    total = upto[:, -1:]
    target = torch.minimum(uniform[:, None] * total, total.nextafter(torch.zeros_like(total)))  # u near 1 must not round to all
    index = torch.searchsorted(upto, target, right=True)
    weight = weights.gather(-1, index)
    part = (target - (upto.gather(-1, index) - weight)) / weight
    return index[:, 0], part[:, 0].clamp(0, 1 - 2**-53)


def _distinct(tokenizer: Any, prompts: Sequence[Messages], template: Mapping[str, Any]) -> tuple[list[list[int]], list[int]]:
    """(token ids of each different prompt, for each prompt which of them it is)."""
    texts = [json.dumps(prompt, sort_keys=True) for prompt in prompts]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    prompt_of = dict(zip(texts, prompts, strict=True))
    ids = [tokenize_prompt(tokenizer, prompt_of[text], **template) for text in places]
    return ids, [places[text] for text in texts]


def _warp(params: SamplingParams) -> Warp:
    warpers = LogitsProcessorList()
    if params.temperature not in (0.0, 1.0):
        warpers.append(TemperatureLogitsWarper(params.temperature))
    if params.top_p < 1.0 and params.temperature > 0:
        warpers.append(TopPLogitsWarper(params.top_p))
    return lambda ids, mask, logits: warpers(ids, logits)
