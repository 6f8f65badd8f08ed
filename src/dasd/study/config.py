"""What does a study file say? Imports no torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from pydantic import AwareDatetime, Field, field_validator, model_validator

from dasd.analysis.first_order import ROLLOUTS_IN_TRL
from dasd.config import BadInput, RunConfig, load_config, nearest
from dasd.config.core import LocalPath, Section, read_values

Grid = dict[str, list[Any]]  # dotted key of a run's config -> the values that are tried
# What every arm of a task has in common: problems, rollouts, steps, the model that is started from.
MATCHED = (
    "output", "model", "data", "validation", "training.steps", "training.seed", "training.rollouts_per_step",
    "training.group_size", "training.num_iterations", "training.max_completion_length", "training.temperature",
    "training.trl.num_generations", *(f"training.trl.{name}" for name in ROLLOUTS_IN_TRL),
)  # fmt: skip
OURS = ("output", "training.steps", "training.seed")  # the study says these itself
# What may change while a study is under way: what it says itself, and what only watches a run.
IDLE = (*OURS, "validation", "training.eval_steps", "training.save_steps", "training.report_steps", "training.report_to")


class StudyEvaluation(Section):
    """Problems on which a cell is evaluated once it is trained."""

    source: str | None = Field(None, description="hub id or local file; null: the training data's, of another split")
    split: str = Field("test", description="split of the dataset")
    limit: Annotated[int, Field(gt=0)] = Field(200, description="use the first ones only, of each source")
    num_samples: Annotated[int, Field(gt=0)] = Field(16, description="samples of each problem")
    temperature: Annotated[float, Field(ge=0)] = Field(1.0, description="of the sampling")
    seed: int = Field(0, description="seed of the sampling, the same for every cell")


class SearchConfig(Section):
    """Settings chosen on validation problems, by one rule for every arm: the highest mean Avg@k, ties to the smaller rate."""

    grid: Grid = Field(default_factory=dict, description="for every arm: dotted key -> values, e.g. training.learning_rate")
    arms: dict[str, Grid] = Field(default_factory=dict, description="for single arms, beside those of all")
    seeds: tuple[int, ...] = Field((1000,), description="training seeds of the search, none of which the study itself uses")
    evaluation: StudyEvaluation = StudyEvaluation(split="validation", limit=64, num_samples=4)

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _different(value)

    @field_validator("grid", "arms")
    @classmethod
    def _something_to_choose_from(cls, value: dict[str, Any]) -> dict[str, Any]:
        for key, entry in value.items():
            if not entry:
                raise ValueError(f"{key} has no values to choose from")
        return value

    def grid_of(self, arm: str) -> Grid:
        return {**self.grid, **self.arms.get(arm, {})}


class PredictionConfig(Section):
    """What was predicted before training, to be compared with the effects (`dasd.study.predicted`)."""

    probes: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="task -> summary.json of dasd probe, one for each seed; paths beside the study file"
    )
    gains: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="task -> gain.json of dasd gain whose configs are called like the arms, likewise"
    )
    beta: float = Field(description="the dose at which arms are compared; arms with another one have no prediction")
    since: AwareDatetime | None = Field(
        None, description="when the gains were on file; arms of which no run had begun by then are judged alone, too"
    )
    also: tuple[str, ...] = Field((), description="other study files whose cells count too; paths beside this one")


class StudyConfig(Section):
    """`dasd study`: arms x tasks x seeds at matched budget. Arms and tasks are overrides of the base's settings."""

    output: LocalPath = Field("runs/study", description="folder of the study: OUTPUT/TASK/ARM/seed-S")
    plan: str = Field(
        "plan.md", description="hypotheses and analysis, written before the first run; a path beside the study file"
    )
    base: str = Field(description="config that all cells start from: a path beside the study file, or a recipe's name")
    tasks: dict[str, dict[str, Any]] = Field(description="name -> settings of the run that differ, {} for none")
    arms: dict[str, dict[str, Any]] = Field(description="name -> settings of the run that differ, most of all `method`")
    reference: str = Field(description="the arm that all others are compared with, e.g. grpo")
    seeds: tuple[int, ...] = Field((0, 1, 2), description="training seeds, the same for every arm")
    steps: Annotated[int, Field(gt=0)] = Field(description="optimisation steps of every cell; the last one is evaluated")
    evaluation: StudyEvaluation = StudyEvaluation()
    suites: dict[str, tuple[str, ...]] = Field(
        default_factory=dict, description="task -> benchmarks evaluated beside its own problems, e.g. [countdown/more_numbers]"
    )
    suite_limit: Annotated[int, Field(gt=0)] | None = Field(None, description="the first problems of each suite; null: all")
    search: SearchConfig | None = Field(None, description="settings chosen on validation problems; null: none")
    predictions: PredictionConfig | None = Field(None, description="what was predicted before training; null: nothing")
    pairs: tuple[tuple[str, str], ...] = Field(
        (), description="[arm, other arm] whose difference is reported too, with its interval and untested"
    )

    @field_validator("tasks", "arms", mode="before")
    @classmethod
    def _nothing_under_it(cls, value: Any) -> Any:
        return {name: {} if given is None else given for name, given in value.items()} if isinstance(value, Mapping) else value

    @field_validator("tasks", "arms")
    @classmethod
    def _names_are_folders(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("at least one is needed")
        for name in value:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]*", name):
                raise ValueError(f"{name!r} is to be a folder's name: letters, digits, and _ . + - after the first one")
        return value

    @field_validator("seeds")
    @classmethod
    def _seeds_differ(cls, value: tuple[int, ...]) -> tuple[int, ...]:
        return _different(value)

    @model_validator(mode="after")
    def _arms_fit(self) -> StudyConfig:
        names = list(self.arms)
        if self.reference not in names:
            raise ValueError(f"reference {self.reference!r} is none of the arms{nearest(self.reference, names)} Arms: {names}")
        for arm, settings in self.arms.items():
            _refuse(settings, f"arms.{arm}", MATCHED, "which all arms of a task share: budget and problems are matched")
        for task, settings in self.tasks.items():
            _refuse(settings, f"tasks.{task}", OURS, "which the study says itself (output, steps, seeds)")
        return self

    @model_validator(mode="after")
    def _pairs_are_arms(self) -> StudyConfig:
        if unknown := [arm for pair in self.pairs for arm in pair if arm not in self.arms]:
            raise ValueError(f"pairs: {unknown[0]!r} is none of the arms{nearest(unknown[0], list(self.arms))}")
        return self

    @model_validator(mode="after")
    def _suites_are_of_tasks(self) -> StudyConfig:
        for task, names in self.suites.items():
            if task not in self.tasks:
                raise ValueError(f"suites: {task!r} is none of the tasks{nearest(task, list(self.tasks))}")
            if len(set(names)) < len(names) or any(set(name) & set("*?[") for name in names):
                raise ValueError(f"suites.{task} must name benchmarks, each once and without patterns, got {list(names)}")
        return self

    @model_validator(mode="after")
    def _probes_are_of_tasks(self) -> StudyConfig:
        asked = {"probes": self.predictions.probes, "gains": self.predictions.gains} if self.predictions else {}
        for kind, task in [(kind, task) for kind, files in asked.items() for task in files]:
            if task not in self.tasks:
                raise ValueError(f"predictions.{kind}: {task!r} is none of the tasks{nearest(task, list(self.tasks))}")
        return self

    @model_validator(mode="after")
    def _search_is_apart(self) -> StudyConfig:
        if self.search is None:
            return self
        if unknown := [arm for arm in self.search.arms if arm not in self.arms]:
            raise ValueError(f"search.arms: {unknown[0]!r} is none of the arms{nearest(unknown[0], list(self.arms))}")
        if both := sorted(set(self.search.seeds) & set(self.seeds)):
            raise ValueError(f"search.seeds: {both} are seeds of the study too; a choice is confirmed with fresh ones")
        for arm in self.arms:
            grid = dict.fromkeys(self.search.grid_of(arm))
            _refuse(grid, "search", MATCHED, "which all arms of a task share: budget and problems are matched")
        return self


def _different(seeds: tuple[int, ...]) -> tuple[int, ...]:
    if not seeds or len(set(seeds)) < len(seeds):
        raise ValueError(f"seeds must be different numbers, at least one, got {list(seeds)}")
    return seeds


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings under their dotted keys; keys that are dotted already stay. Raises ValueError for one that is both."""
    found: dict[str, Any] = {}
    for key, value in settings.items():
        more = flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) and value else {prefix + key: value}
        if twice := found.keys() & more.keys():
            raise ValueError(f"{min(twice)} is there twice, dotted and under its section: keep one of them")
        found |= more
    return found


def is_of(given: str, keys: Iterable[str]) -> bool:
    """Whether a dotted key is one of these, or below one."""
    return any(given == key or given.startswith(f"{key}.") for key in keys)


def _refuse(settings: Mapping[str, Any], where: str, keys: tuple[str, ...], why: str) -> None:
    for given in flat(settings):
        if is_of(given, keys):
            raise ValueError(f"{where} sets {given}, {why}")


@dataclass(frozen=True)
class Study:
    """A study file that was read: its config, and the files that it names."""

    path: Path
    config: StudyConfig
    plan: Path
    base: Path
    probes: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # task -> summaries of probes
    gains: Mapping[str, tuple[Path, ...]] = field(default_factory=dict)  # task -> gain.json files
    also: tuple[Study, ...] = ()  # whose cells are compared with predictions, too

    @property
    def output(self) -> Path:
        return Path(self.config.output)

    @property
    def plan_sha256(self) -> str:
        return hashlib.sha256(self.plan.read_bytes()).hexdigest()

    @property
    def base_settings(self) -> dict[str, Any]:
        """What the base's file says, and what it extends, under dotted keys; without what decides nothing."""
        return {key: value for key, value in flat(read_values(RunConfig, self.base)).items() if not is_of(key, IDLE)}


def load_study(path: Path, recipes: Mapping[str, Path]) -> Study:
    """Reads a study file. Raises BadInput: it or a file that it names does not exist, unknown or unmatched settings."""
    study = _load(path, recipes)
    if study.config.predictions is None:
        return study
    also = tuple(_load(path.parent / name, recipes) for name in study.config.predictions.also)
    folders = [each.output.resolve() for each in (study, *also)]  # where the cells are, whatever the files are called
    for place, (other, own) in enumerate(zip(also, folders[1:], strict=True), start=1):
        if own in folders[:place]:
            raise BadInput(f"predictions.also: {other.path} would be counted twice; name other study files, each once")
        theirs, ours = other.config.reference, study.config.reference
        if theirs != ours:
            raise BadInput(f"predictions.also: {other.path} compares with {theirs}, and this study with {ours}")
    return replace(study, also=also)


def _load(path: Path, recipes: Mapping[str, Path]) -> Study:
    """One study file, whatever other ones it names."""
    config = load_config(StudyConfig, path)
    plan, base = path.parent / config.plan, path.parent / config.base
    if not plan.is_file():
        raise BadInput(f"plan {plan} does not exist: write down hypotheses and analysis before the first run")
    if not base.is_file():
        if config.base not in recipes:
            raise BadInput(
                f"base {config.base!r} is neither a file beside {path} nor a recipe{nearest(config.base, list(recipes))}"
            )
        base = recipes[config.base]
    asked = config.predictions or PredictionConfig(beta=0.0)
    probes, gains = (
        {task: tuple(path.parent / name for name in names) for task, names in files.items()}
        for files in (asked.probes, asked.gains)
    )
    for kind, files, writer in (("probes", probes, "probe writes a summary.json"), ("gains", gains, "gain writes a gain.json")):
        if missing := [str(file) for paths in files.values() for file in paths if not file.is_file()]:
            raise BadInput(f"predictions.{kind}: {missing[0]} does not exist; dasd {writer}")
    return Study(path, config, plan, base, probes, gains)
