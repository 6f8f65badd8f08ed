"""Are two processes one run: one teacher, and groups that may lie on both?"""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from accelerate.state import AcceleratorState

from dasd.credit import METHODS
from dasd.training.contradictions import refuse_contradictions

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A function from a run's name to what both processes left of it."""
    folder = tmp_path_factory.mktemp("two")
    script = Path(__file__).with_name("two_processes.py")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", str(script), str(folder)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]

    def read(name):
        if name == "refused":
            return [(folder / f"refused-{rank}.txt").read_text() for rank in range(2)]
        tensors = [torch.load(folder / f"{name}-{rank}.pt") for rank in range(2)]
        records = [json.loads((folder / f"{name}-{rank}.json").read_text()) for rank in range(2)]
        return tensors, records

    return read


@pytest.mark.parametrize("name", ["frozen", "ema"])
def test_teacher_and_student_are_bitwise_the_same_on_both(trained, name):
    (first, second), _ = trained(name)
    for part in ("start", "teacher", "student"):
        assert first[part].keys() == second[part].keys() != set()
        assert all(torch.equal(first[part][key], second[part][key]) for key in first[part]), part


def test_frozen_stays_while_the_student_moves(trained):
    (first, _), _ = trained("frozen")
    assert all(torch.equal(first["start"][key], first["teacher"][key]) for key in first["start"])
    assert any(not torch.equal(first["start"][key], first["student"][key]) for key in first["start"])


def test_ema_lies_between_start_and_student(trained):
    (first, _), _ = trained("ema")
    assert all("lora_" in key for key in first["teacher"])
    moved = 0
    for key, teacher in first["teacher"].items():
        way, done = first["student"][key] - first["start"][key], teacher - first["start"][key]
        moved += int((way * done > 0).sum())
        assert done.abs().max() < way.abs().max() * 1.001
    assert moved > 100


def test_peers_are_found_on_the_other_process(trained):
    """Eight rollouts of one problem, four on each process; the first process's are accepted."""
    _, (first, second) = trained("frozen")
    for step in range(2):
        one, two = first["peers"][step], second["peers"][step]
        assert set(one["ids"]) == set(two["ids"])
        assert len(set(one["ids"])) == 1
        assert not set(one["texts"]) & set(two["texts"]), "two processes sampled the same rollouts"
        told = [text.split("Reference solution: ")[1] for text in one["told"] + two["told"]]
        accepted = one["texts"]
        wanted = [next(t for t in accepted[i + 1 :] + accepted[:i] if t != accepted[i]) for i in range(4)]
        assert told == [*wanted, *[accepted[0]] * 4]
    assert first["metrics"]["teacher/skipped"] == 0


def test_metrics_are_of_both_processes(trained):
    for name in ("frozen", "ema"):
        _, (first, second) = trained(name)
        assert first["metrics"]["gap/abs"] == second["metrics"]["gap/abs"] > 0


def test_dynamic_sampling_refuses_a_group_that_lies_on_both(trained):
    for message in trained("refused"):
        assert "needs whole groups on every process" in message
        assert "(4 x 1) must be a multiple of num_generations (8)" in message


@pytest.mark.parametrize(
    ("plugin", "settings", "message"),
    [
        ("deepspeed_plugin", {"teacher_weights": "ema"}, "'ema' keep a copy, and DeepSpeed ZeRO-3 shards the model"),
        ("deepspeed_plugin", {"method": METHODS["sdft"]}, "compares whole distributions, which needs the whole output layer"),
        ("fsdp_plugin", {}, "FSDP1 flattens the model's parameters: set fsdp_version: 2"),
    ],
)
def test_what_a_sharded_model_cannot_do_is_refused(train, monkeypatch, plugin, settings, message):
    trainer = train(max_steps=1, **settings)
    refuse_contradictions(trainer)
    monkeypatch.setattr(AcceleratorState, plugin, SimpleNamespace(zero_stage=3, fsdp_version=1), raising=False)
    trainer.is_fsdp_enabled = plugin == "fsdp_plugin"
    with pytest.raises(ValueError, match=message):
        refuse_contradictions(trainer)
