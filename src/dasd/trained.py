"""What does a model that was trained here say of itself? How its prompts are made, and which problems it has seen.

`dasd.json` stands in a run's folder, beside its final model, and beside what is merged from that. Whatever samples or scores
the model takes its settings from there, unless the user gives others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from dasd.config import BASES, BUNDLED, BadInput, RunConfig
from dasd.files import write_json

logger = logging.getLogger("dasd")
FACTS = "dasd.json"
C = TypeVar("C", bound=BaseModel)


@dataclass(frozen=True)
class Trained:
    """run: the folder it was trained in; problems: digests of what it was trained on, its base's included; the others: how
    these were asked and graded, as `data` has it."""

    run: str
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    system_prompt: str | None = None
    problems: list[str] = field(default_factory=list)
    task: str | None = None
    task_settings: dict[str, Any] = field(default_factory=dict)
    answer_format: str = "auto"
    prompt: str | None = None

    @classmethod
    def of(cls, model: str) -> Trained | None:
        """Of a model's folder, a checkpoint's (that may be gone by now), or a run's; None where nothing is said, and of what is
        no folder."""
        folder = Path(model).expanduser().absolute()
        if not folder.is_dir() and folder.parent.name != "checkpoints":
            return None  # a hub id is no place: what lies around here is not its own
        for place in (folder, folder.parent, folder.parent.parent):
            try:
                return cls(**json.loads((place / FACTS).read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError):
                continue
        return None

    def write(self, folder: Path) -> None:
        write_json(folder / FACTS, asdict(self))


def facts_of_run(config: RunConfig, problems: Iterable[str]) -> Trained:
    """What a run's model will say; `problems` are the digests of its own."""
    base, data = Trained.of(config.model.path), config.data
    seen = sorted({*problems, *(base.problems if base else ())})
    return Trained(
        config.output, config.model.chat_template_kwargs, data.system_prompt, seen, data.task, data.task_settings,
        data.answer_format, data.prompt,
    )  # fmt: skip


def is_run(path: Path) -> bool:
    """Whether the folder is one of `dasd train` or `dasd quickstart`."""
    if (path / "config.json").exists():
        return False
    try:
        said = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return isinstance(said, dict) and "training" in said  # probes and token maps have a config, too


def final_model(run: Path) -> Path:
    """The folder of a run's final model. Raises BadInput where the run has not ended."""
    final = run / "checkpoints" / "final"
    if any((final / name).is_file() for name in ("config.json", "adapter_config.json")):
        return final
    steps = [int(path.name.rpartition("-")[2]) for path in (run / "checkpoints").glob("checkpoint-*[0-9]")]
    hint = f"end it, or give its last checkpoint, {run}/checkpoints/checkpoint-{max(steps)}" if steps else "end it first"
    raise BadInput(f"{run} is a run that has no final model yet: {hint}")


def as_trained(config: C) -> C:
    """`config` with what its model says of itself where the user has set nothing: how its prompts are made, and what problems
    it is for; a run's folder is its final model.

    Raises BadInput for a run that has not ended.
    """
    model: Any = config.model  # type: ignore[attr-defined]
    path = Path(model.path)
    settings: dict[str, Any] = {"path": str(final_model(path))} if is_run(path) else {}
    facts, data = Trained.of(model.path), config.data  # type: ignore[attr-defined]
    if facts is not None and "chat_template_kwargs" not in model.model_fields_set:
        settings["chat_template_kwargs"] = facts.chat_template_kwargs
    if facts is not None and "system_prompt" not in data.model_fields_set:
        data = data.model_copy(update={"system_prompt": facts.system_prompt})
    asked = asked_of(config)
    if "task" in asked and asked["task"] != data.task:
        logger.info("Asked are problems of %s, which this model was made for; --data.task asks others.", asked["task"])
    return config.model_copy(update={"model": model.model_copy(update=settings), "data": data.model_copy(update=asked)})


def asked_of(config: BaseModel) -> dict[str, Any]:
    """What the model of `config` says of the problems it is for, as settings of `data`: those that the user has not given."""
    path, data = config.model.path, config.data  # type: ignore[attr-defined]
    if getattr(config, "benchmarks", ()):
        return {}
    facts, given = Trained.of(path), data.model_fields_set
    task = facts.task if facts is not None else _task_of_base(path)
    asked: dict[str, Any] = {}
    if task is not None and not given & {"task", "source", "sources"}:
        asked["task"] = task
    if facts is not None and facts.task == asked.get("task", data.task):
        asked |= {"task_settings": facts.task_settings, "answer_format": facts.answer_format}
        if given & {"source", "sources"}:  # the bundled ones are asked as they stand
            asked["prompt"] = facts.prompt
    return {name: value for name, value in asked.items() if name not in given}


def _task_of_base(path: str) -> str | None:
    """Of bundled/NAME; None of any other model."""
    name = path.removeprefix(f"{BUNDLED}/")
    return name if name != path and name in BASES else None
