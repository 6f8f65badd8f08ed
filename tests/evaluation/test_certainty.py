"""Do intervals stay honest where drawing problems tells nothing, and do they hold training seeds as well as problems?"""

from __future__ import annotations

from math import sqrt

import numpy as np
import pytest

from dasd.evaluation.estimators import (
    Draws,
    differences_of_ratios,
    draws_of,
    holm,
    mean_of_seeds,
    ratios_of_sums,
    unanimous,
)
from evaluation.alone import macro_average, macro_difference, ratio_of_sums

# Quantile 0.975 of Student's t, from any printed table: degrees of freedom -> value.
T_975 = {1: 12.706, 2: 4.303, 4: 2.776}


def problems(count, value):
    return np.full(count, float(value)), np.ones(count)


@pytest.mark.parametrize(("count", "upper"), [(10, 0.3085), (20, 0.1684), (50, 0.0711), (200, 0.0183)])
def test_a_share_that_is_zero_everywhere_has_clopper_and_pearsons_interval(count, upper):
    """1 - 0.025 ** (1 / n), as printed tables of the exact interval have it; all ones mirror it."""
    estimate = ratio_of_sums(*problems(count, 0))
    assert (estimate.mean, estimate.low) == (0, 0)
    assert estimate.high == pytest.approx(upper, abs=5e-5)
    right = ratio_of_sums(*problems(count, 1))
    assert (right.mean, right.high) == (1, 1)
    assert right.low == pytest.approx(1 - upper, abs=5e-5)


def test_two_runs_that_never_differ_are_not_known_to_be_equal():
    zeros, ones = problems(20, 0), problems(20, 1)
    same = differences_of_ratios({"x": zeros}, {"x": zeros})["x"]
    assert (same.mean, same.low, same.high) == (0, pytest.approx(-0.1684, abs=5e-5), pytest.approx(0.1684, abs=5e-5))
    gain = differences_of_ratios({"x": zeros}, {"x": ones})["x"]
    assert (gain.mean, gain.high) == (1, 1)
    assert gain.low == pytest.approx(1 - 2 * 0.1684, abs=2e-4)


def test_one_problem_tells_next_to_nothing():
    estimate = ratio_of_sums([3.0], [4.0])
    assert (estimate.low, estimate.high) == (pytest.approx(0.025 * 0.75), pytest.approx(0.975 + 0.025 * 0.75))


def test_a_count_without_a_bound_that_never_varies_has_no_interval():
    """Nobody can say how large the next problem's length may be."""
    length = (np.full(10, 640.0), np.full(10, 8.0))
    estimates = ratios_of_sums({"length": length, "right": problems(10, 0)})
    assert estimates["length"].mean == 80
    assert np.isnan(estimates["length"].ci95).all()
    assert np.isnan(differences_of_ratios({"x": length}, {"x": length})["x"].ci95).all()
    assert estimates["right"].high == pytest.approx(0.3085, abs=5e-5)  # the neighbour keeps its own


def test_only_problems_that_count_are_counted():
    """Steps of two problems out of forty: two is what the interval rests on."""
    checked = np.array([4.0, 2.0] + [0.0] * 38)
    assert ratio_of_sums(checked, checked).low == pytest.approx(0.025 ** (1 / 2))


def test_means_over_benchmarks_keep_it():
    """As sure as if every benchmark had the fewest problems; two of ten are twenty."""
    assert macro_average([problems(10, 0), problems(10, 0)]).high == pytest.approx(0.1684, abs=5e-5)
    both = [problems(10, 0), problems(10, 0)]
    assert macro_difference(both, both).low == pytest.approx(-0.1684, abs=5e-5)


def test_the_exact_interval_covers():
    """Problems that are solved at all with a chance just above the bound give all zeros in less than 2.5 % of draws."""
    bound = unanimous(0.0, 20, 0.0, 1.0).high
    assert (1 - bound) ** 20 == pytest.approx(0.025)


def seeds(*rates, count=50, alike=True):
    rng = np.random.default_rng(0)
    made = [np.full(count, rate) if alike else rng.random(count) < rate for rate in rates]
    return [draws_of({"x": (np.asarray(values, float), np.ones(count))})["x"] for values in made]


@pytest.mark.parametrize("count", [2, 3, 5])
def test_with_problems_all_alike_a_mean_over_seeds_has_students_interval(count):
    rates = np.linspace(0.48, 0.52, count)
    estimate = mean_of_seeds(seeds(*rates)).estimate
    half = T_975[count - 1] * np.std(rates, ddof=1) / sqrt(count)
    assert estimate.mean == pytest.approx(0.5)
    assert estimate.high - estimate.mean == pytest.approx(min(half, 0.5), rel=0.02)
    assert estimate.mean - estimate.low == pytest.approx(min(half, 0.5), rel=0.02)


def test_seeds_that_agree_add_nothing_and_one_seed_stands_for_its_problems_alone():
    alone, same = seeds(0.3, alike=False)[0], seeds(0.3, alike=False)[0]
    assert mean_of_seeds([alone]).estimate == alone.estimate
    assert mean_of_seeds([alone, same]).estimate == alone.estimate


def test_a_difference_of_seeds_holds_the_noise_of_both_sides():
    """Two seeds a side, problems alike: as the noise of either, and more."""
    a, b = mean_of_seeds(seeds(0.40, 0.42), stream=0), mean_of_seeds(seeds(0.50, 0.52), stream=1)
    one = T_975[1] * 0.01
    difference = (b - a).estimate
    assert difference.mean == pytest.approx(0.1)
    assert one < difference.high - difference.mean < 3 * one
    assert (b - a).p_value > 0.05  # two seeds are no evidence here, though each is ahead on every problem
    many = np.linspace(-0.01, 0.01, 5)
    surer = mean_of_seeds(seeds(*(0.5 + many)), stream=1) - mean_of_seeds(seeds(*(0.4 + many)), stream=0)
    assert surer.p_value < 0.01


def test_the_draws_p_value_agrees_with_their_interval():
    for shift in (0.0, 0.005, 0.01, 0.015, 0.02):
        noise = np.linspace(-0.01, 0.01, 4)
        difference = mean_of_seeds(seeds(*(0.4 + shift + noise)), stream=1) - mean_of_seeds(seeds(*(0.4 + noise)), stream=0)
        estimate = difference.estimate
        assert (difference.p_value < 0.05) == (estimate.low > 0 or estimate.high < 0)


def test_holm_is_worked_out_on_paper():
    """Smallest times 3, next times 2, last times 1, never falling, never above 1; what is unknown does not count."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1, 1]
    assert holm([0.04]) == [0.04]
    corrected = holm([np.nan, 0.02, 0.03])
    assert np.isnan(corrected[0])
    assert corrected[1:] == pytest.approx([0.04, 0.04])


def test_a_difference_undoes_itself():
    (draws,) = seeds(0.3, alike=False)
    assert isinstance(draws - draws, Draws)
    assert (draws - draws).p_value == 1
