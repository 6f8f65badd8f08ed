"""Do a model and its tokenizer fit, and how long may a text be? Asked of their configs, before any weights are loaded.

Context length with what the rotary embedding's settings add, a vocabulary that holds every token, an end token and one to pad
with, and what of the model's own generation settings is not used.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from transformers import GenerationConfig

from dasd.config import BadInput

logger = logging.getLogger("dasd")
# These leave `max_position_embeddings` at what the model was pretrained with and reach `factor` times as far. Others (llama3,
# longrope) have the longer reach there already; so has every type of Gemma 3.
EXTENDING = ("linear", "dynamic", "yarn")
EXTENDED_ALREADY = ("gemma3",)
# What decides when a completion ends, or how it is computed: these are kept, or say nothing about which token is chosen.
KEPT = {
    "eos_token_id", "bos_token_id", "pad_token_id", "decoder_start_token_id", "transformers_version", "use_cache", "do_sample",
    "max_length", "max_new_tokens", "cache_implementation", "_from_model_config", "output_attentions",
    "output_hidden_states",
}  # fmt: skip


def context_length(config: Any) -> int | None:
    """Positions that a model reads, None where its config does not say.

    Rotary embeddings of the types in EXTENDING reach `factor` times their original length, which is
    `original_max_position_embeddings`, or where that is not given `max_position_embeddings`.
    """
    config = config.get_text_config()
    length: int | None = getattr(config, "max_position_embeddings", None)
    rope = getattr(config, "rope_parameters", None) or {}
    if length is None or any(config.model_type.startswith(name) for name in EXTENDED_ALREADY):
        return length
    each = [settings for settings in rope.values() if isinstance(settings, Mapping)] or [rope]  # one for each kind of layer
    reaches = [_reach(settings, length) for settings in each if settings]
    return min(reaches, default=length)


def _reach(rope: Mapping[str, Any], length: int) -> int:
    if rope.get("rope_type") not in EXTENDING:
        return length
    original, factor = rope.get("original_max_position_embeddings") or length, rope.get("factor") or 1.0
    return max(length, int(original * factor))


def completion_room(
    wanted: int, longest_prompt: int, limit: int | None, chosen: bool, name: str = "max_completion_length"
) -> int:
    """Tokens that a completion may have: `wanted`, or what the context leaves where that was not `chosen` by the user; logged.

    Raises BadInput where the user's choice does not fit, or nothing does.
    """
    if limit is None or longest_prompt + wanted <= limit:
        return wanted
    room = limit - longest_prompt
    if chosen or room < 1:
        remedy = f"set {name} to {room} or less" if room > 0 else "take shorter prompts, or a model with a longer context"
        raise BadInput(
            f"a prompt of {longest_prompt} tokens and {name} {wanted} exceed the model's context of {limit}: {remedy}"
        )
    logger.warning(
        "Completions may have %d tokens, not the usual %d: the longest prompt has %d, and the model's context is %d.",
        room, wanted, longest_prompt, limit,
    )  # fmt: skip
    return room


def fit_tokenizer(tokenizer: Any, config: Any, generation: GenerationConfig | None, path: str) -> None:
    """Gives a freshly loaded tokenizer the end and padding token that it lacks. Raises BadInput where it is another model's."""
    size = config.get_text_config().vocab_size
    highest = max(tokenizer.get_vocab().values())
    if highest >= size:
        token = tokenizer.convert_ids_to_tokens(highest)
        raise BadInput(
            f"model.path {path}: its tokenizer's token {token!r} has the number {highest}, and the model embeds the numbers 0 "
            f"to {size - 1}: is the tokenizer another model's, or were tokens added without resizing the model?"
        )
    if tokenizer.eos_token_id is None:
        ends = token_ids(getattr(generation, "eos_token_id", None)) or token_ids(getattr(config, "eos_token_id", None))
        known = [token for end in ends if (token := tokenizer.convert_ids_to_tokens(end)) is not None]
        if not known:
            raise BadInput(
                f"model.path {path}: neither its tokenizer nor its config names an end token, so no completion would ever end: "
                "set eos_token in its tokenizer_config.json"
            )
        tokenizer.eos_token = known[0]
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token


def own_settings(generation: GenerationConfig) -> dict[str, Any]:
    """What a model's own generation config says of which token is chosen."""
    return {name: value for name, value in generation.to_diff_dict().items() if name not in KEPT and value is not None}


def neutral(generation: GenerationConfig, path: str) -> GenerationConfig:
    """A generation config with the model's end, start and padding tokens alone: completions are sampled from the distribution
    that they are scored with, at the temperature (and top-p) that the command says. What is left out is logged."""
    ignored = own_settings(generation)
    if ignored:
        said = ", ".join(f"{name} {value}" for name, value in ignored.items())
        logger.warning(
            "Not used of %s's own generation settings: %s. The command's temperature and top_p hold.", path, said[:300]
        )
    tokens = {name: getattr(generation, name) for name in ("eos_token_id", "bos_token_id", "pad_token_id")}
    return GenerationConfig(**tokens)


def end_tokens(generation: GenerationConfig, tokenizer: Any) -> set[int]:
    """Where a completion ends, whoever samples it: at the model's end tokens, and at the tokenizer's, which a chat template may
    have set."""
    return {*token_ids(generation.eos_token_id), *token_ids(tokenizer.eos_token_id)}


def token_ids(value: Any) -> list[int]:
    """End tokens as configs have them: several, one or none."""
    return list(value) if isinstance(value, list | tuple) else [] if value is None else [value]
