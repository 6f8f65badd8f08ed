"""Is `accelerate launch -m dasd train` one run: one voice, one writer, and the same command again goes on after a failure?"""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import yaml
from accelerate.commands.config.config_args import load_config_from_file

from dasd.config import RunConfig, validate
from dasd.training.arguments import trainer_arguments
from dasd.training.checkpoints import is_complete, last_checkpoint

ROOT = Path(__file__).parents[2]
CONFIGS = ROOT / "recipes" / "accelerate"
LAUNCHES = sorted(CONFIGS.glob("*.yaml"))
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CONFIGS / "ddp_cpu.yaml"), "-m", "dasd",
]  # fmt: skip
TRAINING = {
    "steps": 6, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 4, "learning_rate": 1e-4, "save_steps": 2,
    "max_completion_length": 24, "trl": {"use_cpu": True},
}  # fmt: skip


@pytest.mark.parametrize("path", LAUNCHES, ids=lambda path: path.stem)
def test_launch_config_is_sound(path, tmp_path):
    load_config_from_file(str(path))
    header = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any("Tested:" in line for line in header)
    assert any(f"Command: accelerate launch --config_file recipes/accelerate/{path.name}" in line for line in header)
    wrong = tmp_path / path.name
    wrong.write_text(path.read_text() + "num_process: 2\n")
    with pytest.raises(ValueError, match="num_process"):
        load_config_from_file(str(wrong))


def start(output, *overrides):
    config = output.with_suffix(".yaml")
    config.write_text(yaml.safe_dump({"output": str(output), "data": {"limit": 20}, "training": TRAINING}))
    return subprocess.Popen(
        [*LAUNCH, "train", str(config), *overrides], env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finish(launcher):
    out, err = launcher.communicate(timeout=120)
    return launcher.returncode, out, err


def lines(output):
    path = output / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of an uninterrupted run, and what it said."""
    output = tmp_path_factory.mktemp("command") / "whole"
    code, out, err = finish(start(output))
    assert code == 0, err
    return output, out, err


@pytest.mark.slow
def test_a_run_speaks_once_and_writes_once(whole):
    output, out, err = whole
    assert re.sub(r"\d+ s,.*", "", out).split("\n") == [
        *(f"Training with dasd: {step}/6, " for step in range(1, 7)),
        f"Report: {output}/report.html", f"Trained model: {output}/checkpoints/final", "",
    ]  # fmt: skip
    assert "Warning" not in err
    assert [line["step"] for line in lines(output)] == [1, 2, 3, 4, 5, 6]
    record = json.loads((output / "run.json").read_text())
    assert (record["processes"], record["distributed"]) == (2, "MULTI_CPU")
    assert is_complete(output / "checkpoints" / "final")
    states = {path.name for path in (output / "checkpoints" / "checkpoint-6").glob("rng_state*")}
    assert states == {"rng_state_0.pth", "rng_state_1.pth"}
    assert not list(output.glob("*.tmp"))


@pytest.mark.slow
def test_after_a_failed_save_and_a_kill_the_same_command_ends_as_the_uninterrupted_run(whole, tmp_path):
    output = tmp_path / "broken"
    in_the_way = output / "checkpoints" / "checkpoint-4" / "rng_state_1.pth"
    in_the_way.mkdir(parents=True)  # the second process cannot write its file, the first can
    keep_all = "--training.trl.save_total_limit", "null"  # else what is in the way is taken for a torn checkpoint and deleted
    code, _, err = finish(start(output, *keep_all))
    assert code != 0
    assert "dasd (process 1): " in err
    assert "checkpoint-4 could not be written" in err
    assert last_checkpoint(output / "checkpoints").name == "checkpoint-2"
    shutil.rmtree(in_the_way, ignore_errors=True)

    launcher = start(output, *keep_all)
    while len(lines(output)) < 5 or lines(output)[-1]["step"] != 5:
        assert launcher.poll() is None, launcher.communicate()
        time.sleep(0.02)
    started = time.monotonic()
    psutil.Process(launcher.pid).children()[1].kill()
    assert finish(launcher)[0] != 0
    assert time.monotonic() - started < 30
    assert not (output / "checkpoints" / "final").exists()

    code, _, err = finish(start(output, *keep_all))
    assert code == 0, err
    expected, got = lines(whole[0]), lines(output)
    assert [line["step"] for line in got] == [1, 2, 3, 4, 5, 6]
    for first, second in zip(expected, got, strict=True):
        for name in ("loss", "reward", "gap/abs", "entropy", "credit/repelled", "grad_norm", "num_tokens"):
            assert second[name] == pytest.approx(first[name], abs=1e-6), name


@pytest.mark.slow
def test_bad_input_is_said_once_and_leaves_nothing(tmp_path):
    output = tmp_path / "run"
    code, out, err = finish(start(output, "--training.stepz", "4"))
    assert code != 0
    said = [line for line in (out + err).splitlines() if line.startswith("dasd")]
    assert len(said) == 2
    assert said[0].startswith("dasd: unknown key 'training.stepz', did you mean 'steps'?")
    assert said[1] == "dasd FAILED"  # the launcher's word
    assert re.search(r"rank +: 0 .*\n +exitcode +: 2 ", err)
    assert not output.exists()


def test_settings_in_the_docs_are_accepted():
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), flags=re.DOTALL)
    modes = [trainer_arguments(validate(RunConfig, yaml.safe_load(block))).vllm_mode for block in blocks]
    assert modes == ["colocate", "server"]


def test_files_that_the_docs_name_exist():
    named = re.findall(r"`((?:recipes|tests)/[\w/.]+)`", (ROOT / "docs" / "scaling.md").read_text())
    assert {ROOT / name for name in named} >= set(LAUNCHES)
    assert all((ROOT / name).exists() for name in named)
