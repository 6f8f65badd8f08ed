"""Which configs come with the package? The files of `recipes/`, in a checkout or the wheel, and a config written out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

from dasd.commands.base import walk
from dasd.config import BadInput, RunConfig, load_config, nearest
from dasd.config.core import as_yaml

_PLACES = (Path(__file__).parent / "recipes", Path(__file__).parents[2] / "recipes")  # of the wheel, of a checkout


def recipes() -> dict[str, Path]:
    """Name (countdown/dasd, qwen3/1.7b_80gb, ...) -> file, of those that `dasd train` takes."""
    root = next((place for place in _PLACES if place.is_dir()), None)
    if root is None:
        return {}
    found = {str(path.relative_to(root).with_suffix("")): path for path in sorted(root.rglob("*.yaml"))}
    return {name: path for name, path in found.items() if path.stem != "base" and _is_run(path)}


def in_a_line(path: Path) -> str:
    """What a recipe is for: its model, what is trained, the method."""
    config = load_config(RunConfig, path)
    trained = f"LoRA of rank {config.training.lora_rank}" if config.training.lora_rank else "all weights"
    return f"{config.method.name}, {config.model.path}, {trained}"


def written_out(name: str, overrides: list[str]) -> str:
    """A recipe with every setting that it decides, each with what it means, as YAML. Raises BadInput for an unknown name."""
    known = recipes()
    if name not in known:
        raise BadInput(f"unknown recipe {name!r}{nearest(name, list(known))} Recipes: {', '.join(known)}")
    config = load_config(RunConfig, known[name], overrides)
    lines = [
        f"# From the recipe {name}. Every setting of `dasd train`; a line left out takes its default.",
        "",
    ]
    lines += _section(config.model_dump(mode="json"), {each.key: each for each in walk(config)}, "")
    return "\n".join(lines) + "\n"


def _section(values: dict[str, Any], meanings: dict[str, Any], prefix: str) -> list[str]:
    lines, indent = [], "  " * prefix.count(".")
    for name, value in values.items():
        key = prefix + name
        if isinstance(value, dict) and key not in meanings and value:
            lines += [*([""] if not prefix else []), f"{indent}{name}:", *_section(value, meanings, f"{key}.")]
            continue
        text = _in_a_line(value)
        setting = meanings.get(key)
        choices = f" ({', '.join(map(str, setting.choices))})" if setting and setting.choices else ""
        lines.append(f"{indent}{name}: {text}" + (f"  # {setting.description}{choices}" if setting else ""))
    return lines


def _in_a_line(value: Any) -> str:
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value, ensure_ascii=False)  # which is YAML, too
    return as_yaml(value, default_flow_style=True, width=10_000).removesuffix("\n...\n").strip()


def _is_run(path: Path) -> bool:
    """Whether the file is a run's config; others are launchers' and evaluations'."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return isinstance(values, dict) and bool({"extends", *RunConfig.model_fields} & values.keys()) and set(values) <= {
        "extends", *RunConfig.model_fields
    }  # fmt: skip
