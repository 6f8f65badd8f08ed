"""What can be set, with every default in one place. No torch here: `--help` and a wrong key must answer at once.

YAML in, typed models out. An unknown key is an error that names the nearest valid one. `BadInput` is what the command line
turns into one message and exit code 2.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator, model_validator

from dasd.presets import PRESETS

BUNDLED = "bundled"
T = TypeVar("T", bound=BaseModel)


class BadInput(ValueError):
    """The user gave something unusable; the message says what, why and what to do instead."""


class RunFailed(RuntimeError):
    """The run cannot go on, and not for what the user gave; what was written before is intact. Exit code 1."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    @field_validator("*", mode="before")
    @classmethod
    def _true_is_no_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and cls.model_fields[info.field_name or ""].annotation is not bool:
            raise ValueError(f"input should not be true or false, got {value!r}")
        return value


class ModelConfig(Section):
    """The policy to train. It is also the teacher."""

    path: str = Field(BUNDLED, description="'bundled', a folder, or a hub id")
    revision: str | None = Field(None, description="hub revision")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field("auto", description="type the weights are loaded in")
    quantization: Literal["none", "8bit", "4bit"] = Field(
        "none", description="load the weights in 8 or 4 bits (bitsandbytes), to train LoRA on them or to evaluate"
    )
    trust_remote_code: bool = Field(False, description="run code that comes with the model")


class ColumnsConfig(Section):
    """Which columns of the dataset hold what."""

    problem: str = Field("problem", description="the question")
    answer: str = Field("answer", description="the gold answer")
    solution: str | None = Field("solution", description="a worked reference; null: the dataset has none")
    hint: str | None = Field(None, description="a hint for the teacher; null: the dataset has none")


class DataConfig(Section):
    """Problems to train on."""

    task: Literal["countdown", "math", "choice"] = Field(
        "countdown", description="who grades: Countdown's verifier, math-verify, or the letter of a multiple choice"
    )
    source: str = Field(BUNDLED, description="'bundled' (Countdown), a hub id, or a local JSONL, JSON, Parquet or CSV file")
    split: str = Field("train", description="split of the dataset")
    columns: ColumnsConfig = ColumnsConfig()
    prompt: str | None = Field(None, description="what is asked, with {problem} in it; null: the problem as it stands")
    subset: str | None = Field(None, description="hub: name of the dataset's configuration")
    revision: str | None = Field(None, description="hub: commit or tag of the dataset")
    limit: Annotated[int, Field(gt=0)] | None = Field(None, description="use the first ones only; bundled: how many are made")
    seed: int = Field(0, description="bundled: seed of the problems")

    @model_validator(mode="after")
    def _prompt_asks_the_problem(self) -> DataConfig:
        if self.prompt is not None and "{problem}" not in self.prompt:
            raise ValueError(f"prompt must have {{problem}} in it, where the problem is to stand, got {self.prompt!r}")
        if self.prompt is not None and self.source == BUNDLED:
            raise ValueError("prompt is for your own data: the bundled problems are asked as they stand")
        return self


ContextKind = Literal[
    "solution", "answer", "hint", "peer", "solution_else_peer", "truncated", "none",
    "other_problem", "wrong_answer", "length_matched",
]  # fmt: skip


class TeacherConfig(Section):
    """Who the teacher is and what it sees."""

    context: ContextKind = Field("solution", description="kind of privileged context")
    template: str | None = Field(None, description="wording with {problem} and {context}; null: the kind's own")
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="truncated: share of the solution's words")
    chat_template_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="chat template arguments, over the student's (training.trl.chat_template_kwargs)"
    )
    weights: Literal["live", "frozen", "ema", "snapshot", "adapter_off"] = Field(
        "live", description="whose weights: the student's now, before training, averaged, every few steps, without LoRA"
    )
    ema_rate: Annotated[float, Field(gt=0, le=1)] = Field(0.05, description="ema: the student's share of each update")
    sync_steps: Annotated[int, Field(gt=0)] = Field(10, description="snapshot: steps between updates")


class MethodConfig(BaseModel):
    """Token credit: a name of dasd.credit.METHODS and that method's own settings, checked where the method is defined."""

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str = Field("dasd", description="a name of dasd.credit.METHODS, see docs/method.md")

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
    dynamic_sampling: Annotated[int, Field(ge=0)] = Field(
        0, description="rounds in which groups whose rewards are all alike are replaced by fresh ones; 0: off"
    )
    overlong_buffer: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="last share of max_completion_length over which reward falls by up to 1; 0: off"
    )
    save_steps: Annotated[int, Field(gt=0)] = Field(50, description="steps between checkpoints")
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


class RunConfig(Section):
    """`dasd train`: everything that decides a run."""

    output: str = Field("runs/train", description="folder of the run")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    method: MethodConfig = MethodConfig()
    training: TrainingConfig = TrainingConfig()

    @model_validator(mode="after")
    def _quantized_weights_stay(self) -> RunConfig:
        if self.model.quantization != "none" and self.training.lora_rank == 0:
            raise ValueError(
                f"model.quantization {self.model.quantization} needs a LoRA adapter, for weights in few bits cannot be "
                "trained: set training.lora_rank: 16, or model.quantization: none"
            )
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
    base_urls: tuple[str, ...] = Field((), description="openai: servers, with commas between, e.g. http://localhost:8000/v1")
    api_key_env: str | None = Field(None, description="openai: environment variable that holds the key; null: no key is sent")
    concurrency: Annotated[int, Field(gt=0)] = Field(64, description="openai: requests under way at once, over all servers")
    timeout_s: Annotated[float, Field(gt=0)] = Field(600.0, description="openai: seconds one completion may take")
    retries: Annotated[int, Field(ge=0)] = Field(8, description="openai: further attempts at a completion")
    return_token_ids: bool = Field(False, description="openai: ask for token ids, which vLLM's server gives")

    @field_validator("base_urls", mode="before")
    @classmethod
    def _split_urls(cls, value: Any) -> Any:
        return [url.strip() for url in value.split(",")] if isinstance(value, str) else value

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


class EvalConfig(Section):
    """`dasd eval`: which problems, how many samples. A benchmark's own sampling defaults hold for what is not set here."""

    model: ModelConfig = ModelConfig()
    benchmarks: tuple[str, ...] = Field((), description="names or patterns, e.g. aime24,countdown/*; none: `data` is evaluated")
    data_dir: str | None = Field(None, description="folder with NAME.jsonl or NAME.parquet of each benchmark; null: the hub")
    limit: Annotated[int, Field(gt=0)] | None = Field(None, description="use the first problems of each benchmark only")
    data: DataConfig = DataConfig(split="test", limit=200)
    sampler: SamplerConfig = SamplerConfig()
    num_samples: Annotated[int, Field(gt=0)] = Field(16, description="samples of each problem")
    temperature: Annotated[float, Field(ge=0)] = Field(1.0, description="0 is greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus sampling")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    seed: int = Field(0, description="seed of the sampling")
    with_context: bool = Field(False, description="sample as the teacher, with the reference in the prompt")
    skip_unsound: bool = Field(False, description="leave out problems whose own gold answer does not grade as right")

    @field_validator("benchmarks", mode="before")
    @classmethod
    def _names(cls, value: Any) -> Any:
        return tuple(filter(None, (name.strip() for name in value.split(",")))) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _only_transformers_quantizes(self) -> EvalConfig:
        if self.model.quantization != "none" and self.sampler.backend != "transformers":
            raise ValueError(
                f"model.quantization {self.model.quantization} is of --sampler.backend transformers: leave it out, backend "
                f"{self.sampler.backend} loads the weights itself"
            )
        return self


class ProbeConfig(Section):
    """`dasd probe`: how many interventions, in what the teacher sees."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(split="validation", limit=50)
    contexts: list[ContextKind] = Field(
        ["solution"], description="kinds of privileged context, each probed on the same rollouts"
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="truncated: share of the solution's words")
    positions: Annotated[int, Field(ge=2)] = Field(
        8, description="tokens of each rollout at which to intervene, half uncertain"
    )
    continuations: Annotated[int, Field(ge=1)] = Field(8, description="times the student writes on after each intervention")
    rho: Annotated[float, Field(gt=0, lt=1)] = Field(0.2, description="share of tokens that count as uncertain")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="sampling temperature")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    batch_size: Annotated[int, Field(gt=0)] = Field(512, description="completions sampled at once")
    seed: int = Field(0, description="seed of rollouts, positions and continuations")


class TokensConfig(Section):
    """`dasd tokens`: which rollouts are read, and as which method sees them."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(split="validation", limit=64)
    teacher: TeacherConfig = TeacherConfig()
    method: MethodConfig = MethodConfig()
    problems: Annotated[int, Field(gt=0)] = Field(3, description="the first problems of the data, each sampled several times")
    rollouts: Annotated[int, Field(gt=1)] = Field(8, description="rollouts of each problem, the group of their advantages")
    scale_advantages: bool = Field(True, description="advantages are divided by their group's standard deviation")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="sampling temperature, also of all scores")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    batch_size: Annotated[int, Field(gt=0)] = Field(64, description="completions sampled at once")
    seed: int = Field(0, description="seed of the sampling")


def load_config(kind: type[T], path: Path | None, overrides: Sequence[str] = ()) -> T:
    """A config from a YAML file and `--dotted.key value` overrides. Raises BadInput naming key, value and remedy."""
    return make_config(kind, _read_file(path) if path is not None else {}, overrides)


def make_config(kind: type[T], values: dict[str, Any], overrides: Sequence[str] = ()) -> T:
    """As `load_config`, from a mapping of sections."""
    pairs = _pairs(overrides)
    method, chosen = values.get("method"), dict(pairs).get("method.name")
    if isinstance(method, dict) and chosen not in (None, method.get("name")):
        values["method"] = {}  # the file's settings are another method's
    for key, text in pairs:
        path_of_key = key.split(".")
        _set(values, path_of_key, _read_value(text, _annotation(kind, path_of_key)), key)
    return validate(kind, _with_preset(kind, values) if "method" in kind.model_fields else values)


def _read_file(path: Path) -> dict[str, Any]:
    """A config file's values, over those of the file it `extends` (a path relative to its own folder)."""
    try:
        values = _read_yaml(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BadInput(f"config {path} does not exist") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadInput(f"config {path} cannot be read as YAML: {' '.join(str(error).split())}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise BadInput(f"config {path} must be a mapping of sections, got {type(values).__name__}")
    values = {key: value for key, value in values.items() if value is not None}  # `teacher:` with nothing under it
    parent = values.pop("extends", None)
    if parent is None:
        return values
    if not isinstance(parent, str) or (path.parent / parent).resolve() == path.resolve():
        raise BadInput(f"config {path}: extends must be the path of another file, got {parent!r}")
    return _merge(_read_file(path.parent / parent), values)


def _with_preset(kind: type[BaseModel], values: dict[str, Any]) -> dict[str, Any]:
    """`values` over what the preset of their method says of this kind's sections."""
    method = values.get("method")
    name = method.get("name") if isinstance(method, dict) else None
    preset = PRESETS.get(name, {}) if isinstance(name, str) else {}
    return _merge({section: preset[section] for section in preset if section in kind.model_fields}, values)


def _merge(under: Any, over: Any) -> Any:
    if isinstance(under, dict) and isinstance(over, dict):
        return {**under, **{key: _merge(under.get(key), value) for key, value in over.items()}}
    return over


def validate(kind: type[T], values: Mapping[str, Any]) -> T:
    """`values` as a config of this kind. Raises BadInput with one line for each fault."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadInput("\n".join(_explain(kind, fault) for fault in error.errors())) from None


def dump_config(config: BaseModel) -> str:
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def nearest(word: str, choices: Sequence[str]) -> str:
    """', did you mean X?' or a full stop."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f", did you mean {close[0]!r}?" if close else "."


class _Loader(yaml.SafeLoader):
    """YAML as people mean it: 5e-5 is a number, a date is text."""


_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$"), list("-+0123456789")
)


def _read_yaml(text: str) -> Any:
    return yaml.load(text, Loader=_Loader)


def _read_value(text: str, annotation: Any) -> Any:
    """An override's text as its setting's type wants it: text settings take any text, the rest is YAML."""
    if annotation in (str, str | None):
        return None if text == "null" and annotation is not str else text
    try:
        return _read_yaml(text)
    except (ValueError, yaml.YAMLError):
        return text


def _annotation(kind: Any, path: Sequence[str]) -> Any:
    """Declared type of the setting at `path`, None where there is none."""
    for part in path:
        fields = getattr(kind, "model_fields", {})
        if part not in fields:
            return None
        kind = fields[part].annotation
    return kind


def _pairs(overrides: Sequence[str]) -> list[tuple[str, str]]:
    pairs, rest = [], list(overrides)
    while rest:
        word = rest.pop(0)
        if not word.startswith("--"):
            raise BadInput(f"unexpected argument {word!r}; overrides look like --training.steps 20")
        key, equals, text = word[2:].partition("=")
        if not equals:
            if not rest:
                raise BadInput(f"{word} needs a value")
            text = rest.pop(0)
        pairs.append((key.replace("-", "_"), text))
    return pairs


def _set(values: dict[str, Any], path: list[str], value: Any, key: str) -> None:
    for part in path[:-1]:
        values = values.setdefault(part, {})
        if not isinstance(values, dict):
            raise BadInput(f"--{key}: {part!r} is not a section")
    values[path[-1]] = value


def _explain(kind: type[BaseModel], fault: Any) -> str:
    where = [str(part) for part in fault["loc"]]
    key = ".".join(where)
    if fault["type"] == "extra_forbidden":
        section: Any = kind
        for part in where[:-1]:
            section = section.model_fields[part].annotation
        names = list(section.model_fields)
        return f"unknown key {key!r}{nearest(where[-1], names)} Valid here: {', '.join(names)}"
    message = fault["msg"].removeprefix("Value error, ")
    if fault["type"] == "value_error":
        return f"{key}: {message}" if key else message
    message = f"{key}: {message[:1].lower()}{message[1:]}, got {fault['input']!r}"
    if fault["type"] == "literal_error":
        message += nearest(str(fault["input"]), re.findall("'([^']+)'", fault["ctx"]["expected"]))
    return message
