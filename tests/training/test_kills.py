"""Does a run that was killed with signal 9 while it wrote, or deleted, a checkpoint end as the uninterrupted one?"""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from dasd.config import RunConfig, dump_config, validate
from dasd.training import run

CASES = {
    "ema teacher and antisd, each batch twice, two micro-batches": {
        "method": {"name": "antisd", "warmup_steps": 1, "switch": 1.0},
        "teacher": {"weights": "ema", "ema_rate": 0.5},
        "training": {"num_iterations": 2},
    },
    "LoRA": {"teacher": {"weights": "snapshot", "sync_steps": 3}, "training": {"lora_rank": 4}},
}
NAMES = ("loss", "reward", "gap/abs", "entropy", "grad_norm", "teacher/entropy_median")
KILLS = ("state of checkpoint-4", "deletion of checkpoint-2", "final model")


def config(output, case):
    training = {
        "steps": 6, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 4, "learning_rate": 1e-3,
        "max_completion_length": 16, "save_steps": 2,
    }  # fmt: skip
    values = {"output": str(output), "data": {"limit": 20}, **CASES[case]}
    return validate(RunConfig, values | {"training": training | CASES[case]["training"]})


def train_until_killed(output, case, kill):
    """In a process of its own: signal 9 comes as a file is opened, or removed."""
    removed = 0

    def die(event, arguments):
        nonlocal removed
        path = str(arguments[0]) if arguments else ""
        opened = event == "open" and isinstance(arguments[1], str) and "w" in arguments[1]
        if kill == "state of checkpoint-4":
            now = opened and path.endswith("checkpoint-4/trainer_state.json")
        elif kill == "final model":
            now = opened and path.endswith("final/tokenizer_config.json")
        else:
            removed += event == "os.remove" and (output / "checkpoints/checkpoint-6").exists()
            now = event == "os.remove" and removed == 4
        if now:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(die)
    run.train(config(output, case))


@pytest.fixture(scope="module")
def processes():
    context = multiprocessing.get_context("forkserver")  # imports once, not once a kill
    context.set_forkserver_preload(["dasd.training.run", "transformers.models.qwen3.modeling_qwen3"])
    return context


@pytest.fixture(scope="module", params=CASES)
def whole(request, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "run"
    run.train(config(output, request.param))
    return request.param, output


def lines(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def assert_the_same(whole, killed):
    first, second = lines(whole), lines(killed)
    assert [line["step"] for line in second] == [line["step"] for line in first]
    for one, two in zip(first, second, strict=True):
        for name in set(NAMES) & set(one):
            assert two[name] == pytest.approx(one[name], abs=1e-6), (one["step"], name)
    [weights] = [path.relative_to(whole) for path in whole.glob("checkpoints/final/*.safetensors")]
    a, b = load_file(whole / weights), load_file(killed / weights)
    assert all(torch.allclose(a[name], b[name], atol=1e-6) for name in a)


@pytest.mark.parametrize("kill", KILLS)
def test_killed_while_writing(whole, processes, tmp_path, kill):
    case, reference = whole
    output = tmp_path / "run"
    child = processes.Process(target=train_until_killed, args=(output, case, kill))
    child.start()
    child.join(timeout=120)
    assert child.exitcode == -signal.SIGKILL
    checkpoints = output / "checkpoints"
    if kill == "state of checkpoint-4":
        torn = checkpoints / "checkpoint-4"
        for file in torn.iterdir():  # as if each had been cut off
            os.truncate(file, file.stat().st_size // 2)
        assert run.last_checkpoint(checkpoints) == checkpoints / "checkpoint-2"
    elif kill == "deletion of checkpoint-2":
        assert 0 < len(list((checkpoints / "checkpoint-2").iterdir())) < len(list((checkpoints / "checkpoint-4").iterdir()))
        assert run.last_checkpoint(checkpoints) == checkpoints / "checkpoint-6"
    else:
        assert list((checkpoints / "final").glob("*.safetensors"))
    run.train(config(output, case))
    assert_the_same(reference, output)


@pytest.mark.parametrize("whole", ["LoRA"], indirect=True)
def test_the_command_killed_at_some_moment_goes_on_when_given_again(tmp_path, whole):
    """Whenever it dies between the first checkpoint's folder and its end: nothing here waits for a quiet moment."""
    case, reference = whole
    output = tmp_path / "run"
    (tmp_path / "config.yaml").write_text(dump_config(config(output, case)))
    command = [sys.executable, "-m", "dasd.cli", "train", str(tmp_path / "config.yaml")]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (output / "checkpoints/checkpoint-2").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not Path(output / "checkpoints/final").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert_the_same(reference, output)
