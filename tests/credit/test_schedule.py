"""Does a setting take the value its schedule says, at every step, however deep it sits?"""

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch

from dasd.credit import METHODS, Controlled, DirectionAdaptive, Schedule, TokenSignals, assign_credit, at_step, make_method
from dasd.credit.advantage import RewardRescaled
from dasd.credit.schedule import check_number, number


@pytest.mark.parametrize(
    ("shape", "values"),
    # from 1 to 3 in 4 steps, at steps 0, 1, 2, 3, 4 and beyond
    [
        ("linear", [1.0, 1.5, 2.0, 2.5, 3.0, 3.0]),
        # 1 + 2 * (1 - cos(pi * step / 4)) / 2 = 2 - cos(...): cos 45 degrees = 0.707107
        ("cosine", [1.0, 2 - 0.707107, 2.0, 2 + 0.707107, 3.0, 3.0]),
    ],
)
def test_values_by_hand(shape, values):
    schedule = Schedule(1.0, 3.0, steps=4, shape=shape)
    assert [schedule(step) for step in (0, 1, 2, 3, 4, 1000)] == pytest.approx(values, rel=1e-6)


@pytest.mark.parametrize("shape", ["linear", "cosine"])
def test_ends_are_exact_and_the_way_is_monotone(shape):
    schedule = Schedule(0.3, 0.1, steps=7, shape=shape)
    values = [schedule(step) for step in range(9)]
    assert (values[0], values[8]) == (0.3, pytest.approx(0.1, abs=1e-15))
    assert all(a > b for a, b in pairwise(values[:8]))
    assert schedule(-3) == 0.3


def test_a_step_resolves_each_setting_and_leaves_the_rest():
    method = RewardRescaled(lam=Schedule(0.5, 0.0, steps=50))
    assert at_step(method, 25) == RewardRescaled(lam=0.25)
    assert method.lam == Schedule(0.5, 0.0, steps=50)
    plain = DirectionAdaptive(beta=0.2)
    assert at_step(plain, 25) is plain
    assert at_step(DirectionAdaptive(beta=Schedule(0.1, 0.3, 2)), 1) == DirectionAdaptive(beta=0.2)


def test_a_schedule_under_a_control_is_resolved_too():
    method = Controlled(RewardRescaled(lam=Schedule(0.5, 0.0, steps=50)), "permuted_gap", seed=3)
    assert at_step(method, 25) == Controlled(RewardRescaled(lam=0.25), "permuted_gap", seed=3)


def test_any_callable_passes_through():
    @dataclass
    class Mine:
        weight: object

    assert at_step(len, 3) is len
    assert at_step(Mine(Schedule(0.0, 1.0, 2)), 1) == Mine(0.5)
    assert at_step(Mine, 1) is Mine


@pytest.mark.parametrize("name", METHODS)
def test_every_scheduled_setting_of_every_method_acts_at_its_step(name):
    scheduled = [setting for setting in ("beta", "lam", "scale", "kappa", "strength") if hasattr(METHODS[name], setting)]
    for setting in scheduled:
        method = make_method(name, {setting: {"start": 0.0, "end": 0.5, "steps": 10, "shape": "linear"}})
        assert at_step(method, 4) == make_method(name, {setting: 0.2})
    without = ("grpo", "dr_grpo", "dapo", "forking", "hepo", "opsa", "egrsd", "distilled_rl", "opsd_sampled")
    assert scheduled or name in without


def test_a_schedule_without_a_step_says_what_to_call():
    scores = torch.zeros(1, 2)
    signals = TokenSignals(scores, scores, scores, torch.ones(1, 2), torch.ones(1))
    with pytest.raises(ValueError, match=r"has no value without a step: call assign_credit"):
        METHODS["rlsd"](signals)
    assert assign_credit(signals, METHODS["rlsd"], 3).advantages.tolist() == [[1.0, 1.0]]
    assert number(0.25) == 0.25


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"start": math.nan}, "start must be a finite number, got nan"),
        ({"start": "1"}, "start must be a finite number, got '1'"),
        ({"end": math.inf}, "end must be a finite number, got inf"),
        ({"end": True}, "end must be a finite number, got True"),
        ({"steps": 0}, "steps must be a whole number of at least 1, got 0"),
        ({"steps": 1.5}, "steps must be a whole number of at least 1, got 1.5"),
        ({"steps": True}, "steps must be a whole number of at least 1, got True"),
        ({"shape": "constant"}, "shape must be linear or cosine, got 'constant'; a constant is a plain number"),
    ],
)
def test_bad_schedules_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        Schedule(**{"start": 0.0, "end": 1.0, "steps": 5, **settings})


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (-0.1, "x must be between 0 and 1, got -0.1, see y"),
        (1.1, "x must be between 0 and 1, got 1.1"),
        (math.nan, "x must be between 0 and 1, got nan"),
        ("1", "x must be a number, got '1'"),
        (True, "x must be a number, got True"),
        (Schedule(0.0, 2.0, 3), "x must be between 0 and 1, got 2.0"),
        (Schedule(-1.0, 1.0, 3), "x must be between 0 and 1, got -1.0"),
    ],
)
def test_numbers_and_both_ends_of_schedules_are_checked(value, message):
    with pytest.raises(ValueError, match=message):
        check_number("x", value, 0.0, 1.0, hint=", see y")
    check_number("x", Schedule(0.0, 1.0, 3), 0.0, 1.0)
