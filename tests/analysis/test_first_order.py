"""Relative gains: numbers on paper, a slow twin, and what must not matter."""

import numpy as np
import pytest

from dasd.analysis.first_order import relative_gains


def slow_gain(theirs, ours):
    """The definition, weight by weight."""
    total = 0.0
    for start in (0, 1):
        here, there = range(start, len(ours), 2), range(1 - start, len(ours), 2)
        for weight in range(ours.shape[1]):
            mean = sum(theirs[b, weight] for b in here) / len(here)
            rms = (sum(theirs[b, weight] ** 2 for b in here) / len(here)) ** 0.5
            aim = sum(ours[b, weight] for b in there) / len(there)
            total += aim * mean / rms / 2 if rms > 0 else 0.0
    return total


@pytest.fixture
def updates():
    rng = np.random.default_rng(3)
    signal = rng.normal(size=9000)  # more than are summed at a time
    return {name: (signal + noise * rng.normal(size=(6, 9000))).astype(np.float32) for name, noise in (("v", 1.0), ("u", 4.0))}


def test_numbers_on_paper():
    """One weight: v is 1, 1, 1, 1. u is 1 and -3 in the even batches (mean -1, rms sqrt 5), 2 and 2 in the odd."""
    ones, u = np.ones((4, 1), np.float32), np.array([[1.0], [2.0], [-3.0], [2.0]], np.float32)
    found = relative_gains({"v": ones, "u": u}, "v")
    assert found["u"]["mean"] == pytest.approx((1 - 5**-0.5) / 2 - 1)
    assert found["v"]["mean"] == 0.0
    assert found["v"]["verdict"] == "reference"
    assert found["u"]["cosine"] == pytest.approx((1 + 1 - 1 + 1) / 4)


def test_equals_the_definition(updates):
    found = relative_gains(updates, "v")["u"]["mean"]
    assert found == pytest.approx(slow_gain(updates["u"], updates["v"]) / slow_gain(updates["v"], updates["v"]) - 1, abs=1e-9)


def test_noise_gains_less_and_size_changes_nothing(updates):
    found = relative_gains(updates | {"large": 7 * updates["v"], "away": -updates["v"]}, "v")
    assert found["u"]["high"] < 0
    assert found["u"]["verdict"] == "less"
    assert found["large"]["mean"] == pytest.approx(0.0, abs=1e-6)
    assert found["away"]["mean"] == pytest.approx(-2.0, abs=1e-6)


def test_less_noise_gains_more(updates):
    found = relative_gains({"v": updates["u"], "u": updates["v"]}, "v")
    assert found["u"]["verdict"] == "more"
    assert found["u"]["low"] < found["u"]["mean"] < found["u"]["high"]


def test_a_weight_that_nothing_moves_counts_for_nothing(updates):
    still = {name: np.concatenate([of, np.zeros((6, 5), np.float32)], axis=1) for name, of in updates.items()}
    assert relative_gains(still, "v")["u"]["mean"] == pytest.approx(relative_gains(updates, "v")["u"]["mean"])


def test_what_it_refuses(updates):
    with pytest.raises(ValueError, match="at least 4"):
        relative_gains({"v": updates["v"][:3]}, "v")
    with pytest.raises(ValueError, match=r"updates of u have shape \(5, 9000\)"):
        relative_gains({"v": updates["v"], "u": updates["u"][:5]}, "v")
    with pytest.raises(ValueError, match="gain of v itself cannot be told from 0"):
        relative_gains({"v": np.zeros((4, 2), np.float32)}, "v")
    noise = np.random.default_rng(0).normal(size=(8, 50)).astype(np.float32)
    with pytest.raises(ValueError, match="gain of v itself cannot be told from 0"):
        relative_gains({"v": noise}, "v")


@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_an_update_that_is_no_number_is_refused_by_name(updates, number):
    """A weight with NaN in it counted for nothing, and the reference's was said to be too few batches."""
    for name in updates:
        broken = {each: of.copy() for each, of in updates.items()}
        broken[name][3, 7] = number
        with pytest.raises(ValueError, match=rf"update 4 of {name} is not finite"):
            relative_gains(broken, "v")
