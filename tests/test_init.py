"""Does a config that `dasd init` writes mean what its recipe means, and does the wheel bring the recipes?"""

import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
import yaml

from dasd.assets import BASE_MODELS
from dasd.cli import run
from dasd.config import RunConfig, load_config
from dasd.recipe_files import recipes


@pytest.mark.parametrize("name", recipes())
def test_what_is_written_is_the_recipe(name, tmp_path, capsys):
    output = tmp_path / "mine.yaml"
    assert run(["init", name, "--output", str(output)]) == 0
    assert load_config(RunConfig, output) == load_config(RunConfig, recipes()[name])
    text = output.read_text()
    assert "learning_rate: " in text
    assert "# peak learning rate" in text
    assert f"dasd doctor {output}" in capsys.readouterr().out


def test_it_lists_the_recipes_and_takes_overrides(tmp_path, capsys):
    assert run(["init"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("countdown/dasd_lora", "qwen3/1.7b_80gb", "llama/3b"))
    assert "accelerate/" not in listed  # launchers' configs
    assert "/base " not in listed
    output = tmp_path / "mine.yaml"
    assert run(["init", "countdown/dasd", "--output", str(output), "--training.steps", "7"]) == 0
    assert yaml.safe_load(output.read_text())["training"]["steps"] == 7


def test_it_overwrites_nothing_and_knows_its_names(tmp_path, capsys):
    output = tmp_path / "mine.yaml"
    output.write_text("precious")
    assert run(["init", "countdown/dasd", "--output", str(output)]) == 2
    assert output.read_text() == "precious"
    assert run(["init", "countdown/dads", "--output", str(tmp_path / "new.yaml")]) == 2
    assert "did you mean 'countdown/dasd" in capsys.readouterr().err
    assert not (tmp_path / "new.yaml").exists()


def test_the_wheel_brings_the_recipes(tmp_path):
    root = Path(__file__).parents[1]
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "wheel", *options, str(root)], check=True, capture_output=True)
    wheel = zipfile.ZipFile(next(tmp_path.glob("*.whl")))
    names = set(wheel.namelist())
    assert {f"dasd/recipes/{name}.yaml" for name in recipes()} <= names
    assert {"dasd/py.typed", "dasd/recipes/countdown/base.yaml"} <= names  # base.yaml: others extend it
    assert {f"dasd/assets/{folder.name}/model.safetensors" for folder in BASE_MODELS.values()} <= names
    page = wheel.read(next(name for name in names if name.endswith(".dist-info/METADATA"))).decode()
    links = re.findall(r"\]\(([^)]+)\)", page)
    assert "https://raw.githubusercontent.com/OWNER/dasd/main/docs/report.png" in links
    assert all(link.startswith(("https://", "#")) for link in links)  # a package page has no files beside it
