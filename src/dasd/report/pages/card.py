"""What does a trained model say of itself? The model card (README.md) of a final model, a checkpoint or a merged model.

Written from the run's files alone, so it can be written again when more is known: after an evaluation, after a merge.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dasd.report.data import inputs
from dasd.report.data.facts import sources_of
from dasd.report.data.inputs import RunFiles, mapping, number
from dasd.report.data.methods import describe_method
from dasd.report.data.metrics import describe
from dasd.report.data.results import result_rows, without_lower_ks
from dasd.report.parts.render import ROOT, write_whole

CARD = "README.md"


@dataclass(frozen=True)
class Table:
    """Figures by step, written out."""

    names: list[str]
    lines: list[list[str]]


def write_card(
    folder: Path, files: RunFiles, *, formula: str = "", settings: Mapping[str, Any] | None = None, base: str = "",
    license: str | None = None, merged: bool = False,
) -> Path:  # fmt: skip
    """Writes `folder/README.md` for the model in `folder`, which the run with these files made, and returns its path.

    formula, settings  the method's rule and all its settings, in place of those that the config names
    base, license      what was trained: 'bundled', a folder or a hub id, and its licence where it is known

    The step is read from a folder named checkpoint-N; figures before and after training are of the final model only.
    """
    content = _content(files, folder, dict(settings or {}), base, license, merged) | {"formula": formula}
    environment = Environment(
        loader=FileSystemLoader(ROOT),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    page = re.sub(r"\n{3,}", "\n\n", environment.get_template("pages/card.md.j2").render(content))
    return write_whole(folder / CARD, page)


def _content(
    files: RunFiles, folder: Path, settings: dict[str, Any], base: str, license: str | None, merged: bool
) -> dict[str, Any]:
    config = inputs.settings(files)
    sections = {name: mapping(config.get(name)) for name in ("model", "data", "teacher", "method", "training")}
    method, training = sections["method"], sections["training"]
    sections["method"] = {"name": method.get("name"), **(settings or {k: v for k, v in method.items() if k != "name"})}
    run = files.run or {}
    base = base or str(run.get("model") or sections["model"].get("path") or "an unnamed model")
    title, explanation = describe_method(str(method.get("name", "")))
    step = re.fullmatch(r"checkpoint-(\d+)", folder.name)
    rows = [] if step else result_rows(files.summary or {})
    is_adapter = bool(training.get("lora_rank")) and not merged
    kind = "LoRA adapter for" if is_adapter else "fine-tuned version of"
    opening = f"A {kind} {_link(base)}, trained with {title}."
    if merged:
        opening += " The adapter is merged into the base's weights."
    if step:
        opening += f" A checkpoint: step {step[1]} of {training.get('steps', 'an unknown number')}."
    return {
        "front_matter": yaml.safe_dump(_front_matter(base, license, is_adapter, str(method.get("name", ""))), sort_keys=False),
        "name": Path(str(config.get("output") or folder)).name or folder.name,
        "opening": opening,
        "unmoved": (files.result or {}).get("weights_changed") is False,
        "explanation": explanation,
        "facts": _facts(sections, run),
        "rows": rows,
        "evaluated": _evaluated(files.summary or {}),
        "validation": _validation(files.validation, int(step[1]) if step else None),
        "command": run.get("command") if isinstance(run.get("command"), str) else "",
        "versions": _versions(run),
    }


def _front_matter(base: str, license: str | None, is_adapter: bool, method: str) -> dict[str, Any]:
    facts = {
        "base_model": base if _is_hub_id(base) else None,
        "library_name": "peft" if is_adapter else "transformers",
        "license": license,
        "pipeline_tag": "text-generation",
        "tags": list(dict.fromkeys(filter(None, ("dasd", method, "trl", "self-distillation", "lora" if is_adapter else "")))),
    }
    return {key: value for key, value in facts.items() if value}


def _facts(sections: dict[str, dict[str, Any]], run: dict[str, Any]) -> list[tuple[str, str]]:
    """What was done, in the terms of the config."""
    data, teacher, method, training = (sections[name] for name in ("data", "teacher", "method", "training"))
    settings = ", ".join(f"{key} {value}" for key, value in method.items() if key != "name")
    trained = "all weights"
    if training.get("lora_rank"):
        trained = f"LoRA of rank {training['lora_rank']}" + (", embeddings in full" if training.get("lora_embeddings") else "")
    rollouts = f"{training.get('steps')} steps of {training.get('rollouts_per_step')} rollouts"
    chosen = f"{method.get('name')}{f' ({settings})' if settings else ', with its default settings'}"
    source = sources_of(data)
    facts = {
        "Base": run.get("model"),
        "Data": f"{source}, split {data.get('split')}, task {data.get('task')}" if source else None,
        "Method": chosen if method.get("name") else None,
        "Teacher": f"{teacher.get('weights')} weights, sees {teacher.get('context')}" if teacher else None,
        "Trained": trained if training else None,
        "Steps": rollouts if training else None,
        "Group size": training.get("group_size"),
        "Learning rate": training.get("learning_rate"),
        "Loss": training.get("loss_type"),
        "Seed": run.get("seed"),
        "Hardware": run.get("hardware"),
        "Started": run.get("started"),
    }
    return [(key, _cell(value)) for key, value in facts.items() if value is not None]


def _evaluated(summary: dict[str, Any]) -> str:
    problems, samples = number(summary.get("num_problems")), number(summary.get("num_samples"))
    known = problems == problems and samples == samples
    return f"On {problems:,.0f} test problems, {samples:,.0f} samples each, before and after training." if known else ""


def _validation(lines: list[dict[str, Any]] | None, until: int | None) -> Table | None:
    shown = [line for line in lines or [] if until is None or number(line.get("step")) <= until]
    if not shown:
        return None
    figures = without_lower_ks([key for key in shown[-1] if key not in ("step", "ci95")])
    names = [name for name in figures if describe(name).main or name == "truncated"]
    written = [[f"{line['step']}", *(_written(name, line.get(name)) for name in names)] for line in shown]
    return Table([describe(name).label for name in names], written)


def _written(name: str, value: Any) -> str:
    unit = describe(name).unit
    return unit.write(number(value)) + unit.suffix


def _versions(run: dict[str, Any]) -> str:
    versions = ", ".join(f"{name} {value}" for name, value in mapping(run.get("versions")).items())
    revision = f", dasd at revision {run['git_revision']}" if run.get("git_revision") else ""
    return f"Python {run.get('python', 'of unknown version')}, {versions}{revision}." if versions else ""


def _link(base: str) -> str:
    return f"[{base}](https://huggingface.co/{base})" if _is_hub_id(base) else f"`{base}`"


def _is_hub_id(base: str) -> bool:
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not Path(base).exists()


def _cell(value: Any) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
