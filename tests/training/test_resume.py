"""Does a killed run end as the uninterrupted one where the teacher or the method has a memory of its own?"""

import json

import pytest
import torch
from safetensors.torch import load_file

from dasd.config import RunConfig, validate
from dasd.training import callbacks, run

NAMES = (
    "loss",
    "reward",
    "gap/abs",
    "entropy",
    "grad_norm",
    "teacher/entropy_median",
    "direction/decile_9",
    "dynamic_sampling/resampled",
)
CASES = {
    "ema": {"teacher": {"weights": "ema", "ema_rate": 0.5}},
    "snapshot": {"teacher": {"weights": "snapshot", "sync_steps": 3}},
    "frozen, vocabulary": {"teacher": {"weights": "frozen"}, "method": {"name": "opsd"}},
    "antisd": {"method": {"name": "antisd", "warmup_steps": 1, "switch": 1.0}},
    "lookahead": {"method": {"name": "lookahead", "every": 1, "z": 0}},
    "dynamic sampling, schedule": {
        "method": {"name": "rlsd", "lam": {"start": 0.5, "end": 0.0, "steps": 4}}, "training": {"dynamic_sampling": 2},
    },
}  # fmt: skip


def config(output, case):
    training = {
        "steps": 4, "rollouts_per_step": 8, "group_size": 4, "micro_batch_size": 4, "learning_rate": 1e-3,
        "max_completion_length": 24, "save_steps": 2, "num_iterations": 1,
    }  # fmt: skip
    values = {"output": str(output), "data": {"limit": 20}, **CASES[case]}
    return validate(RunConfig, values | {"training": training | CASES[case].get("training", {})})


def lines(output):
    return [json.loads(line) for line in (output / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("case", CASES)
def test_a_resumed_run_is_the_uninterrupted_one(tmp_path, monkeypatch, case):
    """Killed in step 3, after the checkpoint of step 2 and before a snapshot's update."""

    class Killed(BaseException):
        pass

    original = callbacks.MetricsWriter.on_log

    def die(self, args, state, control, logs=None, **kwargs):
        original(self, args, state, control, logs, **kwargs)
        if state.global_step == 3:
            raise Killed

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run.train(config(whole, case))
    with monkeypatch.context() as patch:
        patch.setattr(callbacks.MetricsWriter, "on_log", die)
        with pytest.raises(Killed):
            run.train(config(killed, case))
    run.train(config(killed, case))
    first, second = lines(whole), lines(killed)
    assert [line["step"] for line in second] == [1, 2, 3, 4]
    for one, two in zip(first, second, strict=True):
        for name in set(NAMES) & set(one):
            assert two[name] == pytest.approx(one[name], abs=1e-6), name
    files = sorted(path.name for path in (whole / "checkpoints/checkpoint-4").iterdir())
    assert ("teacher.safetensors" in files) == ("teacher" in CASES[case])
    assert ("credit_state.json" in files) == (case == "antisd")
    assert ({"lookahead.safetensors", "evidence.json"} <= set(files)) == (case == "lookahead")
    if "teacher" in CASES[case]:
        a, b = (load_file(folder / "checkpoints/checkpoint-4/teacher.safetensors") for folder in (whole, killed))
        assert all(torch.allclose(a[name], b[name], atol=1e-7) for name in a)
    if case == "antisd":
        a, b = (json.loads((folder / "checkpoints/checkpoint-4/credit_state.json").read_text()) for folder in (whole, killed))
        assert len(a["teacher_entropy_history"]) == 4
        assert b["teacher_entropy_history"] == pytest.approx(a["teacher_entropy_history"], abs=1e-6)


def test_a_checkpoint_of_a_live_teacher_is_refused_by_one_with_a_copy(train, tmp_path):
    train(save_strategy="steps", save_steps=1, max_steps=1, output_dir=str(tmp_path / "run"))
    trainer = train(teacher_weights="frozen", max_steps=1)
    with pytest.raises(ValueError, match=r"has no teacher\.safetensors: its teacher weights were not frozen"):
        trainer.load_state(tmp_path / "run" / "checkpoint-1")


def test_a_tied_head_is_no_missing_weight(tmp_path, monkeypatch):
    """Going on said that there were missing keys, lm_head.weight."""
    said = []
    monkeypatch.setattr("transformers.trainer.logger.warning", said.append)
    small = config(tmp_path, "frozen, vocabulary")
    run.train(small.model_copy(update={"training": small.training.model_copy(update={"steps": 2})}))
    run.train(small)
    assert [text for text in said if "missing keys" in text] == []
