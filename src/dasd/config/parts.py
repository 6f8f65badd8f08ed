"""The sections that configs are made of, with every default in one place. Imports no torch: `--help` must answer at once."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, ValidationError, field_validator, model_validator

from dasd.config.core import LocalPath, Section, nearest

BUNDLED = "bundled"
TASKS = ("countdown", "products", "math", "choice", "word_problems")
BASES = ("countdown", "products")  # tasks with a base model of their own, which is `bundled/TASK`


class ModelConfig(Section):
    """The policy to train. It is also the teacher."""

    path: LocalPath = Field(BUNDLED, description="'bundled' (the base of data.task), bundled/products, a folder, or a hub id")
    revision: str | None = Field(None, description="hub revision")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="type the weights are loaded in")
    attn_implementation: Literal["eager", "sdpa", "flash_attention_2"] | None = Field(
        None,
        description="how attention is computed (signal attention_entropy needs eager); null: as the model has it",
    )
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="load the weights in 8 or 4 bits (bitsandbytes), to train LoRA on them or to evaluate"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")
    chat_template: str | None = Field(
        None, description="chatml, plain, turns, or a Jinja file, for a base model; null: the model's own"
    )
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="arguments of the chat template, e.g. {enable_thinking: false}"
    )


def is_bundled(path: str) -> bool:
    """Whether a model's path names a base that ships with the package."""
    return path == BUNDLED or path.startswith(f"{BUNDLED}/")


def base_of_task(path: str, task: str) -> str:
    """A model's path, in which `bundled` is the base that was made for `task`; Countdown's where a task has none."""
    return f"{BUNDLED}/{task}" if path == BUNDLED and task in BASES[1:] else path


_TAKEN = {
    "id", "prompt", "problem", "answer", "solution", "hint",  # of every problem
    "prompts", "completion", "completions", "completion_ids", "trainer_state", "log_metric", "log_extra", "environments",
    "image", "images",  # TRL takes a row that has them for one of a multimodal model
}  # fmt: skip


class ColumnsConfig(Section):
    """Which columns of the dataset hold what."""

    problem: str = Field("problem", description="the question")
    answer: str = Field("answer", description="the gold answer")
    solution: str | None = Field("solution", description="a worked reference; null: the dataset has none")
    hint: str | None = Field(None, description="a hint for the teacher; null: the dataset has none")
    further: tuple[str, ...] = Field((), description="further columns that training.rewards are given, with commas between")

    @field_validator("further")
    @classmethod
    def _names_are_free(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if taken := sorted(_TAKEN & set(value)):
            raise ValueError(f"{taken[0]!r} means something else to rewards or to TRL: further columns have other names")
        return value


class SourceConfig(Section):
    """One of several sources. What is not given is as `data` has it."""

    source: LocalPath = Field(description="as data.source")
    weight: Annotated[float, Field(gt=0)] | None = Field(
        None, description="its share of the training problems, among the weights"
    )
    split: str | None = None
    columns: ColumnsConfig | None = None
    prompt: str | None = None
    subset: str | None = None
    revision: str | None = None
    limit: Annotated[int, Field(gt=0)] | None = None


class DataConfig(Section):
    """Problems to train on."""

    task: str = Field(
        "countdown",
        description="who grades: countdown, products, math, choice, word_problems, reasoning_gym/NAME, your own FILE.py:NAME",
    )
    source: LocalPath = Field(
        BUNDLED, description="'bundled' (made by the task), a hub id, a local JSONL, JSON, Parquet, CSV file"
    )
    sources: tuple[SourceConfig, ...] = Field(
        (), description="in place of source: several, as [{source: a.jsonl, weight: 3}, {source: b.jsonl, weight: 1}]"
    )
    split: str = Field("train", description="split of the dataset")
    columns: ColumnsConfig = ColumnsConfig()
    prompt: str | None = Field(None, description="what is asked, with {problem} in it; null: the problem as it stands")
    task_settings: dict[str, Any] = Field(
        default_factory=dict,
        description="settings of the task: word_problems' difficulty (1 to 5), products (2 to 5), a generator's, your own",
    )
    answer_format: Literal["auto", "boxed", "last"] = Field(
        "auto",
        description="where an answer counts: in \\boxed{} only, as the last expression too; auto: boxed if the prompt asks",
    )
    system_prompt: str | None = Field(None, description="system message, in place of the data's own; null: the data's, if any")
    subset: str | None = Field(None, description="hub: name of the dataset's configuration")
    revision: str | None = Field(None, description="hub: commit or tag of the dataset")
    limit: Annotated[int, Field(gt=0)] | None = Field(None, description="use the first ones only")
    count: Annotated[int, Field(gt=0)] = Field(1000, description="bundled: how many problems are made, unless limit says it")
    seed: int = Field(0, description="bundled: seed of the problems; sources: of their mixture")

    def overlaid(self, given: Mapping[str, Any]) -> dict[str, Any]:
        if self.limit is not None and "count" in given:  # else a default limit would hold against the count asked for
            given = {"limit": given["count"], **given}
        return super().overlaid(given)

    @field_validator("task")
    @classmethod
    def _task_is_known(cls, value: str) -> str:
        if value in TASKS or re.fullmatch(r"reasoning_gym/\w+|.+\.py:\w+", value):
            return value
        known = f"{', '.join(TASKS)}, reasoning_gym/NAME or path/to/file.py:function"
        raise ValueError(f"{value!r} is not one of {known}{nearest(value, TASKS)}")

    @model_validator(mode="after")
    def _prompt_asks_the_problem(self) -> DataConfig:
        if self.prompt is not None and "{problem}" not in self.prompt:
            raise ValueError(f"prompt must have {{problem}} in it, where the problem is to stand, got {self.prompt!r}")
        if self.prompt is not None and self.source == BUNDLED and not self.sources:
            raise ValueError("prompt is for your own data: the bundled problems are asked as they stand")
        return self

    @model_validator(mode="after")
    def _sources_fit(self) -> DataConfig:
        if self.sources and self.source != BUNDLED:
            raise ValueError(f"give source ({self.source}) or sources, not both")
        without = [entry.source for entry in self.sources if entry.weight is None]
        if without and len(without) < len(self.sources):
            raise ValueError(f"sources: every source has a weight or none has one, and {without[0]} has none")
        try:
            parts = self.parts  # each is a config that is checked
        except ValidationError as error:
            said = [fault["msg"].removeprefix("Value error, ") for fault in error.errors()]
            raise ValueError(f"sources: {'; '.join(said)}") from None
        # An entry that names columns says all of them, so that a config that was written down reads the same.
        pairs = zip(self.sources, parts, strict=False)  # without sources, `parts` is this config itself
        filled = [entry.model_copy(update={"columns": part.columns}) if entry.columns else entry for entry, part in pairs]
        object.__setattr__(self, "sources", tuple(filled))
        return self

    @property
    def named(self) -> str:
        """Where the problems come from, in a word."""
        return ", ".join(entry.source for entry in self.sources) or self.source

    @property
    def parts(self) -> list[DataConfig]:
        """One config for each source."""
        if not self.sources:
            return [self]
        ours = self.model_dump(exclude={"sources"})
        parts = []
        for entry in self.sources:
            theirs = entry.model_dump(exclude={"weight", "columns"}, exclude_none=True)
            columns = ours["columns"] | (entry.columns.model_dump(exclude_unset=True) if entry.columns else {})
            parts.append(DataConfig.model_validate({**ours, **theirs, "columns": columns}))
        return parts


ContextKind = Literal[
    "solution", "answer", "hint", "peer", "solution_else_peer", "peer_else_solution", "truncated", "none",
    "other_problem", "wrong_answer", "length_matched",
]  # fmt: skip


class TeacherConfig(Section):
    """Who the teacher is and what it sees."""

    context: ContextKind = Field("solution", description="kind of privileged context")
    template: str | None = Field(None, description="wording with {problem} and {context}; null: the kind's own")
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="truncated: share of the solution's words")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="the teacher's own, over model.chat_template_kwargs"
    )
    weights: Literal["live", "frozen", "ema", "snapshot", "adapter_off"] = Field(
        "live", description="whose weights: the student's now, before training, averaged, every few steps, without LoRA"
    )
    ema_rate: Annotated[float, Field(gt=0, le=1)] = Field(0.05, description="ema: the student's share of each update")
    sync_steps: Annotated[int, Field(gt=0)] = Field(10, description="snapshot: steps between updates")


class MethodConfig(Section):
    """Token credit: a name of dasd.credit.METHODS and that method's own settings, checked where the method is defined."""

    model_config = ConfigDict(extra="allow")

    name: str = Field("dasd", description="see `dasd methods`; `dasd methods NAME` has its settings, --method.KEY")

    @property
    def settings(self) -> dict[str, Any]:
        return dict(self.model_extra or {})


class TrainingConfig(Section):
    """How long and how fast. What is not here can be set in `trl`, by its name in `trl.GRPOConfig`."""

    steps: Annotated[int, Field(gt=0)] = Field(100, description="optimisation steps")
    rollouts_per_step: Annotated[int, Field(gt=0)] = Field(128, description="completions behind one optimisation step")
    group_size: Annotated[int, Field(gt=1)] = Field(8, description="completions of one problem, compared with each other")
    micro_batch_size: Annotated[int, Field(gt=0)] = Field(16, description="completions in one forward and backward pass")
    num_iterations: Annotated[int, Field(gt=0)] = Field(1, description="times each batch of rollouts is used")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-6, description="peak learning rate")
    warmup_steps: Annotated[int, Field(ge=0)] = Field(0, description="steps of linear warm-up")
    loss_type: Literal["grpo", "dr_grpo", "dapo", "bnpo", "cispo", "sapo", "luspo", "vespo"] = Field(
        "dapo", description="how TRL weighs and averages tokens"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="sampling temperature, also of all scores")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    sampler: Literal["auto", "dasd", "trl"] = Field(
        "auto", description="who writes rollouts where vLLM does not: our own sampler, TRL's generation, or ours where it can"
    )
    dynamic_sampling: Annotated[int, Field(ge=0)] = Field(
        0, description="rounds in which groups whose rewards are all alike are replaced by fresh ones; 0: off"
    )
    overlong_buffer: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="last share of max_completion_length over which reward falls by up to 1; 0: off"
    )
    rewards: tuple[str, ...] = Field(
        (), description="your own rewards beside the verifier's, each path/to/file.py:function with TRL's signature"
    )
    reward_weights: tuple[float, ...] = Field(
        (), description="weights of these, in their order (the verifier's is 1); none: all 1"
    )
    save_steps: Annotated[int, Field(gt=0)] = Field(50, description="steps between checkpoints")
    eval_steps: Annotated[int, Field(ge=0)] = Field(
        0, description="steps between evaluations on validation problems, the first one before training; 0: none"
    )
    report_steps: Annotated[int, Field(ge=0)] = Field(
        10, description="steps between new versions of the run's page; 0: at the end only"
    )
    report_to: tuple[Literal["trackio", "wandb", "tensorboard"], ...] = Field(
        (), description="where curves go while it runs, with commas between: trackio, wandb, tensorboard"
    )
    seed: int = Field(0, description="seed of data order and sampling")
    lora_rank: Annotated[int, Field(ge=0)] = Field(0, description="train a LoRA adapter of this rank; 0: all weights")
    lora_alpha: Annotated[float, Field(gt=0)] = Field(32.0, description="LoRA: the adapter is scaled by lora_alpha / lora_rank")
    lora_targets: str = Field(
        "all-linear", description="LoRA: modules, as names with commas between, a regular expression, or all-linear"
    )
    lora_embeddings: bool = Field(False, description="LoRA: train the embeddings and the head beside the adapter, in full")
    trl: dict[str, Any] = Field(default_factory=dict, description="further fields of trl.GRPOConfig")

    @field_validator("lora_targets")
    @classmethod
    def _not_the_head(cls, value: str) -> str:
        if "lm_head" in value:
            raise ValueError(
                f"{value!r} names lm_head. Student and teacher are scored from the head's own weight, so an adapter there "
                "would never be trained: leave it out (all-linear does), or set lora_embeddings: true"
            )
        return value

    @field_validator("rewards")
    @classmethod
    def _rewards_name_functions(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not re.fullmatch(r".+\.py:\w+", name):
                raise ValueError(f"{name!r} names no function of a file: write path/to/file.py:function")
        return value

    @model_validator(mode="after")
    def _each_reward_has_a_weight(self) -> TrainingConfig:
        if self.reward_weights and len(self.reward_weights) != len(self.rewards):
            raise ValueError(
                f"reward_weights has {len(self.reward_weights)} numbers for {len(self.rewards)} rewards: give one for each"
            )
        return self

    @property
    def overlong_tokens(self) -> int:
        """Tokens over which reward falls; 0: there is no penalty."""
        return round(self.overlong_buffer * self.max_completion_length)

    @model_validator(mode="after")
    def _overlong_buffer_has_a_token(self) -> TrainingConfig:
        if self.overlong_buffer and not self.overlong_tokens:
            unit = 10 ** (len(str(self.max_completion_length)) + 1)
            smallest = (math.floor(0.5 * unit / self.max_completion_length) + 1) / unit  # more than half a token
            raise ValueError(
                f"overlong_buffer {self.overlong_buffer:g} of max_completion_length {self.max_completion_length} is not one "
                f"token: give {smallest:g} or more, or 0 for no penalty"
            )
        return self

    @model_validator(mode="after")
    def _batches_divide(self) -> TrainingConfig:
        if self.rollouts_per_step % self.group_size:
            unit = math.lcm(self.group_size, self.micro_batch_size)
            nearest = max(1, round(self.rollouts_per_step / unit)) * unit
            raise ValueError(
                f"rollouts_per_step ({self.rollouts_per_step}) must be a multiple of group_size ({self.group_size}), so that "
                f"groups are whole: try rollouts_per_step: {nearest}"
            )
        if self.rollouts_per_step % self.micro_batch_size:
            fits = [n for n in range(1, self.micro_batch_size + 1) if self.rollouts_per_step % n == 0]
            raise ValueError(
                f"rollouts_per_step ({self.rollouts_per_step}) must be a multiple of micro_batch_size "
                f"({self.micro_batch_size}): try micro_batch_size: {fits[-1]}"
            )
        return self


class ValidationConfig(Section):
    """Problems on which a run is watched while it trains (training.eval_steps). The best step is reported, never chosen."""

    source: str | None = Field(None, description="hub id or local file; null: the training data's, of another split")
    split: str = Field("validation", description="split of the dataset")
    limit: Annotated[int, Field(gt=0)] | None = Field(64, description="use the first ones only, of each source")
    num_samples: Annotated[int, Field(gt=0)] = Field(4, description="samples of each problem")
    batch_size: Annotated[int, Field(gt=0)] = Field(256, description="completions sampled at once")
    seed: int = Field(0, description="seed of the sampling, the same at every step")


class JudgeConfig(Section):
    """A model behind an OpenAI-compatible server that looks for the first wrong step of samples; no server, no judge."""

    base_url: str | None = Field(None, description="server of the judge, e.g. http://localhost:8000/v1; null: no judge")
    model: str | None = Field(None, description="the server's name of the model that judges")
    api_key_env: str | None = Field(None, description="environment variable that holds the key; null: no key is sent")
    prompt: LocalPath | None = Field(None, description="file with {problem} and {steps} in it; null: the package's own")
    samples: Annotated[int, Field(gt=0)] = Field(1, description="samples of each problem that are judged, the first ones")
    max_tokens: Annotated[int, Field(gt=0)] = Field(4096, description="tokens a judgement may have")
    concurrency: Annotated[int, Field(gt=0)] = Field(8, description="requests under way at once")
    timeout_s: Annotated[float, Field(gt=0)] = Field(600.0, description="seconds one judgement may take")
    retries: Annotated[int, Field(ge=0)] = Field(8, description="further attempts at a judgement")

    @model_validator(mode="after")
    def _both_or_neither(self) -> JudgeConfig:
        if (self.base_url is None) != (self.model is None):
            missing, given = ("model", "base_url") if self.model is None else ("base_url", "model")
            raise ValueError(
                f"judge.{given} is given, judge.{missing} is not: a judge needs a server and the name of its model"
            )
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError(f"judge.base_url must begin with http:// or https://, got {self.base_url!r}")
        return self


class SamplerConfig(Section):
    """Who samples an evaluation's completions, and how many at once."""

    backend: Literal["transformers", "vllm", "openai"] = Field(
        "transformers", description="in this process, or servers that speak OpenAI's protocol"
    )
    batch_size: Annotated[int, Field(gt=0)] = Field(256, description="completions sampled, and put on file, at once")
    tensor_parallel_size: Annotated[int, Field(gt=0)] = Field(1, description="vllm: GPUs that share the model")
    gpu_memory_utilization: Annotated[float, Field(gt=0, le=1)] = Field(0.9, description="vllm: share of GPU memory to take")
    max_model_len: Annotated[int, Field(gt=0)] | None = Field(None, description="vllm: longest prompt and completion")
    engine: dict[str, Any] = Field(default_factory=dict, description="vllm: further arguments of vllm.LLM, e.g. enforce_eager")
    base_urls: tuple[str, ...] = Field((), description="openai: servers, with commas between, e.g. http://localhost:8000/v1")
    api_key_env: str | None = Field(None, description="openai: environment variable that holds the key; null: no key is sent")
    concurrency: Annotated[int, Field(gt=0)] = Field(64, description="openai: requests under way at once, over all servers")
    timeout_s: Annotated[float, Field(gt=0)] = Field(600.0, description="openai: seconds one completion may take")
    retries: Annotated[int, Field(ge=0)] = Field(8, description="openai: further attempts at a completion")
    return_token_ids: bool = Field(False, description="openai: ask for token ids, which vLLM's server gives")
    openai_fields_only: bool = Field(
        False, description="openai: leave top_k, min_p and repetition_penalty to the server, where it refuses to be told"
    )

    @model_validator(mode="after")
    def _urls_belong_to_openai(self) -> SamplerConfig:
        if self.backend == "openai" and not self.base_urls:
            raise ValueError("backend openai needs a server: --sampler.base_urls http://localhost:8000/v1")
        if self.backend != "openai" and self.base_urls:
            raise ValueError(f"backend {self.backend} asks no servers: leave out base_urls, or --sampler.backend openai")
        for url in self.base_urls:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"base_urls must begin with http:// or https://, got {url!r}")
        return self
