"""Does every recipe for a published model resolve, fit the GPU it names, and say no more than was tried?

The hub is not needed: a folder with the published config.json stands for each model.
"""

import re
from pathlib import Path

import pytest
from transformers import LlamaConfig, Qwen3Config

from dasd.config import RunConfig, load_config
from dasd.evaluation.benchmarks import PROMPTS
from dasd.training.dry_run import Hardware, make_plan
from dasd.training.memory import GIB
from dasd.training.rewards import rewards

ROOT = Path(__file__).parent.parent
RECIPES = sorted(path for folder in ("qwen3", "llama") for path in (ROOT / "recipes" / folder).glob("*.yaml"))
RECIPES = [path for path in RECIPES if path.stem != "base"]
BASES = [path for path in (ROOT / "recipes").glob("*/base.yaml") if path.parent.name != "countdown"]


def qwen3(hidden, layers, heads, intermediate, tied):
    return Qwen3Config(
        hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=8, head_dim=128,
        intermediate_size=intermediate, vocab_size=151_936, tie_word_embeddings=tied, dtype="bfloat16",
    )  # fmt: skip


PUBLISHED = {  # config, parameters
    "Qwen/Qwen3-1.7B": (qwen3(2048, 28, 16, 6144, True), 1_720_574_976),
    "Qwen/Qwen3-4B": (qwen3(2560, 36, 32, 9728, True), 4_022_468_096),
    "Qwen/Qwen3-8B": (qwen3(4096, 36, 32, 12_288, False), 8_190_735_360),
    "meta-llama/Llama-3.2-3B-Instruct": (
        LlamaConfig(
            hidden_size=3072, num_hidden_layers=28, num_attention_heads=24, num_key_value_heads=8, head_dim=128,
            intermediate_size=8192, vocab_size=128_256, tie_word_embeddings=True, dtype="bfloat16",
        ),
        3_212_749_824,
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The folder of each published model's config.json."""
    root = tmp_path_factory.mktemp("models")
    for name, (config, _) in PUBLISHED.items():
        config.save_pretrained(root / name)
    return root


def test_there_are_recipes_for_each_model():
    assert {load_config(RunConfig, path).model.path for path in RECIPES} == set(PUBLISHED)
    assert all(path.read_text().splitlines()[0].endswith("Not a recipe by itself.") for path in BASES)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_resolves_and_fits_the_gpu_it_names(path, folders):
    config, text, name = load_config(RunConfig, path), path.read_text(), path.relative_to(ROOT)
    assert config.output == f"runs/{name.parent.name}/{path.stem}"
    assert text.startswith(
        "# Tested on: nothing yet. Settings resolved, and memory estimated from the published config; not trained."
    )
    assert re.search(rf"^# Command: .*train {name}$", text, re.MULTILINE)
    assert "# Expect: not measured." in text
    words, stated = re.search(rf"^# Memory: dasd train {name} --dry-run (.+): ([\d.]+) GiB$", text, re.MULTILINE).groups()
    options = dict(zip(*[iter(words.split())] * 2, strict=True))
    hardware = Hardware(
        gpu_memory=float(options["--gpu_memory"]), processes=int(options.get("--processes", 1)),
        sharding=options.get("--sharding", "none"), prompt_length=int(options.get("--prompt_length", 512)),
    )  # fmt: skip
    published, parameters = PUBLISHED[config.model.path]
    model = config.model.model_copy(update={"path": str(folders / config.model.path)})
    plan = make_plan(config.model_copy(update={"model": model}), hardware)
    assert plan.sizes.parameters - (plan.sizes.trainable if plan.sizes.lora else 0) == parameters
    assert plan.sizes.vocab == published.vocab_size
    assert plan.fits
    assert f"{plan.needs / GIB:.1f}" == stated
    assert len(rewards(None, config)) == 1


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recipe_does_not_lose_its_steps_to_rounding(path):
    """All weights are trained in float32, here or by FSDP2; bfloat16 only under an adapter, which is float32."""
    config = load_config(RunConfig, path)
    sharded = "fsdp2" in path.read_text()
    assert sharded or config.training.lora_rank or config.model.dtype == "float32"


def test_a_teacher_sees_what_its_data_has():
    for path in RECIPES:
        config = load_config(RunConfig, path)
        assert (config.data.columns.solution is None) == (config.teacher.context == "answer")


def test_training_asks_as_the_evaluation_does():
    for path in RECIPES:
        assert load_config(RunConfig, path).data.prompt == PROMPTS["math"], path
