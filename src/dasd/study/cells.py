"""Which runs does a study take, in which order, and what is on file of each? Imports no torch.

The arms in the order of the file, of each arm first the search; so the file's first arms answer its main question first.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from itertools import product
from pathlib import Path
from typing import Any

from dasd.config import BadInput, EvalConfig, RunConfig, load_config
from dasd.config.core import portable
from dasd.config.splits import of_another_split, shared_source
from dasd.files import read_json
from dasd.study.config import IDLE, Study, StudyEvaluation, flat, is_of

EVALUATION, SUITES, STATE, OUTCOME = "evaluation", "suites", "cell.json", "outcome.json"
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
    def suites(self) -> tuple[str, ...]:
        """Benchmarks that are evaluated beside the task's own problems; none in a search."""
        return self.study.config.suites.get(self.task, ()) if self.candidate is None else ()

    @property
    def own_set(self) -> str:
        """Name of the task's own problems among the evaluation sets: their split."""
        return self.evaluation.split

    @property
    def outcome(self) -> Settings | None:
        """What is kept of it (`dasd.study.outcome`); None where it is not done."""
        kept = read_json(self.folder / OUTCOME)
        return kept if kept and kept["steps"] >= self.study.config.steps else None

    @property
    def done(self) -> bool:
        return self.outcome is not None

    @property
    def state(self) -> Settings:
        """What is on file of its work: `seconds` of all sittings that ended, `error` and its time `at` if the last failed."""
        return read_json(self.folder / STATE) or {}

    @property
    def score(self) -> float:
        """Avg@k of a cell that is done, on the task's own problems."""
        if (kept := self.outcome) is None:
            raise ValueError(f"{self.name} is not done")
        of = kept["sets"][self.own_set]
        return sum(of["right"]) / len(of["right"]) / of["num_samples"]

    @property
    def evaluation(self) -> StudyEvaluation:
        """What the study asks of it on the task's own problems."""
        search = self.study.config.search
        return self.study.config.evaluation if self.candidate is None or search is None else search.evaluation

    def run_config(self, chosen: Mapping[str, Any]) -> RunConfig:
        """The base, over it the task's settings, the arm's, those chosen or tried, and ours. Raises BadInput with the name."""
        config = self.study.config
        ours = {"training.steps": config.steps, "training.seed": self.seed, "output": str(self.folder)}
        given = {**flat(config.tasks[self.task]), **flat(config.arms[self.arm]), **(self.candidate or chosen), **ours}
        given = {key: value for key, value in given.items() if value != {}}  # as in a file that extends another: no change
        try:
            return load_config(RunConfig, self.study.base, given)
        except BadInput as error:
            raise BadInput(f"{self.name}: {error}") from None

    def eval_config(self, run: RunConfig) -> EvalConfig:
        """On the task's own problems. Raises BadInput where they are those that it is trained on."""
        section = "evaluation" if self.candidate is None else "search.evaluation"
        whose = f"{self.task}: {section} needs problems of its own"
        return EvalConfig(data=of_another_split(run.data, self.evaluation, section, whose), **self._sampling(run))

    def suites_config(self, run: RunConfig) -> EvalConfig:
        sampling = self._sampling(run) | {"data": {"system_prompt": run.data.system_prompt}}
        return EvalConfig(benchmarks=self.suites, limit=self.study.config.suite_limit, **sampling)

    def _sampling(self, run: RunConfig) -> Settings:
        """What the study says, and the model as the run loads and asks it; which weights, `dasd eval` is told by the folder."""
        settings = self.evaluation.model_dump(include={"num_samples", "temperature", "seed"})
        model = run.model.model_dump(exclude={"path", "revision"})
        return {**settings, "max_completion_length": run.training.max_completion_length, "model": model}

    def commands(self) -> list[list[str]]:
        """The arguments of `dasd`, in their order."""
        folder = str(self.folder)
        evaluations = [("eval.yaml", EVALUATION), *([("suites.yaml", SUITES)] if self.suites else [])]
        asked = [["--config", f"{folder}/{settings}", "--output", f"{folder}/{to}"] for settings, to in evaluations]
        return [["train", f"{folder}/cell.yaml"], *(["eval", folder, *arguments] for arguments in asked)]


def settings_of(run: RunConfig) -> Settings:
    """What decides a run besides its steps and seed, section by section, as JSON has it."""
    return {
        name: {key: value for key, value in section.items() if not is_of(f"{name}.{key}", IDLE)}
        for name, section in portable(run).items()
        if not is_of(name, IDLE)
    }


def asked_of(cell: Cell) -> Settings:
    """How a cell is evaluated, as JSON has it."""
    asked = cell.evaluation.model_dump(mode="json")
    return {**asked, "suite_limit": cell.study.config.suite_limit} if cell.suites else asked


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
    """Builds the configs of every cell. Raises BadInput with the first that is none, or would be judged on
    the problems that it trains on, or chosen on those of the test; and with two arms that are the same."""
    from dasd.data.problems import check_split
    from dasd.evaluation.benchmarks import choose

    known: dict[str, str] = {}
    checked: set[str] = set()
    for cell in cells:
        run = cell.run_config(next(iter(candidates(cell.study, cell.arm)), {}))
        if cell.candidate is None:
            same = known.setdefault(repr((cell.task, cell.seed, settings_of(run), candidates(cell.study, cell.arm))), cell.arm)
            if same != cell.arm:
                raise BadInput(
                    f"arms {same} and {cell.arm} have the same settings: what an arm is called chooses nothing, give it a "
                    "method ({method: {name: ...}}) or other settings"
                )
        asked, tested = (each.eval_config(run).data for each in (cell, replace(cell, candidate=None)))
        section = "evaluation" if cell.candidate is None else "search.evaluation"
        if (whose := repr((section, asked))) not in checked:
            check_split(asked, f"{section}.split")
            checked.add(whose)
        if cell.candidate is not None and (source := shared_source(tested, asked)):
            raise BadInput(
                f"{cell.task}: search.evaluation asks the problems of evaluation ({source}, {asked.split}): choose on another "
                "split, or on another file where the source has no splits"
            )
        if cell.suites:
            choose(cell.suites)
            cell.suites_config(run)


def slug(settings: Mapping[str, Any]) -> str:
    """Settings as a folder's name: learning_rate=0.001,beta=0.05."""
    parts = (f"{key.rpartition('.')[2]}={value}" for key, value in settings.items())
    return ",".join("".join(letter if letter.isalnum() or letter in "=.+-_" else "_" for letter in part) for part in parts)
