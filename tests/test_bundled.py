"""Which base does `bundled` mean? The one that was made for the task at hand."""

from pathlib import Path

import pytest

from dasd.assets import BASE_MODELS
from dasd.config import (
    BASES,
    BadInput,
    EvalConfig,
    ModelConfig,
    ProbeConfig,
    RunConfig,
    TokensConfig,
    dump_config,
    load_config,
    make_config,
)
from dasd.credit import make_method
from dasd.evaluation.runner import _of_model
from dasd.models import load_model, model_path
from dasd.training.arguments import trainer_arguments

RECIPES = sorted(path for path in (Path(__file__).parents[1] / "recipes" / "products").glob("*.yaml") if path.stem != "base")


def test_every_base_ships_with_the_package():
    assert tuple(BASE_MODELS) == BASES
    assert model_path(ModelConfig(path="bundled")) == model_path(ModelConfig(path="bundled/countdown"))
    for name, folder in BASE_MODELS.items():
        assert model_path(ModelConfig(path=f"bundled/{name}")) == str(folder)
        model, tokenizer = load_model(ModelConfig(path=f"bundled/{name}"))
        assert model.config.vocab_size == len(tokenizer) < 600
        assert 800_000 < model.num_parameters() < 900_000


def test_a_base_that_there_is_none_of_is_named_with_the_nearest():
    with pytest.raises(BadInput, match="bundled/product does not ship with this package, did you mean 'bundled/products'"):
        load_model(ModelConfig(path="bundled/product"))


@pytest.mark.parametrize("kind", [RunConfig, EvalConfig, ProbeConfig, TokensConfig])
@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ([], "bundled"),
        (["--data.task", "products"], "bundled/products"),
        (["--data.task", "products", "--model.path", "bundled"], "bundled/products"),
        (["--data.task", "products", "--model.path", "bundled/countdown"], "bundled/countdown"),
        (["--data.task", "products", "--model.path", "some/folder"], "some/folder"),
        (["--data.task", "math", "--data.source", "mine.jsonl"], "bundled"),
    ],
)
def test_bundled_is_the_base_of_the_task(kind, overrides, path, tmp_path):
    config = make_config(kind, {}, overrides)
    assert config.model.path == path
    (tmp_path / "config.yaml").write_text(dump_config(config))
    assert load_config(kind, tmp_path / "config.yaml") == config


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ([], "bundled"),
        (["--data.task", "products"], "bundled/products"),
        (["--benchmarks", "products/*"], "bundled/products"),
        (["--benchmarks", "countdown/*"], "bundled"),
        (["--benchmarks", "products/*,countdown/*"], "bundled"),
    ],
)
def test_the_model_that_dasd_eval_is_given(overrides, path):
    assert _of_model(make_config(EvalConfig, {}, overrides), "bundled", loads=False).model.path == path


def test_there_are_recipes_for_the_main_methods():
    main = {"grpo", "dasd", "dasd_paper", "conformity", "novelty", "hepo", "opsd", "sdpo", "rlsd"}
    assert main <= {path.stem for path in RECIPES}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_of_products_is_countdowns_but_for_the_task(path, tmp_path):
    ours, theirs = (load_config(RunConfig, path.parents[1] / task / path.name) for task in ("products", "countdown"))
    assert ours.method == theirs.method
    assert ours.method.name == path.stem
    assert ours.training == theirs.training
    assert (ours.model.path, ours.data.task, ours.output) == ("bundled/products", "products", f"runs/products/{path.stem}")
    assert f"Command: dasd train recipes/products/{path.name}" in path.read_text()
    make_method(ours.method.name, ours.method.settings)
    trainer_arguments(ours.model_copy(update={"output": str(tmp_path)}))
