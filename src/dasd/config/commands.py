"""What each command can be told: one config for each. Imports no torch."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, model_validator

from dasd.config.core import LocalPath, Section
from dasd.config.parts import (
    ContextKind,
    DataConfig,
    JudgeConfig,
    MethodConfig,
    ModelConfig,
    SamplerConfig,
    TeacherConfig,
    TrainingConfig,
    ValidationConfig,
    base_of_task,
)
from dasd.config.splits import of_another_split


def _base_of_task(config: Any) -> Any:
    """`bundled` is the base of the task, and a config that was written down says which model it was."""
    path = base_of_task(config.model.path, config.data.task)
    if path != config.model.path:
        object.__setattr__(config, "model", config.model.model_copy(update={"path": path}))
    return config


class RunConfig(Section):
    """`dasd train`: everything that decides a run."""

    output: LocalPath = Field("runs/train", description="folder of the run")
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    teacher: TeacherConfig = TeacherConfig()
    method: MethodConfig = MethodConfig()
    training: TrainingConfig = TrainingConfig()
    validation: ValidationConfig = ValidationConfig()

    _bundled = model_validator(mode="after")(_base_of_task)

    @model_validator(mode="after")
    def _validation_has_problems(self) -> RunConfig:
        if self.training.eval_steps:
            self.validation_data()
        return self

    def validation_data(self) -> DataConfig:
        """The problems that the run is watched on. Raises BadInput where they are those that it trains on."""
        whose = "training.eval_steps needs validation problems"
        return of_another_split(self.data, self.validation, "validation", whose, "training.eval_steps: 0")

    @model_validator(mode="after")
    def _quantized_weights_stay(self) -> RunConfig:
        if self.model.quantization != "none" and self.training.lora_rank == 0:
            raise ValueError(
                f"model.quantization {self.model.quantization} needs a LoRA adapter, for weights in few bits cannot be "
                "trained: set training.lora_rank: 16, or model.quantization: none"
            )
        return self


_OF_BENCHMARKS = ("task", "system_prompt")  # of `data`, what says which base a name is and how it is asked


class EvalConfig(Section):
    """`dasd eval`: which problems, how many samples. A benchmark's own sampling defaults hold for what is not set here."""

    model: ModelConfig = ModelConfig()
    benchmarks: tuple[str, ...] = Field((), description="names or patterns, e.g. aime24,countdown/*; none: `data` is evaluated")
    data_dir: LocalPath | None = Field(None, description="folder with NAME.jsonl or NAME.parquet of each; null: the hub")
    limit: Annotated[int, Field(gt=0)] | None = Field(
        None, description="use the first problems only, of each benchmark or of `data`"
    )
    data: DataConfig = DataConfig(split="test", count=200)
    sampler: SamplerConfig = SamplerConfig()
    num_samples: Annotated[int, Field(gt=0)] = Field(16, description="samples of each problem")
    temperature: Annotated[float, Field(ge=0)] = Field(1.0, description="0 is greedy")
    top_p: Annotated[float, Field(gt=0, le=1)] = Field(1.0, description="nucleus sampling")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    seed: int = Field(0, description="seed of the sampling")
    with_context: bool = Field(False, description="sample as the teacher, with the reference in the prompt")
    skip_unsound: bool = Field(False, description="leave out problems whose own gold answer does not grade as right")
    judge: JudgeConfig = JudgeConfig()

    _bundled = model_validator(mode="after")(_base_of_task)

    @model_validator(mode="after")
    def _benchmarks_or_data(self) -> EvalConfig:
        """What says which problems are asked is heard."""
        if not self.benchmarks and self.data_dir is not None:
            raise ValueError("data_dir is where the files of benchmarks are: name them with --benchmarks, or say --data.source")
        usual = type(self).model_fields["data"].default
        for name in DataConfig.model_fields if self.benchmarks else ():
            if name not in _OF_BENCHMARKS and getattr(self.data, name) != getattr(usual, name):
                remedy = "say --limit" if name in ("limit", "count") else "leave out one of the two"
                raise ValueError(f"data.{name} does nothing where --benchmarks says what is asked: {remedy}")
        return self

    @model_validator(mode="after")
    def _what_the_backend_can(self) -> EvalConfig:
        if self.model.quantization != "none" and self.sampler.backend != "transformers":
            raise ValueError(
                f"model.quantization {self.model.quantization} is of --sampler.backend transformers: leave it out, backend "
                f"{self.sampler.backend} loads the weights itself"
            )
        if self.model.chat_template is not None and self.sampler.backend == "openai":
            raise ValueError(
                "model.chat_template: with --sampler.backend openai the server renders the prompts; start it with the template "
                "(vllm serve --chat-template FILE), and leave it out here"
            )
        return self


class ProbeConfig(Section):
    """`dasd probe`: how many interventions, in what the teacher sees."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(split="validation", limit=50, count=50)
    contexts: tuple[ContextKind, ...] = Field(
        ("solution",), description="kinds of privileged context with commas between, each probed on the same rollouts"
    )
    fraction: Annotated[float, Field(gt=0, lt=1)] = Field(0.5, description="truncated: share of the solution's words")
    positions: Annotated[int, Field(ge=1)] = Field(
        4, description="tokens of each rollout at which to intervene, of each kind: high entropy, low entropy, random"
    )
    revisions: Annotated[int, Field(ge=0)] = Field(
        2, description="revisions of each rollout that are kept, suppressed and handed to the teacher; 0: none"
    )
    continuations: Annotated[int, Field(ge=1)] = Field(8, description="times the student writes on from each place")
    rho: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.8, description="entropy quantile of a rollout above which tokens count as high"
    )
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="sampling temperature")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    batch_size: Annotated[int, Field(gt=0)] = Field(128, description="completions sampled at once")
    seed: int = Field(0, description="seed of rollouts, positions and continuations")

    _bundled = model_validator(mode="after")(_base_of_task)


class TokensConfig(Section):
    """`dasd tokens`: which rollouts are read, and as which method sees them."""

    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig(split="validation", limit=64, count=64)
    teacher: TeacherConfig = TeacherConfig()
    method: MethodConfig = MethodConfig()
    problems: Annotated[int, Field(gt=0)] = Field(3, description="the first problems of the data, each sampled several times")
    rollouts: Annotated[int, Field(gt=1)] = Field(8, description="rollouts of each problem, the group of their advantages")
    scale_advantages: bool = Field(True, description="advantages are divided by their group's standard deviation")
    step: Annotated[int, Field(ge=0)] = Field(0, description="optimisation step of scheduled settings; of a run its last one")
    temperature: Annotated[float, Field(gt=0)] = Field(1.0, description="sampling temperature, also of all scores")
    max_completion_length: Annotated[int, Field(gt=0)] = Field(1024, description="tokens a completion may have")
    batch_size: Annotated[int, Field(gt=0)] = Field(64, description="completions sampled at once")
    seed: int = Field(0, description="seed of the sampling")

    _bundled = model_validator(mode="after")(_base_of_task)
