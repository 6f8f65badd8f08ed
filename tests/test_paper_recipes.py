"""Do the recipes of the paper say what the paper is known to say, in the terms of TRL?"""

from pathlib import Path

import pytest

from dasd.config import EvalConfig, RunConfig, load_config
from dasd.credit import DirectionAdaptive, make_method
from dasd.evaluation.benchmarks import PROMPTS, benchmark_names
from dasd.training.arguments import trainer_arguments

FOLDER = Path(__file__).parent.parent / "recipes" / "paper"


@pytest.mark.parametrize("processes", [1, 8, 64])
def test_training_is_the_papers_protocol(processes):
    config = load_config(RunConfig, FOLDER / "dasd.yaml")
    arguments = trainer_arguments(config, world_size=1, on_gpu=False)
    assert arguments.generation_batch_size == 1024 == 128 * arguments.num_generations
    per_pass = config.training.micro_batch_size
    assert arguments.steps_per_generation * per_pass == 1024
    assert arguments.gradient_accumulation_steps * per_pass == 256 == 32 * arguments.num_generations
    assert 256 % (per_pass * processes) == 0  # the same optimisation step on so many
    assert arguments.steps_per_generation / arguments.gradient_accumulation_steps == 4  # steps a batch
    assert (arguments.learning_rate, arguments.lr_scheduler_type, arguments.max_steps) == (3e-6, "cosine", 200)
    assert (arguments.loss_type, arguments.beta, arguments.num_iterations) == ("grpo", 0.0, 1)
    assert (arguments.max_completion_length, arguments.temperature) == (8192, 1.0)
    assert config.data.prompt == PROMPTS["math"]


def test_the_method_is_the_printed_form():
    config = load_config(RunConfig, FOLDER / "dasd.yaml")
    assert make_method(config.method.name, config.method.settings) == DirectionAdaptive(rho=0.2, gap_scale="median_abs")
    assert load_config(RunConfig, None, ["--method.name", "dasd_paper"]).training.loss_type == "grpo"


def test_evaluation_is_the_papers():
    suites = load_config(EvalConfig, FOLDER / "eval.yaml")
    assert suites.benchmarks == ("math500", "minerva", "hmmt25", "olympiadbench", "aime24", "aime25")
    assert set(suites.benchmarks) <= set(benchmark_names())
    passes = load_config(EvalConfig, FOLDER / "pass_at_k.yaml")
    assert (suites.num_samples, passes.num_samples, passes.benchmarks) == (16, 128, ("aime24",))
    for config in (suites, passes):
        assert (config.temperature, config.top_p, config.max_completion_length) == (1.0, 0.9, 8192)
