"""Does every shipped recipe load, name its method, and say what it was tested on and what to expect?"""

import json
from collections import defaultdict
from pathlib import Path
from statistics import fmean

import pytest

from dasd.config import RunConfig, load_config
from dasd.credit import METHODS, make_method
from dasd.training.arguments import trainer_arguments
from dasd.training.rewards import rewards

FOLDER = Path(__file__).parent.parent / "recipes" / "countdown"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if path.stem != "base")


def method_of(path):
    return path.stem.removesuffix("_lora")


def test_there_is_one_for_each_method():
    assert {method_of(path) for path in RECIPES} == set(METHODS)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_is_sound(path, tmp_path):
    config = load_config(RunConfig, path, ["--output", str(tmp_path / "run")])
    assert config.method.name == method_of(path)
    assert (config.training.lora_rank > 0) == path.stem.endswith("_lora")
    make_method(config.method.name, config.method.settings)
    assert trainer_arguments(config).learning_rate == config.training.learning_rate
    assert len(rewards(None, config)) == (2 if path.stem == "dapo" else 1)
    text = path.read_text()
    assert text.startswith("# Tested on: ")
    assert f"Command: dasd train recipes/countdown/{path.name}" in text
    measured = path.stem in {json.loads(line)["recipe"] for line in (FOLDER / "search.jsonl").read_text().splitlines()}
    assert ("Expect on 100 validation problems: Avg@16 0." in text) == measured
    assert ("Not measured" in text) == (not measured)


def test_learning_rates_are_the_best_of_the_search():
    found: defaultdict[str, defaultdict[float, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for line in (FOLDER / "search.jsonl").read_text().splitlines():
        row = json.loads(line)
        found[row["recipe"]][row["learning_rate"]].append(row)
    for path in (path for path in RECIPES if path.stem in found):
        means = {
            rate: tuple(fmean(row[name] for row in rows) for name in ("avg_at_16", "pass_at_16"))
            for rate, rows in found[path.stem].items()
        }
        best = max(means, key=means.__getitem__)
        assert load_config(RunConfig, path).training.learning_rate == best
        assert f"Avg@16 {means[best][0]:.3f}" in path.read_text()
