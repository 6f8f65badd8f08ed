"""How much memory does each GPU need, part by part? Sizes in, bytes out, each line short enough to redo by hand.

Two moments count: *generate* (rollouts are sampled) and *update* (a micro-batch goes forward and back). `docs/memory.md` has
the arithmetic with a worked example, and how far measured peaks lie from it. What one layer keeps per token (`SAVED`) was read
off the storages that autograd holds in transformers' Qwen3 with a padded batch; other dense decoders keep no more.

Imports neither torch nor TRL; `tests/training/test_memory.py` compares the two tile sizes with TRL's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

GIB = 2**30
Sharding = Literal["none", "zero2", "zero3", "fsdp2"]
# The head works on tiles of so many (tokens, logits): TRL's own on a GPU, smaller ones on a CPU (`trl_adapter.tiles_for`).
TILES = {"gpu": (4096, 32768), "cpu": (512, 2048)}
# Methods that compare distributions: 16 float32 tensors of a chunk of 64 MiB (jsd, measured), or in TRL's fused kernel two
# float32 tiles and a bfloat16 one, 1.25 GiB.
DIVERGENCE_TILES = 20 * 2**26
CUDA_CONTEXT = 1.0 * GIB  # assumed: the driver's context, cuBLAS and NCCL
PROCESS = 0.64 * GIB  # measured on a CPU: Python with torch, transformers, TRL and a tokenizer of 152,000 entries
ZERO_BUCKETS = 2 * 500_000_000  # DeepSpeed's default: elements of its reduce and gather buckets
USABLE = 0.95  # of a GPU; the allocator leaves gaps

# Bytes that one layer keeps for the backward pass, for each token and each unit of (hidden, query, key and value, MLP) width,
# in four precisions: all weights trained, then with LoRA. "cast" is a bfloat16 base without autocast: PEFT casts the input of
# every adapter to float32, and each cast is kept.
SAVED = {
    "bfloat16": ((16, 14, 6, 8), (18, 10, 8, 8)),
    "autocast": ((26, 14, 6, 8), (18, 10, 8, 8)),
    "float32": ((24, 24, 8, 16), (16, 20, 4, 16)),
    "cast": ((16, 14, 6, 8), (28, 16, 4, 10)),
}
# What of it, for each unit of query and of key and value width, belongs to norms that queries and keys have of their own, as in
# Qwen3 and Gemma 3; where that was not measured (0), models without them are taken to keep as much.
HEAD_NORMS = {"bfloat16": (6, 0), "autocast": (0, 0), "float32": (8, 4), "cast": (6, 4)}
# Bytes of an optimiser's state for one trained float32 weight; where the weight has two bytes, AdamW's states have too.
STATES = {
    "adamw_torch": 8, "adamw_torch_fused": 8, "adamw_8bit": 2, "adamw_bnb_8bit": 2, "paged_adamw_8bit": 2,
    "sgd": 0, "adafactor": 0,
}  # fmt: skip


@dataclass(frozen=True)
class ModelSizes:
    """A dense decoder. Widths in units: `query` is heads x head size, `key_value` is key-value heads x head size."""

    parameters: int  # all of them, an adapter's too
    trainable: int
    layers: int
    hidden: int
    query: int
    key_value: int
    intermediate: int
    vocab: int
    weight_bytes: int  # of one weight as it is loaded: 2 or 4
    head_norms: bool = True  # queries and keys are normalised, as in Qwen3 and Gemma 3
    packed_bytes: float = 0.0  # of one weight of the layers' projections, where they are frozen in 8 or 4 bits: 1 or about 0.52

    @property
    def lora(self) -> bool:
        return self.trainable < self.parameters

    @property
    def frozen(self) -> int:
        return self.parameters - self.trainable

    @property
    def one_layer(self) -> int:
        """Weights of one layer's projections."""
        return self.hidden * (2 * self.query + 2 * self.key_value + 3 * self.intermediate)

    @property
    def head(self) -> int:
        return self.vocab * self.hidden


@dataclass(frozen=True)
class Workload:
    """What one GPU is asked to do."""

    micro_batch: int  # completions in one forward and backward pass
    rollouts: int  # completions generated at once
    prompt: int  # tokens
    completion: int  # tokens
    processes: int = 1
    sharding: Sharding = "none"
    device: Literal["gpu", "cpu"] = "gpu"
    prompts: int | None = None  # different ones among those of `rollouts`, where each is read once; None: one a rollout
    lays_out: bool = False  # sampling on a CPU reads a copy of the bfloat16 weights (`cpu_layout`)
    different: int | None = None  # prompts of a micro-batch, of which the training pass reads each once; None: one a row
    bf16: bool = True
    checkpointing: bool = True
    accumulates: bool = False  # several micro-batches an optimisation step, whose gradients are reduced after the last
    generations_per_step: int = 1
    optimizer: str = "adamw_torch_fused"
    teacher_copy: Literal["none", "weights", "float32"] = "none"
    looks_ahead: bool = False  # keeps two moments and a sum of the verifier's gradient, and the weights while it looks
    compares_distributions: bool = False
    reference: bool = False  # a reference model beside the policy (TRL's beta above 0, without LoRA)
    vllm: Literal["none", "colocate", "server"] = "none"
    vllm_bytes: float = 0.0  # colocate: what vLLM takes of this GPU
    vllm_sleeps: bool = False

    @property
    def sequence(self) -> int:
        return self.prompt + self.completion

    @property
    def tokens(self) -> int:
        """Computed in a training pass."""
        if self.different is None:
            return self.micro_batch * self.sequence
        return self.different * self.prompt + self.micro_batch * (self.completion + 1)

    @property
    def scored(self) -> int:
        return self.micro_batch * self.completion


@dataclass(frozen=True)
class Part:
    """Bytes while rollouts are generated and while a micro-batch is learnt from, and the sum they come from, in words."""

    name: str
    generate: float
    update: float
    how: str


def estimate(sizes: ModelSizes, work: Workload) -> list[Part]:
    """The parts of one GPU's memory that are not empty. Raises ValueError for an optimiser whose states are not known."""
    parts = [
        _weights(sizes, work), _gradients(sizes, work), _optimizer(sizes, work), _teacher(sizes, work), _lookahead(sizes, work),
        _reference(sizes, work),
        _sharding(sizes, work), _activations(sizes, work), _working(sizes, work), _divergence(sizes, work),
        _cache(sizes, work), _sampling(sizes, work), _vllm(work),
        _process(work),
    ]  # fmt: skip
    return [part for part in parts if part.generate or part.update]


def peak(parts: Sequence[Part]) -> float:
    """Bytes at the worse of the two moments."""
    return max(sum(part.generate for part in parts), sum(part.update for part in parts))


def largest(parts: Sequence[Part]) -> Part:
    """The part that weighs most at the worse moment."""
    generating = sum(part.generate for part in parts) > sum(part.update for part in parts)
    return max(parts, key=lambda part: part.generate if generating else part.update)


def cache_bytes_per_token(sizes: ModelSizes, bytes_each: int) -> int:
    """Keys and values of one token in all layers."""
    return sizes.layers * 2 * sizes.key_value * bytes_each


def precision(sizes: ModelSizes, work: Workload) -> str:
    """bfloat16: weights and arithmetic; autocast: float32 weights, each cast for its product; float32: both.

    FSDP2 and DeepSpeed compute with bfloat16 copies of what they shard.
    """
    if sizes.weight_bytes == 2 or (work.bf16 and work.sharding != "none"):
        return "bfloat16"
    return "autocast" if work.bf16 else "float32"


def _stream_bytes(sizes: ModelSizes, work: Workload) -> int:
    """Of one number in the residual stream: float32 weights keep it in float32, autocast or not."""
    return 2 if precision(sizes, work) == "bfloat16" else 4


def _compute_bytes(sizes: ModelSizes, work: Workload) -> int:
    return 4 if precision(sizes, work) == "float32" else 2


def _trained_bytes(sizes: ModelSizes, work: Workload) -> int:
    """Of one trained weight: FSDP2 trains float32, DeepSpeed casts to bfloat16, PEFT makes an adapter float32."""
    if work.sharding == "none":
        return 4 if sizes.lora else sizes.weight_bytes
    return 4 if work.sharding == "fsdp2" else 2


def _frozen_bytes(sizes: ModelSizes, work: Workload) -> int:
    return 2 if work.sharding.startswith("zero") else sizes.weight_bytes


def _model_shares(work: Workload) -> int:
    return work.processes if work.sharding in ("zero3", "fsdp2") else 1


def _weights(sizes: ModelSizes, work: Workload) -> Part:
    shares = _model_shares(work)
    trained, frozen = _trained_bytes(sizes, work), _frozen_bytes(sizes, work)
    packed = sizes.layers * sizes.one_layer if sizes.packed_bytes else 0
    plain = sizes.frozen - packed
    size = (sizes.trainable * trained + plain * frozen + packed * sizes.packed_bytes) / shares
    terms = [f"{_count(packed)} x {sizes.packed_bytes}"] if packed else []
    terms += [f"{_count(plain)} x {frozen}"] if sizes.lora else []
    terms += [f"{'adapter ' if sizes.lora else ''}{_count(sizes.trainable)} x {trained} bytes{_over(shares)}"]
    return Part("weights", size, size, " + ".join(terms))


def _gradients(sizes: ModelSizes, work: Workload) -> Part:
    each, shares = _trained_bytes(sizes, work), 1 if work.sharding == "none" else work.processes
    size, how = sizes.trainable * each / shares, f"{_count(sizes.trainable)} x {each} bytes{_over(shares)}"
    if work.sharding == "none" and work.processes > 1:
        size, how = 2 * size, f"{how}, twice: DDP's buckets"
    elif work.sharding == "fsdp2" and work.accumulates:
        size, how = size + 2 * sizes.trainable, f"{how} + whole x 2: sync_each_batch is off"
    return Part("gradients", size if work.generations_per_step > 1 else 0.0, size, how)


def _optimizer(sizes: ModelSizes, work: Workload) -> Part:
    if work.optimizer not in STATES:
        raise ValueError(f"memory of optimiser {work.optimizer!r} is not known; known: {', '.join(STATES)}")
    each, shares = STATES[work.optimizer], 1 if work.sharding == "none" else work.processes
    if work.sharding.startswith("zero"):
        each += 4  # the float32 weights that DeepSpeed updates
    elif _trained_bytes(sizes, work) == 2 and each == 8:
        each = 4
    size = sizes.trainable * each / shares
    return Part("optimiser", size, size, f"{_count(sizes.trainable)} x {each} bytes{_over(shares)}, {work.optimizer}")


def _teacher(sizes: ModelSizes, work: Workload) -> Part:
    """A kept copy of the trained weights, sharded as they are; an averaged one is float32, and is cast while it scores."""
    trained, shares = _trained_bytes(sizes, work), _model_shares(work)
    each = {"none": 0, "weights": trained, "float32": 4 if trained == 4 else 4 + trained}[work.teacher_copy]
    size = sizes.trainable * each / shares
    return Part("teacher's copy", size, size, f"{_count(sizes.trainable)} x {each} bytes{_over(shares)}")


def _lookahead(sizes: ModelSizes, work: Workload) -> Part:
    size = sizes.trainable * (12 + _trained_bytes(sizes, work)) if work.looks_ahead else 0.0
    return Part("lookahead", size, size, f"{_count(sizes.trainable)} x {12 + _trained_bytes(sizes, work)} bytes")


def _reference(sizes: ModelSizes, work: Workload) -> Part:
    shares = _model_shares(work)
    each = _frozen_bytes(sizes, work)
    size = sizes.parameters * each / shares if work.reference else 0.0
    return Part("reference model", size, size, f"{_count(sizes.parameters)} x {each} bytes{_over(shares)}")


def _sharding(sizes: ModelSizes, work: Workload) -> Part:
    """What sharding gathers and sends: two layers and the embeddings in bfloat16, or DeepSpeed's buckets."""
    name = "sharding's buffers"
    if work.sharding == "none" or work.processes == 1:
        return Part(name, 0.0, 0.0, "")
    embeddings = sizes.parameters - sizes.layers * sizes.one_layer
    gathered = 2 * (2 * sizes.one_layer + max(embeddings, 0)) if work.sharding != "zero2" else 0
    buckets = 2 * min(ZERO_BUCKETS, 2 * sizes.trainable) if work.sharding.startswith("zero") else 0
    whole = 2 * sizes.parameters if work.sharding == "zero3" and work.vllm == "none" else 0
    return Part(name, max(whole, gathered), gathered + buckets, "two layers and the embeddings, buckets")


def _activations(sizes: ModelSizes, work: Workload) -> Part:
    """What the forward pass leaves for the backward pass."""
    mask = work.tokens * work.sequence  # one boolean for each pair of positions, made once
    if work.checkpointing:
        each = _stream_bytes(sizes, work)
        how = f"{work.tokens:,} tokens x {sizes.layers} layers x {sizes.hidden} x {each} bytes, checkpointed"
        return Part("activations", 0.0, work.tokens * sizes.layers * sizes.hidden * each + mask, how)
    size = sizes.layers * _layer(sizes, work) + mask
    return Part("activations", 0.0, size, f"{work.tokens:,} tokens x {sizes.layers} layers, not checkpointed")


def _layer(sizes: ModelSizes, work: Workload) -> float:
    """What one layer keeps, with its attention mask and, under autocast, the cast copies of its weights."""
    kind = precision(sizes, work)
    widths = (sizes.hidden, sizes.query, sizes.key_value, sizes.intermediate)
    per_token = sum(factor * width for factor, width in zip(_saved(sizes, work), widths, strict=True))
    per_token += _compute_bytes(sizes, work) * work.sequence
    # keys and values of prompts that are read once, for every row and head
    copied = 0 if work.different is None else work.micro_batch * work.prompt * 2 * sizes.query * _compute_bytes(sizes, work)
    return work.tokens * per_token + copied + (2 * sizes.one_layer if kind == "autocast" else 0)


def _saved(sizes: ModelSizes, work: Workload) -> tuple[int, int, int, int]:
    """What a layer keeps for each token and unit of (hidden, query, key and value, MLP) width."""
    kind = precision(sizes, work)
    if kind == "bfloat16" and not work.bf16:
        kind = "cast"
    hidden, query, key_value, intermediate = SAVED[kind][sizes.lora]
    less = 0 if sizes.head_norms else HEAD_NORMS[kind][sizes.lora]
    return hidden, query - less, key_value - less, intermediate


def _working(sizes: ModelSizes, work: Workload) -> Part:
    """The largest of what comes and goes: the end of the forward pass, the head's backward pass, a layer's."""
    compute, kind = _compute_bytes(sizes, work), precision(sizes, work)
    token_tile, vocab_tile = TILES[work.device]
    tile = min(work.scored, token_tile) * min(sizes.vocab, vocab_tile) * (4 if work.device == "cpu" else compute)
    copies = 2 * sizes.layers * sizes.one_layer if kind == "autocast" and work.checkpointing and not sizes.lora else 0
    own_gradient = 0 if sizes.lora else sizes.head * (4 + _trained_bytes(sizes, work))
    layer = (_layer(sizes, work) if work.checkpointing else 0) + 3 * compute * sizes.intermediate * work.tokens
    steps = {
        "a tile of logits and bfloat16 weights": tile + copies,
        "the head's gradients": tile + own_gradient + 4 * sizes.hidden * work.scored,
        "one layer, backward": layer + (0 if sizes.lora else sizes.hidden * sizes.intermediate * _trained_bytes(sizes, work)),
    }
    name = max(steps, key=lambda step: steps[step])
    return Part("working memory", 0.0, steps[name], f"largest: {name}")


def _divergence(sizes: ModelSizes, work: Workload) -> Part:
    if not work.compares_distributions:
        return Part("distributions", 0.0, 0.0, "")
    held = 4 * work.scored * sizes.hidden * _stream_bytes(sizes, work)  # of student and teacher, all and the compared ones
    own_gradient = 0 if sizes.lora else 4 * sizes.head
    how = "hidden states, chunks of logits, the head's gradient"
    return Part("distributions", 0.0, held + DIVERGENCE_TILES + own_gradient, how)


def _cache(sizes: ModelSizes, work: Workload) -> Part:
    each = cache_bytes_per_token(sizes, _stream_bytes(sizes, work))
    how = f"{work.rollouts:,} rollouts x {work.sequence:,} tokens x {each:,} bytes"
    return Part("KV cache", work.rollouts * work.sequence * each if work.vllm == "none" else 0.0, 0.0, how)


def _sampling(sizes: ModelSizes, work: Workload) -> Part:
    """Reading the prompts, and four float32 tensors of one position's logits; copies of weights that are cast or laid out."""
    if work.vllm != "none":
        return Part("sampling", 0.0, 0.0, "")
    compute, stream = _compute_bytes(sizes, work), _stream_bytes(sizes, work)
    read = work.rollouts if work.prompts is None else work.prompts
    prefill = read * work.prompt * (3 * compute * sizes.intermediate + 2 * stream * sizes.hidden)
    copies = 2 * sizes.layers * sizes.one_layer if precision(sizes, work) == "autocast" and not sizes.lora else 0
    if work.lays_out:
        copies += 2 * (sizes.layers * sizes.one_layer + sizes.head)
    logits = 16 * work.rollouts * sizes.vocab
    how = f"prompts read at once, logits of one position{', a copy of the weights' if copies else ''}"
    return Part("sampling", prefill + copies + logits, 0.0, how)


def _vllm(work: Workload) -> Part:
    size = work.vllm_bytes if work.vllm == "colocate" else 0.0
    return Part("vLLM", size, 0.0 if work.vllm_sleeps else size, "vllm_gpu_memory_utilization x GPU")


def _process(work: Workload) -> Part:
    if work.device == "cpu":
        return Part("process", PROCESS, PROCESS, "Python and its libraries, measured")
    return Part("CUDA context", CUDA_CONTEXT, CUDA_CONTEXT, "assumed")


def _count(number: float) -> str:
    return f"{number / 1e9:.2f}e9" if number >= 1e9 else f"{number / 1e6:.1f}e6"


def _over(shares: int) -> str:
    return f" / {shares}" if shares > 1 else ""
