"""Which runs does a study take, in which order, and what is on file of each? Imports no torch.

The arms in the order of the file, of each arm first the search; so the file's first arms answer its main question first.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from dasd.config import BadInput, DataConfig, EvalConfig, RunConfig, load_config
from dasd.files import read_json
from dasd.study.config import Study, flat

EVALUATION, STATE = "evaluation", "cell.json"
Settings = dict[str, Any]


@dataclass(frozen=True)
class Cell:
    """One run: train, then evaluate. `candidate`: the settings that are tried, of a cell of the search."""

    study: Study = field(repr=False)
    task: str
    arm: str
    seed: int
    candidate: Settings | None = None

    @property
    def name(self) -> str:
        search = "" if self.candidate is None else f"search/{slug(self.candidate)}/"
        return f"{self.task}/{self.arm}/{search}seed-{self.seed}"

    @property
    def folder(self) -> Path:
        return self.study.output / self.name

    @property
    def summary(self) -> Path:
        return self.folder / EVALUATION / "summary.json"

    @property
    def done(self) -> bool:
        trained = (read_json(self.folder / "result.json") or {}).get("steps", 0) >= self.study.config.steps
        return trained and self.summary.is_file()

    @property
    def state(self) -> Settings:
        """What is on file of its work: `seconds` of all sittings that ended, `error` and its time `at` if the last failed."""
        return read_json(self.folder / STATE) or {}

    @property
    def score(self) -> float:
        """Avg@k of a cell that is done."""
        summary = read_json(self.summary)
        return float(summary[f"avg_at_{summary['num_samples']}"])

    def run_config(self, chosen: Mapping[str, Any]) -> RunConfig:
        """The base, over it the task's settings, the arm's, those chosen or tried, and ours. Raises BadInput with the name."""
        config = self.study.config
        ours = {"training.steps": config.steps, "training.seed": self.seed, "output": str(self.folder)}
        given = {**flat(config.tasks[self.task]), **flat(config.arms[self.arm]), **(self.candidate or chosen), **ours}
        try:
            return load_config(RunConfig, self.study.base, as_overrides(given))
        except BadInput as error:
            raise BadInput(f"{self.name}: {error}") from None

    def eval_config(self, run: RunConfig) -> EvalConfig:
        search = self.study.config.search
        asked = self.study.config.evaluation if self.candidate is None or search is None else search.evaluation
        place = {
            "split": asked.split,
            "limit": asked.limit,
            **({"source": asked.source, "sources": ()} if asked.source else {}),
        }
        return EvalConfig(
            data=DataConfig(**(run.data.model_dump() | place)),
            num_samples=asked.num_samples,
            temperature=asked.temperature,
            seed=asked.seed,
            max_completion_length=run.training.max_completion_length,
        )

    def commands(self) -> list[list[str]]:
        """The arguments of `dasd`, in their order."""
        folder = str(self.folder)
        evaluate = ["eval", folder, "--config", f"{folder}/eval.yaml", "--output", f"{folder}/{EVALUATION}"]
        return [["train", f"{folder}/cell.yaml"], evaluate]


def candidates(study: Study, arm: str) -> list[Settings]:
    """Every combination of the values that the arm's search tries; none without a search."""
    grid = {} if study.config.search is None else study.config.search.grid_of(arm)
    return [dict(zip(grid, values, strict=True)) for values in product(*grid.values())] if grid else []


def search_cells(study: Study, task: str, arm: str) -> list[Cell]:
    seeds = study.config.search.seeds if study.config.search else ()
    return [Cell(study, task, arm, seed, candidate) for candidate in candidates(study, arm) for seed in seeds]


def main_cells(study: Study, task: str, arm: str) -> list[Cell]:
    return [Cell(study, task, arm, seed) for seed in study.config.seeds]


def all_cells(study: Study) -> list[Cell]:
    """In the order of work."""
    cells: list[Cell] = []
    for arm in study.config.arms:
        for part in (search_cells, main_cells):
            cells += [cell for task in study.config.tasks for cell in part(study, task, arm)]
    return cells


def check(cells: list[Cell]) -> None:
    """Builds the config of every cell. Raises BadInput with the first that is none."""
    for cell in cells:
        first = next(iter(candidates(cell.study, cell.arm)), {})
        cell.eval_config(cell.run_config(first))


def as_overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as the command line has them."""
    words: list[str] = []
    for key, value in settings.items():
        words += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
    return words


def slug(settings: Mapping[str, Any]) -> str:
    """Settings as a folder's name: learning_rate=0.001,beta=0.05."""
    parts = (f"{key.rpartition('.')[2]}={value}" for key, value in settings.items())
    return ",".join("".join(letter if letter.isalnum() or letter in "=.+-_" else "_" for letter in part) for part in parts)
