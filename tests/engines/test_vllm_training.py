"""Do vLLM's log-probs equal the trainer's, before and after an update? Two steps of `dasd train` with both in one process.

The engine itself, on a CPU: `make test-vllm`; `colocated.py` says what stands in its way there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from dasd.assets import BASE_MODEL

pytest.importorskip("vllm")
TRAINING = {
    "steps": 2, "rollouts_per_step": 16, "group_size": 4, "micro_batch_size": 8, "learning_rate": 1e-3,
    "max_completion_length": 64, "trl": {"use_vllm": True, "vllm_mode": "colocate", "vllm_max_model_length": 512},
}  # fmt: skip


def train(output):
    config = output.with_suffix(".yaml")
    values = {"output": str(output), "data": {"limit": 20}, "model": {"dtype": "float32"}, "training": TRAINING}
    config.write_text(yaml.safe_dump(values))
    environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_NUM_OF_RESERVED_CPU": "0"}
    command = [sys.executable, str(Path(__file__).with_name("colocated.py")), str(config)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


def test_log_probs_are_the_trainers_before_and_after_an_update(tmp_path):
    steps = train(tmp_path / "run")
    assert [step["step"] for step in steps] == [1, 2]
    for step in steps:
        print({name: value for name, value in step.items() if "logp_difference" in name})  # shown by pytest -s
        assert 0 < step["sampling/sampling_logp_difference/mean"] < 1e-5
        assert step["sampling/sampling_logp_difference/max"] < 1e-3
        assert step["sampling/importance_sampling_ratio/mean"] == pytest.approx(1, abs=1e-4)
        assert step["grad_norm"] > 0
    before, after = (
        load_file(folder / "model.safetensors") for folder in (BASE_MODEL, tmp_path / "run" / "checkpoints" / "final")
    )
    assert max(float((before[name] - after[name]).abs().max()) for name in before) > 1e-3  # two updates that would show
