"""Are the figures exact, and do their intervals know that samples of one problem are not independent?"""

import importlib.util
from dataclasses import astuple
from itertools import combinations, product
from math import comb, isnan, nan, sqrt
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from dasd.evaluation import estimators
from dasd.evaluation.estimators import (
    differences_of_ratios,
    macro_averages,
    majority_at_k,
    pass_at_k,
    ratios_of_sums,
    swap_p_value,
)
from evaluation.alone import difference_of_ratios, macro_average, macro_difference, ratio_of_sums


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
    assume(np.ptp(top / bottom) > 1e-6)  # all alike: see test_certainty
    estimate, scaled = ratio_of_sums(top, bottom), ratio_of_sums(factor * top, bottom)
    expected = [factor * value for value in (estimate.mean, *estimate.ci95)]
    assert [scaled.mean, *scaled.ci95] == pytest.approx(expected)
    ratios = top / bottom
    assert min(ratios) - 1e-9 <= estimate.low <= estimate.high <= max(ratios) + 1e-9


# ---------------------------------------------------------------- two runs


def test_a_run_does_not_differ_from_itself():
    rng = np.random.default_rng(4)
    run = (rng.integers(0, 9, 40), rng.integers(1, 9, 40))
    same = difference_of_ratios(run, run)
    assert same.mean == 0
    assert np.isnan(same.ci95).all()  # a count that may be anything: test_certainty has shares


def test_the_difference_is_after_minus_before():
    samples = np.full(50, 8.0)
    before = np.random.default_rng(5).binomial(8, 0.4, size=50)
    gain = difference_of_ratios((before, samples), (before + 1, samples))
    assert gain.mean == pytest.approx(1 / 8)
    assert 0 < gain.low < gain.mean < gain.high < 0.2  # the same gain everywhere; another problem may gain more or less
    loss = difference_of_ratios((before + 1, samples), (before, samples))
    assert loss.ci95 == pytest.approx([-gain.high, -gain.low])
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
    assert ratio_of_sums([3, 0, 0], [4, 0, 0]) == ratio_of_sums([3], [4])


def test_arrays_of_different_problems_are_refused():
    with pytest.raises(ValueError, match=r"must cover the same problems, got lengths \[3, 2\]"):
        ratio_of_sums([1, 1, 1], [1, 1])
    with pytest.raises(ValueError, match=r"got lengths \[2, 2, 3, 3\]"):
        difference_of_ratios(([1, 1], [1, 1]), ([1, 1, 1], [1, 1, 1]))


# ---------------------------------------------------------------- maj@k


def majority_by_subsets(votes, silent, k):
    """Every subset of size k of the written-out samples: the winners share the credit."""
    samples = [None] * silent
    for name, (count, right) in enumerate(votes):
        samples += [(name, i < right) for i in range(count)]
    credits = []
    for subset in combinations(samples, k):
        given = [sample[0] for sample in subset if sample is not None]
        most = max(map(given.count, given), default=0)
        winners = {name for name in given if given.count(name) == most}
        shares = [votes[name][1] / votes[name][0] for name in winners]
        credits.append(sum(shares) / len(shares) if shares else 0.0)
    return sum(credits) / len(credits)


def test_majority_by_hand():
    assert majority_at_k([(2, 2), (1, 0)], 0, 3) == 1.0
    assert majority_at_k([(1, 1), (1, 0)], 0, 2) == 0.5  # a tie
    assert majority_at_k([(1, 1), (1, 0), (1, 0)], 1, 4) == pytest.approx(1 / 3)
    assert majority_at_k([], 5, 3) == 0.0  # nobody said anything
    assert majority_at_k([(1, 1)], 3, 1) == 0.25
    assert majority_at_k([(3, 0), (1, 1)], 0, 4) == 0.0  # the crowd is wrong
    # Two of three samples: right with right, right with wrong (twice a tie).
    assert majority_at_k([(2, 2), (1, 0)], 0, 2) == pytest.approx((1 + 0.5 + 0.5) / 3)


votes_strategy = st.lists(st.integers(1, 4).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n))), max_size=4)


@given(votes_strategy, st.integers(0, 3))
@settings(deadline=None, max_examples=60)
def test_majority_is_the_mean_over_all_subsets(votes, silent):
    total = silent + sum(count for count, _ in votes)
    for k in range(1, total + 1):
        if comb(total, k) <= 3000:
            assert majority_at_k(votes, silent, k) == pytest.approx(majority_by_subsets(votes, silent, k), abs=1e-12)
    assert isnan(majority_at_k(votes, silent, total + 1))


def test_majority_of_one_is_the_share_that_is_right():
    assert majority_at_k([(5, 5), (3, 0), (2, 2)], 6, 1) == pytest.approx(7 / 16)


def test_majority_of_many_samples_stays_exact():
    assert majority_at_k([(100, 100), (100, 0)], 0, 200) == pytest.approx(0.5)
    assert majority_at_k([(140, 140), (60, 0)], 0, 199) == pytest.approx(1.0)
    assert isnan(majority_at_k([(200, 200), (100, 0)], 0, 3))  # more than are worked out


@pytest.mark.parametrize(("votes", "silent", "k"), [([(1, 1)], 0, 0), ([(1, 2)], 0, 1), ([(0, 0)], 1, 1), ([(1, 1)], -1, 1)])
def test_impossible_votes(votes, silent, k):
    with pytest.raises(ValueError, match=r"k must be at least 1|every answer needs at least one vote"):
        majority_at_k(votes, silent, k)


# ---------------------------------------------------------------- many figures, many benchmarks


def assert_alike(together, alone):
    assert list(together) == list(alone)
    for name, estimate in together.items():  # a wider matrix product may round otherwise
        assert astuple(estimate) == pytest.approx(astuple(alone[name]), rel=1e-12)


def test_figures_together_are_the_figures_alone():
    rng = np.random.default_rng(9)
    before, after = ({name: (rng.random(20), rng.integers(1, 5, 20)) for name in "xyz"} for _ in range(2))
    assert_alike(ratios_of_sums(before), {name: ratio_of_sums(*pair) for name, pair in before.items()})
    del after["y"]
    together = differences_of_ratios(before, after)
    assert_alike(together, {name: difference_of_ratios(before[name], after[name]) for name in "xz"})


def test_large_benchmarks_are_drawn_in_portions_with_the_same_result(monkeypatch):
    values = np.random.default_rng(10).random(30)
    whole = ratio_of_sums(values, np.ones(30))
    monkeypatch.setattr(estimators, "_chunks", lambda draws, problems: [7] * (draws // 7) + [draws % 7])
    assert ratio_of_sums(values, np.ones(30)) == whole


def test_every_benchmark_counts_the_same():
    small, large = ([1, 0], [1, 1]), (np.ones(100), np.ones(100))
    assert macro_average([small, large]).mean == 0.75
    assert macro_difference([small, large], [small, (np.zeros(100), np.ones(100))]).mean == -0.5
    alone = ratio_of_sums(*small)
    assert macro_average([small]) == alone


def test_macro_interval_is_the_textbook_one():
    """Independent benchmarks: variances add up, over the square of how many there are."""
    rng = np.random.default_rng(11)
    groups = [(rng.normal(0, spread, size), np.ones(size)) for spread, size in ((1, 300), (3, 300), (2, 400))]
    error = sqrt(sum(pair[0].var() / len(pair[0]) for pair in groups)) / 3
    estimate = macro_average(groups)
    assert width(estimate) == pytest.approx(2 * 1.96 * error, rel=0.1)


def test_a_macro_figure_with_an_undefined_part_is_undefined():
    assert is_nan(macro_average([([1, 1], [1, 1]), ([0, 0], [0, 0])]))
    assert is_nan(macro_average([]))


# ---------------------------------------------------------------- do two runs differ?


def sign_flips(differences):
    """p-value by listing all signs of the differences."""
    observed = abs(sum(differences))
    flips = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True))) for signs in product((1, -1), repeat=len(differences))
    ]
    return sum(flip >= observed - 1e-9 for flip in flips) / len(flips)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=7))
@settings(deadline=None, max_examples=60)
def test_swapping_the_runs_of_a_mean_is_flipping_signs(pairs):
    before, after = np.array(pairs, dtype=float).T
    samples = np.full(len(pairs), 4.0)
    p = swap_p_value([(before, samples)], [(after, samples)])
    assert p == pytest.approx(sign_flips([(b - a) / 4 for a, b in pairs]), abs=1e-12)


def test_p_values_by_hand():
    ones = np.ones(3)
    assert swap_p_value([(np.zeros(3), ones)], [(ones, ones)]) == 2 / 8  # all gains: only all up and all down are as large
    assert swap_p_value([(ones, ones)], [(ones, ones)]) == 1.0
    assert swap_p_value([([0, 0, 1], ones)], [([1, 1, 1], ones)]) == 2 / 4  # two problems differ
    # Over two benchmarks of one and two problems that all gain, the only one weighs as much as both of the other.
    assert swap_p_value([([0], [1]), ([0, 0], [1, 1])], [([1], [1]), ([1, 1], [1, 1])]) == 2 / 8


def test_a_ratio_is_swapped_with_its_denominator():
    before, after = ([1, 3], [2, 4]), ([2, 2], [2, 8])
    swaps = []
    for first, second in product((0, 1), repeat=2):
        runs = [[0.0, 0.0], [0.0, 0.0]]
        for i, swap in enumerate((first, second)):
            for side, run in enumerate((before, after)):
                runs[side ^ swap][0] += run[0][i]
                runs[side ^ swap][1] += run[1][i]
        swaps.append(runs[1][0] / runs[1][1] - runs[0][0] / runs[0][1])
    expected = sum(abs(swap) >= abs(swaps[0]) - 1e-12 for swap in swaps) / 4
    assert swap_p_value([before], [after]) == expected


def test_random_swaps_come_close_to_all_swaps(monkeypatch):
    rng = np.random.default_rng(12)
    before, after, samples = rng.integers(0, 9, 11), rng.integers(0, 9, 11), np.full(11, 8.0)
    exact = swap_p_value([(before, samples)], [(after, samples)])
    monkeypatch.setattr(estimators, "EXACT_UP_TO", 3)
    drawn = swap_p_value([(before, samples)], [(after, samples)])
    assert drawn == pytest.approx(exact, abs=4 * sqrt(exact * (1 - exact) / estimators.PERMUTATIONS))
    assert drawn != exact
    assert drawn == swap_p_value([(before, samples)], [(after, samples)])  # for the same seed
    assert drawn != swap_p_value([(before, samples)], [(after, samples)], seed=1)


def test_equal_runs_are_found_different_as_often_as_p_says():
    rng, ones, ps = np.random.default_rng(13), np.ones(10), []
    for _ in range(300):
        before, after = rng.random((2, 10))
        ps.append(swap_p_value([(before, ones)], [(after, ones)]))
    for level in (0.1, 0.5):
        assert np.mean(np.array(ps) <= level) == pytest.approx(level, abs=4 * sqrt(level * (1 - level) / 300))


def test_an_undefined_difference_has_no_p_value():
    assert isnan(swap_p_value([([0, 0], [0, 0])], [([1, 1], [1, 1])]))
    assert isnan(swap_p_value([([nan, 0], [1, 1])], [([1, 1], [1, 1])]))


# ---------------------------------------------------------------- against other people's code


def random_counts():
    rng = np.random.default_rng(14)
    samples = rng.integers(1, 40, 60)
    return samples, rng.binomial(samples, rng.random(60))


def test_pass_at_k_and_clustered_error_agree_with_inspect_ai():
    scorer = pytest.importorskip("inspect_ai.scorer")
    for n, c in zip(*random_counts(), strict=True):
        scores = [scorer.Score(value=float(i < c)) for i in range(n)]
        for k in {1, 2, int(n) // 2, int(n)} - {0}:
            if k <= n:
                assert float(pass_at_k(n, c, k)) == pytest.approx(scorer.pass_at(k)(scores).as_float(), abs=1e-9)
    right = np.random.default_rng(15).binomial(8, np.linspace(0.05, 0.95, 300))
    scores = [
        scorer.SampleScore(score=scorer.Score(value=float(i < c)), sample_metadata={"problem": problem})
        for problem, c in enumerate(right)
        for i in range(8)
    ]
    error = scorer.stderr(cluster="problem")(scores)
    assert width(ratio_of_sums(right, np.full(300, 8.0))) == pytest.approx(2 * 1.96 * error, rel=0.06)


def test_pass_at_k_agrees_with_evalscope():
    found = importlib.util.find_spec("evalscope")
    if found is None or found.origin is None:
        pytest.skip("evalscope is not installed")
    pytest.importorskip("editdistance")
    path = Path(found.origin).parent / "metrics" / "utils" / "functions.py"  # its package imports much more
    spec = importlib.util.spec_from_file_location("evalscope_functions", path)
    functions = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(functions)
    samples, correct = random_counts()
    for k in (1, 2, 5, 16):
        enough = samples >= k
        theirs = functions.calculate_pass_at_k(samples[enough].tolist(), correct[enough].tolist(), k)
        assert pass_at_k(samples, correct, k)[enough] == pytest.approx(np.asarray(theirs), abs=1e-9)


def test_many_macro_averages_are_each_that_of_its_own():
    rng = np.random.default_rng(5)
    names = [("x", "y", "z"), ("z", "x")]  # y is not in both
    benchmarks = [{name: (rng.integers(0, 5, 30), np.full(30, 4.0)) for name in some} for some in names]
    together = macro_averages(benchmarks)
    assert list(together) == ["x", "z"]
    for name, estimate in together.items():
        assert estimate == macro_average([figures[name] for figures in benchmarks])


def test_a_count_is_no_share_however_small_it_is():
    """One turn back in each of four responses: a share could not be above 1, a count can."""
    ones = np.ones(4)
    drawn = estimators.draws_of({"backtracks_per_response": (ones, ones), "truncated": (ones, ones)})
    assert isnan(drawn["backtracks_per_response"].estimate.low)
    assert drawn["truncated"].estimate.high == 1.0
    assert 0.0 < drawn["truncated"].estimate.low < 1.0
