"""Do several processes learn what one learns from the same rollouts, and log the same? With the model whole and in shards."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from training.same_update import CASES, SHARDED

pytestmark = pytest.mark.slow
SCRIPT = Path(__file__).with_name("same_update.py")
MICRO_BATCHES = {name for name, case in CASES.items() if "passes" in case}  # TRL logs entropy as the mean of their means


def launch(folder, *flags, processes=2):
    several = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes)] if processes > 1 else []
    path = os.pathsep.join(filter(None, [str(SCRIPT.parents[1]), os.environ.get("PYTHONPATH")]))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1", "PYTHONPATH": path}
    command = [sys.executable, *several, str(SCRIPT), str(folder), *flags]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("one"), processes=1)


@pytest.fixture(scope="module")
def ddp(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("ddp"))


@pytest.fixture(scope="module")
def fsdp(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("fsdp"), "fsdp")


def compare(one, two, case):
    """Rollouts of the second process are longer than those of the first, so every mean must be one over all tokens."""
    first, second = (json.loads((folder / f"{case}.json").read_text()) for folder in (one, two))
    assert len(first) == len(second) == 2
    for expected, got in zip(first, second, strict=True):
        assert set(expected) == set(got)
        names = set(expected) - {"step_time"} - ({"entropy"} if case in MICRO_BATCHES else set())
        assert expected["grad_norm"] > 0
        assert {n: got[n] for n in names} == pytest.approx({n: expected[n] for n in names}, abs=1e-5, rel=1e-5)
        assert got["loss"] == pytest.approx(expected["loss"], abs=1e-6)
    first, second = (torch.load(folder / f"{case}.pt") for folder in (one, two))
    for part in ("student", "teacher"):
        assert first[part].keys() == second[part].keys()
        difference = max((float((first[part][key] - second[part][key]).abs().max()) for key in first[part]), default=0.0)
        assert difference < 1e-6, part


@pytest.mark.parametrize("case", CASES)
def test_two_processes_are_one(one, ddp, case):
    compare(one, ddp, case)


@pytest.mark.parametrize("case", SHARDED)
def test_two_processes_with_a_sharded_model_are_one(one, fsdp, case):
    compare(one, fsdp, case)


def resumed(folder):
    """(what the uninterrupted run trained, what the killed one did), after a look at what they logged."""
    whole, killed = (
        [json.loads(line) for line in (folder / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("whole", "killed")
    )
    assert [line["step"] for line in killed] == [1, 2]
    for first, second in zip(whole, killed, strict=True):
        for name in ("loss", "reward", "gap/abs", "entropy", "grad_norm", "num_tokens"):
            assert second[name] == pytest.approx(first[name], abs=1e-5), name
    students = [load_file(folder / name / "checkpoints" / "final" / "model.safetensors") for name in ("whole", "killed")]
    assert all(torch.allclose(students[0][key], students[1][key], atol=1e-6) for key in students[0])
    return students


def resumed_teachers(folder, student):
    """The same of the teachers, which moved."""
    paths = [folder / name / "checkpoints" / "checkpoint-2" / "teacher.safetensors" for name in ("whole", "killed")]
    teachers = list(map(load_file, paths))
    assert all(torch.allclose(teachers[0][key], teachers[1][key], atol=1e-6) for key in teachers[0])
    assert teachers[0].keys() == student.keys() - {"lm_head.weight"}  # whole, under the model's own names
    assert any(not torch.equal(teachers[0][name], student[name]) for name in teachers[0])


def test_a_sharded_run_resumes_as_if_nothing_had_happened(fsdp):
    resumed_teachers(fsdp, resumed(fsdp)[0])
    assert json.loads((fsdp / "whole" / "run.json").read_text())["distributed"] == "FSDP"
