"""Are the figures exact, and do their intervals know that samples of one problem are not independent?"""

from itertools import combinations
from math import comb, nan, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dasd.evaluation.estimators import Estimate, difference_of_ratios, pass_at_k, ratio_of_sums


def width(estimate):
    return estimate.high - estimate.low


def is_nan(estimate):
    return bool(np.isnan([estimate.mean, *estimate.ci95]).all())


# ---------------------------------------------------------------- pass@k


def test_pass_at_k_by_hand():
    assert pass_at_k(4, 2, 2) == pytest.approx(5 / 6)  # only one of six pairs has no right sample
    assert pass_at_k([4, 4, 4], [0, 1, 4], 1).tolist() == [0.0, 0.25, 1.0]
    assert pass_at_k(10_000, 1, 100) == pytest.approx(0.01, rel=1e-12)  # one right sample: k / n
    assert pass_at_k(1000, 3, 500) == pytest.approx(1 - comb(997, 500) / comb(1000, 500), rel=1e-12)


def test_pass_at_k_is_the_share_of_subsets_with_a_right_sample():
    for n in range(1, 8):
        for c in range(n + 1):
            right = [True] * c + [False] * (n - c)
            for k in range(1, n + 1):
                subsets = [any(subset) for subset in combinations(right, k)]
                assert float(pass_at_k(n, c, k)) == pytest.approx(sum(subsets) / len(subsets), abs=1e-12)


def test_pass_at_k_is_undefined_with_fewer_than_k_samples():
    values = pass_at_k([1, 2, 3, 0], [1, 2, 3, 0], 3)
    assert np.isnan(values).tolist() == [True, True, False, True]
    assert values[2] == 1.0
    assert np.isnan(pass_at_k(2, 2, 3))


def test_pass_at_k_takes_arrays_of_any_shape():
    values = pass_at_k(3, [[0, 1], [2, 3]], 2)
    assert values.shape == (2, 2)
    assert values == pytest.approx(np.array([[0, 2 / 3], [1, 1]]))
    assert pass_at_k([2, 4], 1, 1).tolist() == [0.5, 0.25]


@pytest.mark.parametrize(
    ("n", "c", "k", "message"),
    [
        (4, 2, 0, "k must be at least 1, got 0"),
        (4, 2, -1, "k must be at least 1, got -1"),
        (4, 5, 1, "num_correct must lie between 0 and num_samples"),
        ([4, 4], [2, -1], 1, "num_correct must lie between 0 and num_samples"),
        (-1, -1, 1, "num_correct must lie between 0 and num_samples"),
    ],
)
def test_impossible_counts(n, c, k, message):
    with pytest.raises(ValueError, match=message):
        pass_at_k(n, c, k)


# ---------------------------------------------------------------- one run


def test_a_ratio_of_sums_is_not_a_mean_of_ratios():
    assert ratio_of_sums([1, 0], [1, 3]).mean == 0.25


def test_interval_of_a_mean_is_the_textbook_one():
    values = np.random.default_rng(0).normal(3, 2, size=400)
    estimate = ratio_of_sums(values, np.ones(400))
    half = 1.96 * values.std() / sqrt(400)
    assert estimate.mean == pytest.approx(values.mean())
    assert [estimate.low, estimate.high] == pytest.approx([values.mean() - half, values.mean() + half], abs=0.1 * half)
    assert estimate.ci95 == [estimate.low, estimate.high]


def test_correlated_samples_of_a_problem_widen_the_interval():
    """Eight samples that are all right or all wrong tell as much as one: sqrt(8) times the naive width."""
    correct = np.repeat([0.0, 8.0], 40)
    naive = 2 * 1.96 * sqrt(0.25 / (80 * 8))
    assert width(ratio_of_sums(correct, np.full(80, 8.0))) / naive == pytest.approx(sqrt(8), rel=0.1)


def test_samples_that_are_no_more_alike_within_a_problem_keep_the_naive_width():
    correct = np.random.default_rng(1).binomial(8, 0.5, size=400)
    naive = 2 * 1.96 * sqrt(0.25 / (400 * 8))
    assert width(ratio_of_sums(correct, np.full(400, 8.0))) / naive == pytest.approx(1, abs=0.15)


def test_the_interval_covers_the_truth_and_the_naive_one_does_not():
    rng, trials, covered, naively_covered = np.random.default_rng(2), 200, 0, 0
    for trial in range(trials):
        correct = 8.0 * (rng.random(50) < 0.4)
        estimate = ratio_of_sums(correct, np.full(50, 8.0), seed=trial)
        half = 1.96 * sqrt(estimate.mean * (1 - estimate.mean) / 400)
        covered += estimate.low <= 0.4 <= estimate.high
        naively_covered += abs(estimate.mean - 0.4) <= half
    assert 0.89 <= covered / trials <= 0.99
    assert naively_covered / trials < 0.65


def test_estimates_repeat_for_a_seed():
    values = np.random.default_rng(3).random(30)
    first, again, other = (ratio_of_sums(values, np.ones(30), seed=seed) for seed in (0, 0, 1))
    assert first == again == ratio_of_sums(values, np.ones(30))
    assert first.mean == other.mean
    assert first.ci95 != other.ci95


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(1, 9)), min_size=2, max_size=8), st.integers(1, 5))
@settings(deadline=None, max_examples=30)
def test_scaling_and_order_of_numerator_and_denominator(pairs, factor):
    top, bottom = np.array(pairs, dtype=float).T
    estimate, scaled = ratio_of_sums(top, bottom), ratio_of_sums(factor * top, bottom)
    expected = [factor * value for value in (estimate.mean, *estimate.ci95)]
    assert [scaled.mean, *scaled.ci95] == pytest.approx(expected)
    ratios = top / bottom
    assert min(ratios) - 1e-9 <= estimate.low <= estimate.high <= max(ratios) + 1e-9


# ---------------------------------------------------------------- two runs


def test_a_run_does_not_differ_from_itself():
    rng = np.random.default_rng(4)
    run = (rng.integers(0, 9, 40), rng.integers(1, 9, 40))
    assert difference_of_ratios(run, run) == Estimate(0.0, 0.0, 0.0)


def test_the_difference_is_after_minus_before():
    samples = np.full(50, 8.0)
    before = np.random.default_rng(5).binomial(8, 0.4, size=50)
    gain = difference_of_ratios((before, samples), (before + 1, samples))
    assert [gain.mean, *gain.ci95] == pytest.approx([1 / 8] * 3)  # the same gain everywhere: nothing to be unsure of
    loss = difference_of_ratios((before + 1, samples), (before, samples))
    assert [loss.mean, *loss.ci95] == pytest.approx([-1 / 8] * 3)
    halved = difference_of_ratios(([1, 1], [1, 1]), ([1, 1], [1, 3]))
    assert halved.mean == pytest.approx(2 / 4 - 1)


def test_pairing_by_problem_tightens_the_difference_of_correlated_runs():
    rng, samples = np.random.default_rng(6), np.full(200, 8.0)
    difficulty = np.repeat([0.02, 0.98], 100)
    before, after = rng.binomial(8, difficulty), rng.binomial(8, difficulty)
    paired = difference_of_ratios((before, samples), (after, samples))
    unpaired = sqrt(width(ratio_of_sums(before, samples)) ** 2 + width(ratio_of_sums(after, samples)) ** 2)
    assert paired.mean == pytest.approx((after.sum() - before.sum()) / 1600)
    assert width(paired) < unpaired / 5
    misaligned = difference_of_ratios((before, samples), (after[::-1], samples))
    assert width(misaligned) > unpaired  # now each draw that helps one hurts the other


def test_independent_runs_gain_nothing_from_pairing():
    rng, samples = np.random.default_rng(7), np.full(300, 8.0)
    before, after = rng.binomial(8, 0.5, 300), rng.binomial(8, 0.5, 300)
    unpaired = sqrt(width(ratio_of_sums(before, samples)) ** 2 + width(ratio_of_sums(after, samples)) ** 2)
    assert width(difference_of_ratios((before, samples), (after, samples))) == pytest.approx(unpaired, rel=0.15)


def test_differences_repeat_for_a_seed():
    rng = np.random.default_rng(8)
    runs = [(rng.random(30), np.ones(30)) for _ in range(2)]
    first, again, other = (difference_of_ratios(*runs, seed=seed) for seed in (3, 3, 4))
    assert first == again
    assert first.ci95 != other.ci95


# ---------------------------------------------------------------- what is undefined


def test_undefined_figures_are_nan():
    assert is_nan(ratio_of_sums([0, 0], [0, 0]))
    assert is_nan(ratio_of_sums([1, nan, 1], [1, 1, 1]))
    assert is_nan(ratio_of_sums([], []))
    good, bad = ([1, 2], [2, 2]), ([0, 0], [0, 0])
    for before, after in ((good, bad), (bad, good), (good, ([nan, 1], [1, 1])), (([], []), ([], []))):
        assert is_nan(difference_of_ratios(before, after))


def test_pass_at_k_of_too_few_samples_makes_the_figure_nan_instead_of_dropping_the_problem():
    assert is_nan(ratio_of_sums(pass_at_k([4, 1], [2, 1], 2), [1, 1]))


def test_draws_without_a_denominator_are_left_out():
    """Two of three problems have nothing to check: a third of the draws or so holds no step at all."""
    assert ratio_of_sums([3, 0, 0], [4, 0, 0]) == Estimate(0.75, 0.75, 0.75)


def test_arrays_of_different_problems_are_refused():
    with pytest.raises(ValueError, match=r"must cover the same problems, got lengths \[3, 2\]"):
        ratio_of_sums([1, 1, 1], [1, 1])
    with pytest.raises(ValueError, match=r"got lengths \[2, 2, 3, 3\]"):
        difference_of_ratios(([1, 1], [1, 1]), ([1, 1, 1], [1, 1, 1]))
