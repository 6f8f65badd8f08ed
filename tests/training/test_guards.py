"""Does a run stop before a number that is not finite reaches its weights, and go on from what it had?"""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dasd.cli import run as command
from dasd.config import RunConfig, dump_config, validate
from dasd.training.trainer import SelfDistillationTrainer
from dasd.training.trl_adapter import TokenCreditTrainer

SETTINGS = {
    "steps": 4, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 4, "learning_rate": 1e-4,
    "max_completion_length": 16, "save_steps": 2,
}  # fmt: skip


def lines(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def poisoned_loss(value):
    """The loss, as it is in the first two steps and then with `value` in it."""
    original = TokenCreditTrainer._compute_loss

    def loss(self, model, inputs):
        return original(self, model, inputs) * (value if self.state.global_step == 2 else 1.0)

    return "_compute_loss", loss


def poisoned_gradient(value):
    original = TokenCreditTrainer.training_step

    def step(self, *args, **kwargs):
        loss = original(self, *args, **kwargs)
        if self.state.global_step == 2:
            next(parameter for parameter in self.model.parameters() if parameter.grad is not None).grad[0] = value
        return loss

    return "training_step", step


def poisoned_score(value):
    original = SelfDistillationTrainer.credit

    def credit(self, batch, student_logps, entropies):
        return original(self, batch, student_logps * (value if self.state.global_step == 2 else 1.0), entropies)

    return "credit", credit


@pytest.mark.parametrize(
    ("poison", "message"),
    [
        (poisoned_loss(math.nan), "stopped at the update of step 3: the norm of its gradient is nan"),
        (poisoned_loss(math.inf), "stopped at the update of step 3: the norm of its gradient is nan"),
        (poisoned_gradient(math.inf), "stopped at the update of step 3: the norm of its gradient is nan"),
        (poisoned_score(math.nan), "stopped before the update of step 3: student_logps[0, 0] is nan, expected a finite value"),
    ],
    ids=["loss nan", "loss inf", "gradient inf", "log-prob nan"],
)
def test_a_run_stops_in_time_and_goes_on(tmp_path, monkeypatch, capfd, poison, message):
    output = tmp_path / "run"
    values = {"output": str(output), "data": {"limit": 20}, "training": SETTINGS}
    (tmp_path / "config.yaml").write_text(dump_config(validate(RunConfig, values)))
    with monkeypatch.context() as patch:
        patch.setattr(SelfDistillationTrainer, *poison)
        assert command(["train", str(tmp_path / "config.yaml")]) == 1
    error = capfd.readouterr().err
    assert f"dasd: {message}" in error
    assert f"the last checkpoint, {output}/checkpoints/checkpoint-2, is good" in error
    assert "training.learning_rate" in error
    assert "Traceback" not in error
    [checkpoint] = output.glob("checkpoints/*/")
    assert checkpoint.name == "checkpoint-2"
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint / "model.safetensors").values())
    assert [line["step"] for line in lines(output)] == [1, 2]
    assert command(["train", str(tmp_path / "config.yaml")]) == 0
    assert [line["step"] for line in lines(output)] == [1, 2, 3, 4]
    assert all(math.isfinite(line["loss"]) for line in lines(output))


@pytest.mark.slow
def test_all_processes_stop_where_one_has_a_fault(tmp_path):
    output = tmp_path / "run"
    values = {
        "output": str(output),
        "data": {"limit": 20},
        "training": SETTINGS | {"trl": {"ddp_backend": "gloo", "use_cpu": True}},
    }
    (tmp_path / "config.yaml").write_text(dump_config(validate(RunConfig, values)))
    script = str(Path(__file__).with_name("poisoned_process.py"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, script, str(tmp_path / "config.yaml")], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 1
    assert done.stderr.count("stopped at the update of step 3: the norm of its gradient is nan") == 1, done.stderr[-3000:]
    assert [path.name for path in output.glob("checkpoints/*/")] == ["checkpoint-2"]
    assert [line["step"] for line in lines(output)] == [1, 2]


def test_a_loss_that_is_not_finite_ends_a_run_whose_gradient_is(train, monkeypatch, tmp_path):
    """An infinity without gradient: it is logged as it is, not as a running mean, and nothing is saved after it."""
    original = TokenCreditTrainer._compute_loss

    def loss(self, model, inputs):
        return original(self, model, inputs) + (math.inf if self.state.global_step == 1 else 0.0)

    monkeypatch.setattr(SelfDistillationTrainer, "_compute_loss", loss)
    with pytest.raises(
        RuntimeError, match=r"stopped after step 2: its loss is inf; the last checkpoint, .*checkpoint-1, is good"
    ):
        train(save_strategy="steps", save_steps=1, max_steps=3)
    assert [path.name for path in tmp_path.rglob("checkpoint-*")] == ["checkpoint-1"]


def test_weights_are_as_before_the_update_that_was_not_made(tiny_model, train, monkeypatch):
    before = {name: tensor.clone() for name, tensor in tiny_model.state_dict().items()}
    original = TokenCreditTrainer._compute_loss
    monkeypatch.setattr(SelfDistillationTrainer, "_compute_loss", lambda self, *batch: original(self, *batch) * math.nan)
    with pytest.raises(RuntimeError, match="no checkpoint had been written yet"):
        train()
    assert all(torch.equal(tensor, before[name]) for name, tensor in tiny_model.state_dict().items())


def test_a_reward_that_could_not_be_given_is_no_fault(train):
    """NaN is how TRL holds a grader's None: the rollout is left out of its group."""
    trainer = train(reward=lambda completion_ids, **_: [math.nan, *(float(len(ids)) for ids in completion_ids[1:])])
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))


def test_weights_that_the_last_update_broke_are_never_saved(tmp_path, capfd):
    """Every gradient is finite, and what the update makes of the weights is not."""
    output = tmp_path / "run"
    training = SETTINGS | {"steps": 1, "learning_rate": 1e38, "trl": {"max_grad_norm": 0.0, "optim": "sgd"}}
    values = {"output": str(output), "data": {"limit": 20}, "training": training, "method": {"name": "dasd", "beta": 1e4}}
    (tmp_path / "config.yaml").write_text(dump_config(validate(RunConfig, values)))
    assert command(["train", str(tmp_path / "config.yaml")]) == 1
    error = capfd.readouterr().err
    assert "stopped after step 1: its update made weights that are not finite" in error
    assert "no checkpoint had been written yet" in error
    assert "give the same command again" not in error  # it would meet the same numbers
    assert not list(output.glob("checkpoints/*/"))
    assert not (output / "result.json").exists()


def test_the_python_api_saves_no_broken_weights(train, tiny_model, tmp_path):
    trainer = train()
    with torch.no_grad():
        next(tiny_model.parameters())[0, 0] = math.nan
    with pytest.raises(RuntimeError, match="weights that are not finite"):
        trainer.save_model(str(tmp_path / "model"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("words", "key"),
    [
        (["--training.learning_rate", ".inf"], "training.learning_rate"),
        (["--training.temperature", ".inf"], "training.temperature"),
        (["--training.lora_alpha", ".nan"], "training.lora_alpha"),
        (["--training.trl.weight_decay", ".nan"], "training.trl.weight_decay"),
        (["--training.trl.lr_scheduler_kwargs", "{min_lr: .inf}"], "training.trl.lr_scheduler_kwargs.min_lr"),
        (["--training.trl.reward_weights", "[1.0, -.inf]"], "training.trl.reward_weights[1]"),
        (["--method.beta", ".inf"], "method.beta"),
        (["--teacher.chat_template_kwargs", "{a: [.nan]}"], "teacher.chat_template_kwargs.a[0]"),
        (["--training.learning_rate", "inf"], "training.learning_rate"),  # text in YAML, and a number to pydantic
    ],
)
def test_a_setting_that_is_not_finite_is_refused(tmp_path, capfd, words, key):
    (tmp_path / "config.yaml").write_text(f"output: {tmp_path / 'run'}\n")
    assert command(["train", str(tmp_path / "config.yaml"), *words]) == 2
    error = capfd.readouterr().err
    assert error.startswith(f"dasd: {key}: ")
    assert "finite" in error
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["learning_rate", "weight_decay", "teacher_ema_rate", "epsilon"])
def test_the_python_api_refuses_settings_that_are_not_finite(arguments, field):
    with pytest.raises(ValueError, match=f"{field} must be a finite number, got nan"):
        arguments(**{field: math.nan})
