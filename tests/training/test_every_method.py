"""Does every method train through `dasd train`, with the teacher, context and loss of its preset, on the bundled model?"""

import json
import math

import pytest
import torch

from dasd.assets import BASE_MODEL
from dasd.config import RunConfig, load_config
from dasd.credit import METHODS
from dasd.models import load_model
from dasd.presets import PRESETS
from dasd.training import rewards, run


@pytest.fixture(scope="module")
def base():
    """Weights of the bundled model."""
    from safetensors.torch import load_file

    return load_file(BASE_MODEL / "model.safetensors")


def accepted(index):
    return index % 3 == 0


def lonely(completions, fitting):
    """Share of rollouts, in groups of four, of which no other one fits and says something else."""
    found = []
    for index, own in enumerate(completions):
        group = range(index - index % 4, index - index % 4 + 4)
        found.append(not any(fitting(other) and completions[other] != own for other in group))
    return sum(found) / len(found)


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_on_the_bundled_model(name, base, tmp_path, monkeypatch):
    sampled = []

    def one_in_three(completions, **_):
        """The untrained model solves next to nothing in 24 tokens."""
        sampled.append(completions)
        return [float(accepted(index)) for index in range(len(completions))]

    monkeypatch.setattr(rewards, "make_reward", lambda task, ends=(): one_in_three)
    overrides = {
        "output": tmp_path / "run", "data.limit": 16, "method.name": name, "training.steps": 2,
        "training.rollouts_per_step": 16, "training.group_size": 4, "training.micro_batch_size": 8,
        "training.learning_rate": 1e-3, "training.max_completion_length": 24,
    }  # fmt: skip
    config = load_config(RunConfig, None, [f"--{key}={value}" for key, value in overrides.items()])
    trained, _ = load_model(config.model.model_copy(update={"path": str(run.train(config))}))
    moved = [(value - base[key]).abs().max() for key, value in trained.state_dict().items() if key in base]
    assert max(moved) > 1e-5
    assert all(torch.isfinite(value).all() for value in trained.state_dict().values())
    metrics = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in metrics] == [1, 2]
    expected = {"loss", "grad_norm", "reward", "entropy", "gap/abs", "credit/teacher", "completions/mean_length"}
    needs = METHODS[name].needs
    expected |= {"teacher/skipped"} if "teacher_logps" in needs else set()
    expected |= {"divergence"} if "teacher_distribution" in needs else set()
    expected |= {"teacher/entropy_median"} if "teacher_entropy_history" in needs else set()
    expected |= {"dynamic_sampling/idle"} if PRESETS.get(name, {}).get("training", {}).get("dynamic_sampling") else set()
    untaught = {"peer": accepted, "failed_rollouts": lambda index: not accepted(index)}
    fitting = untaught.get(config.teacher.context) or untaught.get(getattr(METHODS[name], "hints_from", ""))
    for line, completions in zip(metrics, sampled, strict=True):
        assert expected <= set(line)
        assert all(math.isfinite(value) for value in line.values() if isinstance(value, float))
        if "teacher_logps" in needs:
            assert line["gap/abs"] > 0
            assert line["teacher/skipped"] == (lonely(completions, fitting) if fitting else 0)


def test_an_adapter_is_trained_saved_and_loaded(base, tmp_path, monkeypatch):
    """With its adapter off the model is the base: the teacher costs no memory."""
    sampled = []

    def one_in_three(completions, **_):
        """The untrained model solves next to nothing in 24 tokens."""
        sampled.append(completions)
        return [float(accepted(index)) for index in range(len(completions))]

    monkeypatch.setattr(rewards, "make_reward", lambda task, ends=(): one_in_three)
    overrides = {
        "output": tmp_path / "run", "data.limit": 16, "training.steps": 2, "training.rollouts_per_step": 16,
        "training.group_size": 4, "training.micro_batch_size": 8, "training.learning_rate": 1e-2,
        "training.max_completion_length": 24, "training.lora_rank": 4, "teacher.weights": "adapter_off",
    }  # fmt: skip
    config = load_config(RunConfig, None, [f"--{key}={value}" for key, value in overrides.items()])
    final = run.train(config)
    assert (final / "adapter_model.safetensors").stat().st_size < 500_000
    trained, _ = load_model(config.model.model_copy(update={"path": str(final)}))
    weights = trained.state_dict()
    assert all(torch.equal(weights[key.replace(".weight", ".base_layer.weight")], value) for key, value in base.items()
               if key.replace(".weight", ".base_layer.weight") in weights)  # fmt: skip
    learnt = [value.abs().max() for key, value in weights.items() if "lora_B" in key]
    assert min(learnt) > 0
    assert run.train(config) == final  # finished: left alone
