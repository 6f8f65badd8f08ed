"""Which runs stand side by side, and what is each called? Paths from a command line become named groups of runs.

A group is one run, or several that differ in their training seed alone. Names tell the groups apart and are as short as that
allows; they are given, or made of what the paths do not share.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from dasd.config import BadInput
from dasd.config.core import read_yaml
from dasd.evaluation.readers import OnFile, Run, read_run
from dasd.evaluation.summary import Record
from dasd.trained import Trained, is_run

SEEDS = "seeds"


@dataclass(frozen=True)
class Group:
    """Runs under one name, on the benchmarks that all of them have."""

    name: str
    runs: tuple[Run, ...]

    @property
    def benchmarks(self) -> list[str]:
        return [name for name in self.runs[0].benchmarks if all(name in run.benchmarks for run in self.runs)]

    def of(self, benchmark: str) -> list[OnFile]:
        return [run.benchmarks[benchmark] for run in self.runs]

    @property
    def who(self) -> Record:
        trained = [found for run in self.runs if (found := _training(run)) is not None]
        seeds = [config.get("training", {}).get("seed") for config in trained]
        evaluations = [evaluation for run in self.runs for evaluation in run.benchmarks.values()]
        last = max((evaluation.folder.stat().st_mtime for evaluation in evaluations), default=0.0)
        return {
            "name": self.name,
            "model": ", ".join(dict.fromkeys(run.model for run in self.runs)),
            "paths": [str(run.path) for run in self.runs],
            "method": ", ".join(dict.fromkeys(_method(config) for config in trained)) or None,
            "seeds": [seed for seed in seeds if seed is not None],
            "date": datetime.fromtimestamp(last, UTC).date().isoformat(),
        }


def read_groups(arguments: Sequence[str], by: str | None = None) -> list[Group]:
    """Groups from `PATH`, `NAME=PATH` or `NAME=PATH,PATH`; `by` "seeds" puts runs of the same settings together.

    Raises BadInput where a path holds no evaluation, a name comes twice, or runs cannot be grouped.
    """
    named: list[tuple[str | None, list[Run]]] = []
    for argument in arguments:
        name, equals, paths = argument.partition("=")
        if not equals or Path(argument).exists():
            named.append((None, [read_run(Path(argument).expanduser())]))
        else:
            named.append((name, [read_run(Path(path).expanduser()) for path in paths.split(",")]))
    if by == SEEDS:
        named = _of_the_same_settings(named)
    given = [name for name, _ in named if name is not None]
    if twice := [name for index, name in enumerate(given) if name in given[:index]]:
        raise BadInput(f"two runs are called {twice[0]}: give each a name of its own")
    made, names = iter(distinct_names([_parts_of(runs[0]) for name, runs in named if name is None])), list[str]()
    for own, _ in named:
        wanted = own or next(made)
        again = names.count(wanted) + sum(other.startswith(f"{wanted} (") for other in names)
        names.append(f"{wanted} ({again + 1})" if again else wanted)
    return [Group(name, tuple(runs)) for name, (_, runs) in zip(names, named, strict=True)]


def distinct_names(paths: Sequence[Sequence[str]]) -> list[str]:
    """What each path, given by its parts, has that not all of them share; parts that are everywhere say nothing.

    runs/dasd/checkpoints/final and runs/grpo/checkpoints/final are dasd and grpo. A single path is its last two parts; equal
    paths stay equal.
    """
    if len({tuple(path) for path in paths}) < 2:
        return ["/".join(path[-2:]) for path in paths]
    start = next(i for i in range(max(map(len, paths))) if len({path[i] if i < len(path) else None for path in paths}) > 1)
    start -= any(len(path) == start for path in paths)  # one path lies in another: its own last part names it
    tails = [list(reversed(path[start:])) for path in paths]
    end = next((i for i in range(max(map(len, tails))) if len({tail[i] if i < len(tail) else None for tail in tails}) > 1), 0)
    return ["/".join(path[start : len(path) - end]) or path[-1] for path in paths]


def _parts_of(run: Run) -> tuple[str, ...]:
    return run.path.resolve().parts


def _of_the_same_settings(named: list[tuple[str | None, list[Run]]]) -> list[tuple[str | None, list[Run]]]:
    """Runs whose training configs differ in seed and output folder alone, in one group, called after what they share."""
    groups: dict[str, list[Run]] = {}
    for name, runs in named:
        if name is not None:
            raise BadInput(f"--group seeds finds the groups itself: give {name}'s folders without a name, or leave --group out")
        config = _training(runs[0])
        if config is None:
            raise BadInput(
                f"{runs[0].path}: no config.yaml tells which settings its model was trained with, so its seeds cannot be "
                "found; name the groups yourself, as in mine=FOLDER,FOLDER"
            )
        settings = json.loads(json.dumps(config, default=str))
        settings.pop("output", None)
        settings.get("training", {}).pop("seed", None)
        groups.setdefault(json.dumps(settings, sort_keys=True), []).append(runs[0])
    methods = [_method(json.loads(settings)) for settings in groups]
    made = [
        method if methods.count(method) == 1 else None  # of one method with other settings the paths have to tell
        for method in methods
    ]
    return list(zip(made, groups.values(), strict=True))


def _training(run: Run) -> dict[str, Any] | None:
    """The config of the run that trained the model; None where none is found."""
    model = next(iter(run.benchmarks.values())).model
    told = Trained.of(model)
    for folder in (*([Path(told.run)] if told else []), run.path, *run.path.parents[:1], *Path(model).parents[:2]):
        if is_run(folder) and (told is not None or _trained_there(run)):
            try:
                config = read_yaml((folder / "config.yaml").read_text(encoding="utf-8"))
            except (OSError, yaml.YAMLError):
                continue
            if isinstance(config, dict):
                return config
    return None


def _trained_there(run: Run) -> bool:
    """Whether the model is a run's checkpoint; that a base was evaluated in a run's folder does not make it one."""
    return all(evaluation.model.rstrip("/").split("/")[-2:-1] == ["checkpoints"] for evaluation in run.benchmarks.values())


def _method(config: dict[str, Any]) -> str:
    method = config.get("method")
    return str(method.get("name", "")) if isinstance(method, dict) else str(method or "")
