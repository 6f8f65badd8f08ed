"""Is the rank correlation the textbook's, and does its interval take problems for what is drawn?"""

import numpy as np
import pytest

from dasd.analysis.correlation import spearman


def mean_ranks(values):
    return np.array(
        [sum(other < value for other in values) + (sum(other == value for other in values) + 1) / 2 for value in values]
    )


def twin(x, y):
    return np.corrcoef(mean_ranks(x), mean_ranks(y))[0, 1]


@pytest.mark.parametrize("seed", range(5))
def test_the_value_is_pearson_of_mean_ranks(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.integers(0, 6, 40).astype(float), rng.normal(size=40)  # ties on one side
    found = spearman([x[:13], x[13:]], [y[:13], y[13:]])
    assert found["mean"] == pytest.approx(twin(x, y))
    assert (found["n"], found["problems"]) == (40, 2)


def test_perfect_order_either_way():
    x = np.arange(10.0)
    assert spearman([x, x], [x**3, x**3])["mean"] == pytest.approx(1.0)
    assert spearman([x, x], [-x, -x])["mean"] == pytest.approx(-1.0)


def test_a_draw_counts_a_problem_as_often_as_it_is_drawn():
    """Two problems: draws are twice the first, both, twice the second, so the ends are their own correlations."""
    rng = np.random.default_rng(0)
    x, y = [rng.normal(size=30), rng.normal(size=20)], [rng.normal(size=30), rng.normal(size=20)]
    found = spearman(x, y)
    each = sorted([twin(x[0], y[0]), twin(x[1], y[1])])
    whole = twin(np.concatenate(x), np.concatenate(y))
    assert found["low"] == pytest.approx(min(*each, whole))
    assert found["high"] == pytest.approx(max(*each, whole))


def test_many_tokens_of_one_problem_are_one_witness():
    x = np.arange(1000.0)
    found = spearman([x], [x])
    assert found["mean"] == pytest.approx(1.0)
    assert np.isnan(found["low"])


@pytest.mark.parametrize("x", [[], [np.array([])], [np.ones(5), np.ones(4)]])
def test_undefined_is_nan(x):
    assert np.isnan(spearman(x, x)["mean"])
