"""Are a user's rewards called as TRL calls them, and is a failure nobody's zero?"""

import math
import re
from pathlib import Path

import pytest

from dasd.config import BadInput, RunConfig, RunFailed, validate
from dasd.tasks.base import Grade, GradeStatus
from dasd.tasks.math import MathTask
from dasd.training.arguments import trainer_arguments
from dasd.training.own_rewards import OwnReward, tried
from dasd.training.rewards import rewards, together

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_task.py"
FILE = """
import time, os

def length(completions, prompts, answer, completion_ids, trainer_state, log_metric, **columns):
    log_metric("mine/step", trainer_state.global_step or 0)
    assert len(prompts) == len(answer) == len(completion_ids) == len(completions)
    return [float(len(c[0]["content"])) for c in completions]

async def later(completions, **columns):
    return [None if "skip" in c[0]["content"] else 2.0 for c in completions]

def fragile(completions, **columns):
    for c in completions:
        if "raise" in c[0]["content"]:
            raise ValueError("cannot read this one")
        if "die" in c[0]["content"]:
            os._exit(1)
        if "hang" in c[0]["content"]:
            time.sleep(60)
    return [float("inf") if "inf" in c[0]["content"] else 1.0 for c in completions]

fragile.seconds = 1.0

def short(completions, **columns):
    return [1.0]
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("rewards") / "mine.py"
    path.write_text(FILE)
    return path


def batch(*texts):
    return {
        "completions": [[{"role": "assistant", "content": text}] for text in texts],
        "prompts": [[{"role": "user", "content": "?"}]] * len(texts),
        "completion_ids": [[1, 2]] * len(texts),
        **{key: ["4"] * len(texts) for key in ("id", "problem", "answer")},
    }


def test_trls_signature_plain_and_async(file):
    logged = {}
    assert OwnReward(f"{file}:length")(**batch("a", "abc"), log_metric=logged.__setitem__) == [1.0, 3.0]
    assert logged == {"rewards/length/failed": 0.0, "mine/step": 0}
    assert OwnReward(f"{file}:later")(**batch("a", "skip")) == [2.0, None]  # not applicable is no failure


def test_a_failure_costs_only_the_completion_that_causes_it(file):
    reward, logged = OwnReward(f"{file}:fragile"), {}
    assert reward(**batch("a")) == [1.0]
    values = reward(**batch("a", "raise", "b", "die", "inf", "hang"), log_metric=logged.__setitem__)
    assert [value if value == 1.0 else math.isnan(value) for value in values] == [1.0, True, 1.0, True, True, True]
    assert logged["rewards/fragile/failed"] == pytest.approx(4 / 6)


def test_a_wrong_number_of_rewards_ends_the_run(file):
    with pytest.raises(RunFailed, match=r"short .* returned 1 rewards for 2 completions"):
        OwnReward(f"{file}:short")(**batch("a", "b"))


def test_what_cannot_be_judged_has_no_reward_at_all():
    def verifier(completions, **_):
        return [None, 0.0, 1.0, 1.0]

    def penalty(completions, **_):
        return [-0.5, -0.5, -0.5, None]

    def own(completions, **_):
        return [1.0, 1.0, math.nan, 1.0]

    views = together([verifier, penalty, own])
    assert [view.__name__ for view in views] == ["verifier", "penalty", "own"]
    columns = [view(completions=[0, 1, 2, 3]) for view in views]
    assert columns == [[None, 0.0, None, 1.0], [None, -0.5, None, None], [None, 1.0, None, 1.0]]
    assert together([verifier]) == [verifier]


def config(**training):
    return validate(
        RunConfig, {"data": {"task": "math", "source": "x.jsonl"}, "training": {"trl": {"use_cpu": True}, **training}}
    )


def test_weights_stand_behind_the_verifiers(file):
    names = [f"{file}:length", f"{file}:later"]
    assert trainer_arguments(config(rewards=names, reward_weights=[0.5, 2.0])).reward_weights == [1.0, 0.5, 2.0]
    assert trainer_arguments(config(rewards=names, overlong_buffer=0.2)).reward_weights == [1.0, 1.0, 1.0, 1.0]
    assert trainer_arguments(config()).reward_weights is None
    functions = rewards(MathTask(), config(rewards=names))
    assert [function.__name__ for function in functions] == ["correct", "length", "later"]
    assert [function(**batch("\\boxed{4}", "skip")) for function in functions] == [[1.0, 0.0], [9.0, 4.0], [2.0, None]]


def test_rewards_may_stand_in_one_word():
    assert config(rewards="a.py:f, b.py:g,").training.rewards == ("a.py:f", "b.py:g")


def test_the_templates_reward():
    assert OwnReward(f"{EXAMPLE}:brevity")(**batch("a", "b")) == [1 - 2 / 64] * 2


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"rewards": ["brevity"]}, "names no function of a file"),
        ({"rewards": [f"{EXAMPLE}:brevity"], "reward_weights": [1, 2]}, "2 numbers for 1 rewards"),
        ({"reward_weights": [1.0]}, "1 numbers for 0 rewards"),
        ({"overlong_buffer": 0.003, "max_completion_length": 128}, "is not one token: give 0.004 or more, or 0 for no penalty"),
        ({"overlong_buffer": 0.9, "max_completion_length": 1, "rewards": ["x.py:f"]}, None),
    ],
)
def test_settings_that_cannot_be_are_refused(training, message):
    if message is None:
        assert config(**training).training.overlong_tokens == 1
        return
    with pytest.raises(BadInput, match=message):
        config(**training)


@pytest.mark.parametrize("length", [1, 2, 7, 100, 128, 999, 1024, 32768])
def test_the_smallest_overlong_buffer_that_is_named_works(length):
    with pytest.raises(BadInput, match="or 0 for no penalty") as caught:
        config(overlong_buffer=1e-9, max_completion_length=length)
    smallest = float(re.search(r"give (\S+) or more", str(caught.value))[1])
    taken = config(overlong_buffer=smallest, max_completion_length=length)
    assert taken.training.overlong_tokens == 1
    assert [function.__name__ for function in rewards(MathTask(), taken)] == ["correct", "soft_overlong_punishment_reward"]
    with pytest.raises(BadInput, match="or 0 for no penalty"):
        config(overlong_buffer=smallest * 0.8, max_completion_length=length)


def test_weights_of_rewards_are_said_once(file):
    names, both = [f"{file}:length"], {"use_cpu": True, "reward_weights": [1.0, 3.0]}
    with pytest.raises(BadInput, match=r"training\.reward_weights and training\.trl\.reward_weights are both given"):
        trainer_arguments(config(rewards=names, reward_weights=[2.0], trl=both))
    assert trainer_arguments(config(rewards=names, trl=both)).reward_weights == [1.0, 3.0]


def test_a_function_that_is_not_there_is_refused():
    with pytest.raises(BadInput, match="has no function 'brevety'"):
        rewards(MathTask(), config(rewards=[f"{EXAMPLE}:brevety"]))


def test_partial_credit_is_logged_beside_the_reward():
    class Half(MathTask):
        def grade_all(self, pairs):
            return [Grade(GradeStatus.INCORRECT, "x", 0.5) for _ in pairs]

    logged = {}
    [reward] = rewards(Half(), config())
    assert reward(**batch("a", "b"), log_metric=logged.__setitem__) == [0.0, 0.0]
    assert logged["grades/partial_credit"] == 0.5


def test_a_reward_is_tried_before_a_run(file):
    row = {"prompt": [{"role": "user", "content": "?"}], "id": "x", "problem": "?", "answer": "4"}
    assert tried(OwnReward(f"{file}:length"), ["abc", "abcde"], ["a", "a"], [row, row]) == (4.0, 1.0)
    with pytest.raises(BadInput, match="fragile failed on 1 of 2 completions"):
        tried(OwnReward(f"{file}:fragile"), ["a", "raise"], ["a", "a"], [row, row])


def test_what_is_no_list_of_numbers_is_refused_and_an_end_is_no_silence(tmp_path, caplog):
    path = tmp_path / "odd.py"
    path.write_text(
        "import sys\n"
        "def table(completions, **columns):\n    return {c[0]['content']: 1.0 for c in completions}\n"
        "def ends(completions, **columns):\n    sys.exit('no')\n"
        "def infinite(completions, **columns):\n    return [float('inf'), 1.0]\n"
    )
    for name, said in (
        (
            "table",
            "reward table failed on 2 of 2 completions: TypeError: it must return one number for each completion, got dict",
        ),
        ("ends", "reward ends failed on 2 of 2 completions: SystemExit: no"),
        ("infinite", "reward infinite gave 1 of 2 completions a number that is not finite"),
    ):
        caplog.clear()
        with caplog.at_level("WARNING", "dasd"):
            values = OwnReward(f"{path}:{name}")(**batch("1", "2"))
        assert math.isnan(values[0])
        assert caplog.messages[-1].startswith(said)
