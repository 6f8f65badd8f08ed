"""Does a prediction say what the effects say, and nothing where there is too little?"""

import numpy as np
import pytest

from dasd.analysis.predictions import MIN_POSITIONS, MIN_PROBLEMS, every_rule, predictions, recommendation, rules
from dasd.report.data.metrics import signed

PROBLEMS = 30


def effects(of, places=1, problems=PROBLEMS, noise=0.0):
    """action -> decile -> problem -> effects, where `of(action, decile)` is the mean."""
    rng = np.random.default_rng(0)
    return {
        action: [
            [(of(action, decile) + noise * rng.normal(size=places)).tolist() for _ in range(problems)] for decile in range(10)
        ]
        for action in ("conform", "deviate")
    }


def test_a_rule_is_the_mean_over_deciles_of_what_it_does_there():
    """Conforming gains 0.1 in the lower eight deciles and loses 0.2 above; deviating is the other way round."""
    sign = {"conform": 1, "deviate": -1}
    found = predictions(effects(lambda action, decile: sign[action] * (0.1 if decile < 8 else -0.2)), rho=0.8)
    expected = {
        "grpo": 0.0,
        "conformity": 0.8 * 0.1 - 0.2 * 0.2,
        "opsd": 0.8 * 0.1 - 0.2 * 0.2,
        "dasd": 0.8 * 0.1 + 0.2 * 0.2,
        "dasd, paper's printed quantile": 0.2 * 0.1 - 0.6 * 0.1 + 0.2 * 0.2,
        "scaffold_only": 0.8 * 0.1,
        "fork_only": 0.2 * 0.2,
        "novelty": -0.8 * 0.1 + 0.2 * 0.2,
    }
    assert {name: each["mean"] for name, each in found.items()} == pytest.approx(expected)
    assert found["dasd"]["n"] == 2 * PROBLEMS  # of the side with fewer


def test_words_follow_the_intervals():
    found = predictions(effects(lambda action, decile: 0.5 if action == "conform" else -0.5, noise=0.05), rho=0.8)
    words = {name: each["word"] for name, each in found.items()}
    assert words["conformity"] == words["scaffold_only"] == "raise"
    assert words["novelty"] == words["fork_only"] == "lower"
    assert words["grpo"] == "none"
    assert found["novelty"]["sentence"].startswith("Predicted to lower correctness: \N{MINUS SIGN}0.5")
    unclear = predictions(effects(lambda action, decile: 0.0, noise=0.5), rho=0.8)
    assert {each["word"] for name, each in unclear.items() if name != "grpo"} == {"undecided"}


def test_too_few_places_are_undecided_however_clear():
    clear = effects(lambda action, decile: 0.5, noise=0.01)
    for action in clear:
        for decile in (8, 9):
            clear[action][decile] = [[0.5] if i < 20 else [] for i in range(PROBLEMS)]
    found = predictions(clear, rho=0.8)
    assert found["conformity"]["word"] == "raise"
    assert found["dasd"]["word"] == "undecided"
    assert f"40 places to deviate at, and {MIN_POSITIONS} are the least" in found["dasd"]["sentence"]
    one = effects(lambda action, decile: 0.5, places=100, problems=2)
    assert f"2 problems, and {MIN_PROBLEMS} are the least" in predictions(one, rho=0.8)["conformity"]["sentence"]
    nothing = {action: [[] for _ in range(10)] for action in ("conform", "deviate")}
    assert predictions(nothing, rho=0.8)["dasd"]["word"] == "undecided"
    assert recommendation(nothing)["rule"] is None


def test_a_recommendation_is_better_than_doing_nothing_beyond_doubt():
    best = recommendation(effects(lambda a, d: 0.2 if (a == "conform") == (d < 7) else -0.2, noise=0.02))
    assert (best["rule"], best["rho"]) == ("dasd with rho 0.7", 0.7)
    assert "does better than every other" in best["sentence"]
    worse = recommendation(effects(lambda action, decile: -0.2, noise=0.02))
    assert worse["rule"] is None
    assert "none of the 29 rules tried does better than doing nothing" in worse["sentence"]
    lucky = recommendation(effects(lambda action, decile: 0.01, noise=0.5))
    assert lucky["rule"] is None
    assert "cannot be told from doing nothing" in lucky["sentence"] or "none of the" in lucky["sentence"]


def test_effects_that_are_all_zero_leave_the_question_open():
    """Conforming is the greatest of all rules by nothing; its exact interval is wide, so nothing is recommended."""
    found = predictions(effects(lambda action, decile: 0.0), rho=0.8)["conformity"]
    assert (found["mean"], found["word"]) == (0.0, "undecided")
    assert found["low"] < -0.05 < 0.05 < found["high"]
    assert recommendation(effects(lambda action, decile: 0.0))["rule"] is None


def test_every_rule_has_its_share():
    for below, above, rho in rules(0.8).values():
        assert 0 <= rho <= 1
        assert below or above


def test_signs():
    assert [signed(value) for value in (0.0314, -0.0314, -0.0001, float("nan"))] == [
        "+0.031", "\N{MINUS SIGN}0.031", "+0.000", "\N{EN DASH}",
    ]  # fmt: skip


def test_every_rule_is_predicted_as_the_named_ones_are():
    by_decile = effects(lambda action, decile: (0.1 if action == "conform" else -0.2) * (decile + 1), noise=0.05)
    found = {(each["below"], each["above"], each["rho"]): each for each in every_rule(by_decile)}
    assert len(found) == 6 * 9 + 2
    for rho in (0.3, 0.8):
        named = predictions(by_decile, rho)
        for name, (below, above, _) in rules(rho).items():
            of = found[below, above, None if below == above else 0.2 if "printed" in name else rho]
            assert {key: of[key] for key in ("mean", "low", "high")} == {
                key: named[name][key] for key in ("mean", "low", "high")
            }
            assert of["enough"] == (named[name]["n"] >= MIN_POSITIONS)
    assert found["deviate", "conform", 0.5]["mean"] == pytest.approx(-0.02 * 15 + 0.01 * 40, abs=0.05)
