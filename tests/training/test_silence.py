"""Is each message true, and one fact?"""

import logging
import math

import pytest

from dasd.training.silence import silences

SPEAKING = {
    "grad_norm": 0.5, "frac_reward_zero_std": 0.5, "teacher/skipped": 0.0, "gap/abs": 0.3, "credit/teacher": 0.2,
    "tokens/repelled": 0.4, "tokens/attracted": 0.6,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({}, set()),
        ({"frac_reward_zero_std": 1.0, "credit/teacher": 1.0}, {"verifier"}),
        ({"frac_reward_zero_std": 1.0, "credit/teacher": 0.0, "grad_norm": 0.0}, {"verifier", "nothing"}),
        ({"teacher/skipped": 1.0, "gap/abs": 0.0, "credit/teacher": 0.0}, {"no teacher"}),
        ({"gap/abs": 0.0, "credit/teacher": 0.0}, {"no gap"}),
        ({"tokens/repelled": 0.0, "tokens/attracted": 0.0}, {"no direction"}),
        ({"tokens/repelled": 0.0}, set()),  # a method that only attracts
    ],
)
def test_each_fact_is_told_where_it_holds(changes, facts):
    assert set(silences(SPEAKING | changes, has_teacher=True)) == facts


def test_a_teacher_that_alone_trains_the_model_is_not_idle():
    """Metrics as they were logged where all rewards were 0 and the gradient's norm was 0.53."""
    [said] = silences(SPEAKING | {"frac_reward_zero_std": 1.0, "credit/teacher": 1.0, "grad_norm": 0.53}, True).values()
    assert "idle" not in said
    assert "the verifier says nothing; the teacher alone trains the model in such a step." in said


def test_a_method_without_teacher_is_told_of_the_verifier_only():
    logs = {"grad_norm": 0.0, "frac_reward_zero_std": 1.0, "gap/abs": 0.0}
    said = silences(logs, has_teacher=False)
    assert set(said) == {"nothing", "verifier"}
    assert "teacher alone" not in said["verifier"]


@pytest.mark.parametrize("method", ["dasd", "opsd"])
def test_equal_rewards_with_a_teacher_that_trains(train, caplog, method):
    with caplog.at_level(logging.WARNING, logger="dasd"):
        trainer = train(method=None, reward=lambda completions, **_: [0.0] * len(completions), max_steps=2, kind=_with(method))
    assert trainer.weights_changed
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "the teacher alone trains the model" in text] == said  # and that once
    assert len(said) == 1


def _with(method):
    from dasd.training.trainer import SelfDistillationConfig

    return lambda **settings: SelfDistillationConfig(method=method, **settings)


def test_a_step_without_any_reward_is_no_step_of_equal_rewards():
    """TRL says of it that the rewards of no group are equal, and nothing was said."""
    logs = SPEAKING | {"reward": math.nan, "frac_reward_zero_std": 0.0, "credit/teacher": 1.0}
    assert "No completion has a reward" in silences(logs, True)["no reward"]
    assert "the teacher alone trains" in silences(logs, True)["no reward"]
    assert set(silences(logs, False)) == {"no reward"}
