"""Is each message true, and one fact?"""

import logging
import math

import numpy as np
import pytest

from dasd.training.silence import fall, silences

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
        ({"completions/clipped_ratio": 0.99}, set()),
        ({"completions/clipped_ratio": 1.0}, {"cut off"}),
        ({"completions/clipped_ratio": 1.0, "frac_reward_zero_std": 1.0, "credit/teacher": 1.0}, {"cut off", "verifier"}),
    ],
)
def test_each_fact_is_told_where_it_holds(changes, facts):
    assert set(silences(SPEAKING | changes, has_teacher=True)) == facts


def test_problems_are_not_to_blame_where_every_completion_is_cut_off():
    said = silences(SPEAKING | {"completions/clipped_ratio": 1.0, "frac_reward_zero_std": 1.0}, has_teacher=True)
    assert "easier or harder" not in said["verifier"]
    assert "easier or harder" in silences(SPEAKING | {"frac_reward_zero_std": 1.0}, has_teacher=True)["verifier"]


# Thirty steps of a model of 0.5 B, 16 rollouts each: the printed form, which unlearnt to end, and GRPO, which was lost for a
# while and came back.
COLLAPSED = [0.25, 0.44, 0.69, 0.38, 0.19, 0.44, 0.12, 0.06, 0.06, 0.0, *[0.0] * 20]
CAME_BACK = [0.5, 0.44, 0.44, 0.5, 0.44, 0.44, 0.44, 0.5, 0.31, 0.31, 0.12, 0.06, 0.12, 0.25, 0.19, *[0.44] * 10, *[0.71] * 5]


def as_history(rewards, **metrics):
    return [
        {"reward": reward, **{name: values[step] for name, values in metrics.items()}} for step, reward in enumerate(rewards)
    ]


def test_a_run_that_ends_worse_than_it_began_is_told():
    cut_off = {"completions/clipped_ratio": [0.5] * 6 + [1.0] * 24}
    said = fall([*as_history(COLLAPSED, **cut_off), {"train_runtime": 1.0}])
    assert "reward fell from 0.398 in the first 6 steps to 0 in the last 6" in said
    assert "without an end went from 0.50 to 1.00" in said
    assert "without an end" not in fall(as_history(COLLAPSED))


@pytest.mark.parametrize(
    "rewards", [CAME_BACK, COLLAPSED[:8], [0.0] * 30, [math.nan] * 30, COLLAPSED[::-1], [-reward for reward in COLLAPSED], []]
)
def test_of_other_runs_nothing_is_said(rewards):
    assert fall(as_history(rewards)) is None


@pytest.mark.parametrize("steps", [9, 15, 30])
@pytest.mark.parametrize("rate", [0.02, 0.1, 0.5])
def test_chance_is_hardly_ever_called_a_fall(rate, steps):
    draws = np.random.default_rng(0).binomial(16, rate, (1000, steps)) / 16
    assert sum(fall(as_history(rewards.tolist())) is not None for rewards in draws) <= 20


def test_a_trainer_says_it_at_the_end(train, caplog):
    """Rewards that fade, whatever the model writes."""
    calls = iter(range(1000))

    def fading(completions, **_):
        step = next(calls)
        return [float(step < 8 and index % 2 == 0) for index in range(len(completions))]

    with caplog.at_level(logging.WARNING, logger="dasd"):
        train(method=None, reward=fading, max_steps=15, kind=_with("dasd"))
    assert len([record for record in caplog.records if "Training made this model worse" in record.getMessage()]) == 1


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
    said = [record.getMessage() for record in caplog.records if "max_completion_length" not in record.getMessage()]
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
