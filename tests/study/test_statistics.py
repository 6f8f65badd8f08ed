"""Are the formulas of a study right? Numbers that can be checked on paper, slow twins, known quantiles."""

import math

import numpy as np
import pytest

from dasd.evaluation.estimators import holm
from dasd.study.statistics import (
    Noise,
    hierarchical_bootstrap,
    interquartile_interval,
    interquartile_mean,
    level,
    minimum_detectable_effect,
    noise,
    paired_difference,
    performance_profile,
    student_quantile,
    student_tail,
)


def test_interquartile_mean_cuts_a_quarter_on_either_side():
    assert interquartile_mean([100, 1, 2, 3, 4, 5, 6, -100]) == pytest.approx((2 + 3 + 4 + 5) / 4)
    assert interquartile_mean([[0.0, 9.0, 3.0]]) == 4  # fewer than four: nothing is cut
    assert interquartile_mean([1, 2, 3, 4, 50]) == 3  # one of five on either side
    assert math.isnan(interquartile_mean([]))


def test_interquartile_interval_draws_the_runs_of_each_task():
    found = interquartile_interval([[0.1, 0.1, 0.1], [0.9, 0.9]])
    assert (found.mean, found.low, found.high) == pytest.approx((0.5 - 0.4 / 3, 0.5 - 0.4 / 3, 0.5 - 0.4 / 3))
    alone = interquartile_interval([[0.1], [0.9]])
    assert alone.mean == 0.5
    assert math.isnan(alone.low)
    wide = interquartile_interval([[0.0, 1.0]])
    assert (wide.low, wide.high) == (0.0, 1.0)  # both ends come up in a quarter of the draws


def test_performance_profile_is_the_share_above_and_tasks_count_alike():
    profile = performance_profile([[0.2, 0.4, 0.6, 0.8], [0.5]], [0.0, 0.4, 0.5, 0.9])
    assert profile == pytest.approx([1.0, (0.5 + 1) / 2, (0.5 + 0) / 2, 0.0])


def test_student_quantiles_are_those_of_the_tables():
    for freedom, expected in ((1, 12.706), (2, 4.303), (4, 2.776), (30, 2.042)):
        assert student_quantile(0.975, freedom) == pytest.approx(expected, abs=1e-3)
        assert student_quantile(0.025, freedom) == pytest.approx(-expected, abs=1e-3)
    assert student_quantile(0.5, 3) == pytest.approx(0, abs=1e-4)


def test_student_tails_are_those_of_the_tables_however_small():
    assert student_tail([0.0, 1.0, -1.0], 1) == pytest.approx([0.5, 0.25, 0.75], abs=1e-5)
    assert student_tail([2.776, 4.604, 8.610, 15.544], 4) == pytest.approx([0.025, 0.005, 0.0005, 0.00005], rel=1e-3)
    assert student_tail(30.0, 2) == pytest.approx(
        0.5 - 15 / math.sqrt(902), rel=1e-3
    )  # t / (2 sqrt(2 + t^2)) is in closed form


def test_p_values_are_students_where_problems_are_alike_and_no_draw_limits_them():
    """Three differences of 0.1, 0.2 and 0.3 on every problem: t is sqrt(12). Closer together: 4,000 draws said 0.0005."""
    reference = np.full((3, 20), 0.5)
    apart = reference + np.array([[0.1], [0.2], [0.3]])
    expected = 2 * (0.5 - math.sqrt(12) / (2 * math.sqrt(14)))
    assert paired_difference(apart, reference).p_value == pytest.approx(expected, rel=1e-3)
    assert paired_difference(reference, apart).p_value == pytest.approx(expected, rel=1e-3)
    close = reference + np.array([[0.199], [0.2], [0.201]])
    assert paired_difference(close, reference).p_value == pytest.approx(1 / 120000, rel=0.01)  # 1 / t^2 far out


def test_p_values_are_those_of_the_draws():
    """Both kinds of noise at once, drawn: a normal mean of problems plus Student's t of the seeds."""
    rng = np.random.default_rng(5)
    arms = [rng.normal(0.5 + shift, 0.02, (4, 1)) + rng.normal(0, 0.15, (4, 60)) for shift in (0.03, 0.0)]
    gaps = arms[0] - arms[1]
    error = gaps.mean(axis=1).std(ddof=1) / 2
    problems = rng.normal(0, gaps.mean(axis=0).std() / math.sqrt(60), 400_000)
    drawn = gaps.mean() + problems + error * rng.standard_t(3, 400_000)
    assert paired_difference(*arms).p_value == pytest.approx(2 * (drawn < 0).mean(), rel=0.05)


def test_noise_takes_two_way_variances_apart():
    scores = [[0.0, 1.0], [0.2, 1.2]]  # a seed's effect of 0.2, a problem's of 1, nothing left
    found = noise(scores)
    assert (found.seeds, found.problems, found.rest) == pytest.approx((0.02, 0.5, 0.0))
    assert noise([[0.0, 1.0], [1.0, 0.0]]).rest == pytest.approx(1.0)  # four residuals of a half, one degree of freedom
    assert math.isnan(noise([[0.0, 1.0]]).seeds)


def test_minimum_detectable_effect_is_its_formula():
    of = Noise(seeds=0.001, problems=9.0, rest=0.05)
    error = math.sqrt(2 * 0.001 / 5 + 2 * 0.05 / 100)
    assert minimum_detectable_effect(of, 5, 100, 1) == pytest.approx((2.776 + 0.941) * error, rel=1e-3)
    assert minimum_detectable_effect(of, 5, 100, 10) == pytest.approx((5.598 + 0.941) * error, rel=1e-3)  # t_4(0.9975)
    assert math.isnan(minimum_detectable_effect(of, 1, 100, 1))
    assert math.isnan(minimum_detectable_effect(Noise(0.0, 0.0, 0.0), 5, 100, 1))  # no noise seen is not no noise
    assert math.isnan(minimum_detectable_effect(Noise(math.nan, math.nan, math.nan), 5, 100, 1))


def test_the_effect_that_it_names_is_found_four_times_in_five():
    """Simulated studies with that very difference: the test at 5 % finds it in about 80 %."""
    rng, seeds, problems = np.random.default_rng(0), 5, 60
    effect = minimum_detectable_effect(Noise(0.0008 + 0.01 / problems, 0.0, 0.0), seeds, problems, 1)
    found = 0
    for _ in range(150):
        base = rng.uniform(0.3, 0.6, problems)
        arms = [
            base + shift + rng.normal(0, 0.0008**0.5, (seeds, 1)) + rng.normal(0, 0.1, (seeds, problems))
            for shift in (effect, 0.0)
        ]
        found += paired_difference(*arms).p_value < 0.05
    assert 0.65 < found / 150 < 0.92


def test_hierarchical_bootstrap_has_the_variance_of_both_levels():
    seeds = np.array([[0.0], [1.0], [2.0]]) + np.zeros((1, 40))  # seeds alone: variance 1, of the mean 1 / 3
    assert hierarchical_bootstrap(seeds, draws=20_000).var() == pytest.approx(1 / 3, rel=0.05)
    problems = np.tile(np.array([0.0, 1.0] * 20), (3, 1))  # problems alone: variance 1 / 4, of the mean 1 / 160
    assert hierarchical_bootstrap(problems, draws=20_000).var() == pytest.approx(1 / 160, rel=0.05)


def test_hierarchical_bootstrap_is_its_slow_twin():
    values, draws = np.random.default_rng(1).normal(size=(3, 5)), 200
    rng = np.random.default_rng(0)
    by_problem = rng.multinomial(5, np.full(5, 0.2), size=draws)
    by_seed = rng.multinomial(3, np.full(3, 1 / 3), size=draws)
    slow = []
    for problems, seeds in zip(by_problem, by_seed, strict=True):
        each = [sum(problems[p] * row[p] for p in range(5)) / 5 for row in values]
        middle, drawn = sum(each) / 3, sum(seeds[s] * each[s] for s in range(3)) / 3
        slow.append(middle + math.sqrt(3 / 2) * (drawn - middle))
    assert hierarchical_bootstrap(values, 0, draws) == pytest.approx(slow)


def test_a_difference_is_paired_by_seed_and_problem():
    rng = np.random.default_rng(0)
    reference = rng.uniform(0.2, 0.7, (4, 50)) + np.array([[-0.1], [0.0], [0.05], [0.1]])
    wobble = np.tile([0.01, -0.01], 25)  # of problems; seeds differ by far more, and all of it cancels
    found = paired_difference(reference + 0.05 + wobble, reference)
    assert found.mean == pytest.approx(0.05)
    half = 1.96 * 0.01 / math.sqrt(50)
    assert (found.low, found.high) == pytest.approx((0.05 - half, 0.05 + half), abs=3e-4)
    assert found.resampled == pytest.approx((0.05 - half, 0.05 + half), abs=3e-4)
    assert (found.p_value < 0.001, found.seeds) == (True, 4)
    with pytest.raises(ValueError, match="paired"):
        paired_difference(reference, reference[:2])


def test_no_difference_is_found_where_there_is_none():
    """Of studies without any difference about one in twenty is called one, five seeds a side."""
    rng, called, studies = np.random.default_rng(3), 0, 200
    for _ in range(studies):
        arms = [rng.normal(0.5, 0.03, (5, 1)) + rng.normal(0, 0.2, (5, 40)) for _ in range(2)]
        called += paired_difference(*arms).p_value < 0.05
    assert called / studies < 0.09


def test_level_holds_the_noise_of_seeds():
    one, two = level([[0.0, 1.0] * 20]), level([[0.0, 1.0] * 20, [0.2, 1.0] * 20])
    assert (one.mean, two.mean) == pytest.approx((0.5, 0.55))
    assert two.high - two.low > one.high - one.low  # t with one degree of freedom


def test_holm_of_a_family():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
